"""Arms of the study that are variants of strategies: sweep.py --plugin study/arms.py."""

import numpy as np

from utils.selection.strategies import Inputs, Picks, Pool, get_strategy, strategy
from utils.selection.strategies.ordering import interleave

EASY_SHARE = 0.1


@strategy(
    "ambiguous_mixed",
    needs=("two snapshots",),
    source="Swayamdipta et al. 2020, with easy examples as at small budgets",
)
def ambiguous_mixed(inputs: Inputs, pool: Pool) -> Picks:
    """ambiguous, with a tenth of the budget from the easiest examples."""
    return get_strategy("ambiguous").function(inputs, pool, mix_easy=EASY_SHARE)


@strategy(
    "hard_balanced",
    needs=("dynamics", "labels"),
    source="Swayamdipta et al. 2020, labels in the proportions of the data",
)
def hard_balanced(inputs: Inputs, pool: Pool) -> Picks:
    """hard, with each label's share of the data."""
    order = get_strategy("hard").function(inputs, pool).rows
    own = inputs.classes[order]
    return Picks(order[interleave(own, pool.m, share=np.bincount(own))])


@strategy(
    "jtt_random",
    needs=("dynamics",),
    weighted=True,
    source="Liu et al. 2021, on a random subset",
)
def jtt_random(inputs: Inputs, pool: Pool) -> Picks:
    """The random subset, with the weight of jtt on what the proxy run got wrong."""
    rows = get_strategy("random").function(inputs, pool).rows[: pool.m]
    everything, weights = get_strategy("jtt").function(inputs, pool), np.zeros(inputs.n)
    weights[everything.rows] = everything.weights
    return Picks(rows, weights[rows] / weights[rows].mean())
