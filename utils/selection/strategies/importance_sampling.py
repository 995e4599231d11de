"""Importance sampling proper: random draws of known probability, with the weights that make them unbiased."""

import numpy as np

from utils.errors import InputError
from utils.selection.blocks import row_blocks
from utils.selection.selection import weights_with_replacement, weights_without_replacement
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import difficulty
from utils.selection.strategies.registry import Picks, Pool, strategy
from utils.selection.strategies.vectors import mean_of


@strategy(
    "lightweight", needs=("embeddings",), weighted=True, source="Bachem et al. 2018, arXiv 1702.08248",
    fidelity="equal to the published distribution and weights",
)  # fmt: skip
def lightweight(inputs: Inputs, pool: Pool) -> Picks:
    """draws with replacement, half uniform, half by squared distance to the mean; unbiased weights."""
    squared = squared_distances_to_mean(inputs.embeddings, pool.rows)
    return _with_replacement(inputs, pool, squared, mix=0.5)


@strategy(
    "importance", needs=("score",), weighted=True, source="Hansen & Hurwitz 1943",
    fidelity="equal to draws with replacement weighted by 1 / (n p)",
)  # fmt: skip
def importance(
    inputs: Inputs, pool: Pool, *, mix: float = 0.1, score: str | None = None, score_epoch: float | None = None
) -> Picks:
    """draws with replacement in proportion to a score, mixed with uniform; unbiased weights.

    mix: uniform share of the probabilities; it keeps every weight below 1 / mix
    """
    return _with_replacement(inputs, pool, sampling_scores(inputs, pool.rows, score, score_epoch), mix=mix)


@strategy(
    "poisson", needs=("score",), weighted=True, source="Horvitz & Thompson 1952; Madow 1949 (fixed size)",
    fidelity="equal in inclusion probabilities and weights; differs in the draws, which are systematic instead of "
    "independent, because then the size is exact",
)  # fmt: skip
def poisson(
    inputs: Inputs, pool: Pool, *, mix: float = 0.1, score: str | None = None, score_epoch: float | None = None
) -> Picks:
    """without replacement, inclusion in proportion to a score, mixed with uniform; unbiased weights, exact size; budgets do not nest."""
    scores = sampling_scores(inputs, pool.rows, score, score_epoch)
    pi = inclusion_probabilities(mixture(scores, mix), pool.m)
    chosen = systematic(pi, pool.rng)
    weights = weights_without_replacement(pi, len(pool.rows))
    return Picks(pool.rows[chosen], weights=weights[chosen], scores=_spread(inputs.n, pool.rows, scores))


def sampling_scores(inputs: Inputs, rows, score: str | None, score_epoch: float | None = None) -> np.ndarray:
    """float64 (r,), at least 0: the user's scores, or difficulty from dynamics or logits, else squared distance to the mean embedding.

    Raises InputError where the score asked for has nothing to go by.
    """
    if score == "embedding" or (score is None and not inputs.has_model_scores):
        if inputs.embeddings is None:
            raise InputError("--score embedding needs --embedding_path, made by get_embeddings.py")
        return squared_distances_to_mean(inputs.embeddings, rows)
    if not inputs.has_model_scores:
        raise InputError(f"--score {score} needs --dynamics_path, made by run_glue.py --record_dynamics")
    scores = difficulty(inputs, score or "el2n", score_epoch)[rows].astype(np.float64)
    return scores - min(0.0, scores.min())


def mixture(scores, mix: float) -> np.ndarray:
    """float64 (r,), summing to 1: p = (1 - mix) s / sum s + mix / r; uniform where all scores are 0."""
    if not 0 < mix <= 1:
        raise InputError(f"--mix {mix:g} is outside (0, 1]: the uniform share keeps every weight finite")
    total = scores.sum()
    by_score = scores / total if total > 0 else np.full(len(scores), 1 / len(scores))
    p = (1 - mix) * by_score + mix / len(scores)
    return p / p.sum()


def _with_replacement(inputs: Inputs, pool: Pool, scores, *, mix: float) -> Picks:
    p = mixture(scores, mix)
    # Inverse of the distribution function, one uniform number a draw: the first draws of a larger budget are the same.
    positions = np.searchsorted(np.cumsum(p), pool.rng.random(pool.m), side="right").clip(max=len(p) - 1)
    weights = weights_with_replacement(p, len(p))
    return Picks(
        pool.rows[positions],
        weights=weights[positions],
        scores=_spread(inputs.n, pool.rows, scores),
        counts={"distinct": len(np.unique(positions))},
    )


def inclusion_probabilities(p, m: int) -> np.ndarray:
    """float64 (r,): pi = min(1, c p) with c such that they sum to m, which is at most r."""
    pi = np.minimum(1.0, m * p)
    certain = np.zeros(len(p), dtype=bool)
    while (over := (pi >= 1) & ~certain).any():
        certain |= over
        rest = p[~certain].sum()
        pi = np.where(certain, 1.0, p * ((m - certain.sum()) / rest) if rest > 0 else 0.0)
    return pi


def systematic(pi, rng) -> np.ndarray:
    """int64 (m,): exactly m = sum(pi) positions, position i with probability exactly pi_i (Madow 1949).

    One random start, steps of 1 along the cumulated pi of a random order. Independent draws (Poisson sampling by the
    letter) have the same inclusion probabilities and hence the same weights, but a random sample size.
    """
    order = rng.permutation(len(pi))
    edges = np.cumsum(pi[order])
    edges *= round(edges[-1]) / edges[-1]  # the sum is a whole number but for rounding
    ticks = np.floor(edges + rng.random())
    ticks[-1] = round(edges[-1])
    return order[np.diff(ticks, prepend=0.0) > 0]


def squared_distances_to_mean(embeddings, rows) -> np.ndarray:
    """float64 (r,): squared Euclidean distance of each row to the mean of those rows."""
    mean = mean_of(embeddings, rows)
    squared = np.empty(len(rows))
    for block in row_blocks(len(rows), embeddings.shape[1]):
        squared[block] = np.square(embeddings[rows[block]] - mean).sum(1)
    return squared


def _spread(n: int, rows, scores) -> np.ndarray:
    """The scores of those rows in an array of the full split, NaN elsewhere."""
    full = np.full(n, np.nan, dtype=np.float32)
    full[rows] = scores
    return full
