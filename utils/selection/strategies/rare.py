"""Strategies that tell rare examples from mislabelled ones."""

import numpy as np

from utils.data.logits import softmax
from utils.errors import InputError
from utils.selection.bias_models import shallow_probability
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Picks, Pool, strategy


@strategy(
    "rare",
    needs=("labels", "pairs", "held out"),
    source="ours; of Sanh et al. 2021, arXiv 2012.01300 (weak models show the shortcut) and Liu et al. 2021, arXiv "
    "2107.09044 (what they get wrong weighs more)",
    fidelity="a method of this project; docs/planted.md says what it finds and where it fails",
)
def rare(inputs: Inputs, pool: Pool, *, shallow_power: float = 1.5) -> Picks:
    """what shallow models get wrong and a model that never saw the label gets right: rare, but hardly mislabelled.

    shallow_power: how much the error of the shallow models counts; 0 leaves the other model alone, larger values take
        more mislabelled examples along
    """
    if not 0 <= shallow_power < np.inf:
        raise InputError(f"--shallow_power {shallow_power:g}: must be a finite number, 0 or above")
    learnt = softmax(inputs.held_out.astype(np.float32))[np.arange(inputs.n), inputs.classes]
    shallow = shallow_probability(inputs.texts, inputs.classes, pool.seed)
    scores = (learnt * (1 - shallow) ** shallow_power).astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores)
