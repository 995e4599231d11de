"""Strategies that tell rare examples from mislabelled ones."""

import numpy as np

from utils.data.logits import softmax
from utils.errors import InputError
from utils.selection.bias_models import shallow_probability
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import measure
from utils.selection.strategies.registry import Picks, Pool, strategy


@strategy(
    "rare",
    needs=("labels", "pairs", "learnt"),
    source="ours; after Sanh et al. 2021, arXiv 2012.01300 (weak models show the shortcut)",
    fidelity="a method of this project; docs/planted.md says what it finds and where it fails",
)
def rare(inputs: Inputs, pool: Pool, *, shallow_power: float = 2.0, cross_fitted: bool = False) -> Picks:
    """what shallow models get wrong and an encoder has learnt after a few epochs: rare, but unlikely to be mislabelled.

    shallow_power: how much the error of the shallow models counts; 0 leaves the encoder alone, larger values take more
        mislabelled examples along
    cross_fitted: judge each example by an encoder that was not trained on it (--held_out_path, or two runs on one half of
        the data each); for an encoder that learns wrong labels by heart within its few epochs
    """
    if not 0 <= shallow_power < np.inf:
        raise InputError(f"--shallow_power {shallow_power:g}: must be a finite number, 0 or above")
    known = inputs.held_out if cross_fitted else inputs.dynamics
    if known is None:
        raise InputError(f"--strategy rare needs {'--held_out_path' if cross_fitted else '--dynamics_path'} FILE")
    if cross_fitted:
        learnt = softmax(known.astype(np.float32))[np.arange(inputs.n), inputs.classes]
    else:
        learnt = measure(inputs, lambda run: run.gold_probability()[-1])
    if inputs.n < 2:
        raise InputError("--strategy rare needs two examples: the shallow model that scores one must not have seen it")
    shallow = shallow_probability(inputs.texts, inputs.classes, pool.seed)
    scores = (learnt * (1 - shallow) ** shallow_power).astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores)
