"""Strategies that look at nothing but the seed, the labels and the genres."""

import numpy as np

from utils.selection.selection import random_ranking
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.ordering import quotas, ranks_within
from utils.selection.strategies.registry import Picks, Pool, strategy


@strategy("random", source="the baseline to beat", fidelity="equal to uniform draws without replacement")
def random(inputs: Inputs, pool: Pool) -> Picks:
    """uniform without replacement, nested over budgets."""
    return Picks(_in_random_order(inputs, pool))


@strategy(
    "stratified",
    needs=("labels",),
    source="proportional stratified sampling",
    fidelity="equal to proportional shares, rounded by largest remainder",
)
def stratified(inputs: Inputs, pool: Pool) -> Picks:
    """random within each gold label (and genre, where known), each with its share of the budget."""
    strata = inputs.classes
    if inputs.genres is not None:
        genres = np.unique(inputs.genres, return_inverse=True)[1]
        strata = strata * (genres.max() + 1) + genres
    rows = _in_random_order(inputs, pool)
    own = np.unique(strata[rows], return_inverse=True)[1]
    within = ranks_within(own) < quotas(np.bincount(own), pool.m)[own]
    return Picks(np.concatenate([rows[within], rows[~within]]))


def _in_random_order(inputs: Inputs, pool: Pool) -> np.ndarray:
    """The pool's rows in the order that the seed gives the full split: the same order for every pool."""
    order = random_ranking(inputs.n, pool.seed)
    return order if len(pool.rows) == inputs.n else order[np.isin(order, pool.rows)]
