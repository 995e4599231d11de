"""Strategies that cover the whole range of difficulty instead of its upper end."""

import numpy as np

from utils.errors import InputError
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import difficulty
from utils.selection.strategies.ordering import interleave, stable_order
from utils.selection.strategies.registry import Picks, Pool, strategy

CCS_BINS = 50  # as published
# Share of the data that is kept -> share of the hardest that is dropped: Zheng et al. 2023, appendix B, CIFAR-10.
CCS_BETA = {0.7: 0.0, 0.5: 0.0, 0.3: 0.1, 0.2: 0.1, 0.1: 0.3}


@strategy(
    "ccs",
    needs=("difficulty",),
    source="Zheng et al. 2023, arXiv 2210.15809",
    version=2,
    fidelity=(
        "equal to the published counts of each bin, and to the published hardest share of each budget (that of CIFAR-10, at "
        "the nearest published budget); differs in the margin of aum, which is one of logits as in its source, because the "
        "authors' code takes probabilities there: --score probability_margin is equal to that"
    ),
)
def ccs(
    inputs: Inputs,
    pool: Pool,
    *,
    ccs_beta: float | None = None,
    score: str | None = None,
    score_epoch: float | None = None,
) -> Picks:
    """drop the hardest share, cut the range of difficulty into equal bins and fill all bins equally.

    ccs_beta: share of the hardest that is dropped; 0.1 means 10 %. ccs takes the published share of its budget where
        none is given
    score: measure of difficulty: el2n, loss, aum, probability_margin, confidence, variability or forgetting; for
        importance and poisson also embedding (distance to the mean). ccs takes aum where none is given, and el2n where only logits are
    """
    if score is None:
        score = "el2n" if inputs.dynamics is None else "aum"
    if ccs_beta is None:
        ccs_beta = published_beta(pool.m / len(pool.rows))
    scores = difficulty(inputs, score, score_epoch)
    hardest_first = pool.by_score(scores)
    kept, dropped = _without_hardest(hardest_first, ccs_beta)
    order = kept[_even_over_bins(scores[kept], pool.rng)]
    used = {"ccs_beta": ccs_beta, "ccs_score": score if inputs.scores is None else "--score_path"}
    return Picks(np.concatenate([order, dropped]), scores=scores, notes=used)


def published_beta(share: float) -> float:
    """The share that is dropped at the published budget nearest to this share of the data; of two, at the smaller one."""
    return CCS_BETA[min(sorted(CCS_BETA), key=lambda known: round(abs(known - share), 9))]


@strategy(
    "cluster_ccs",
    needs=("difficulty", "clusters"),
    source="CCS with bins inside each cluster (a combination)",
    fidelity="a combination of our own; the bins inside a cluster are those of ccs, but the hardest share is dropped over all "
    "clusters first",
)
def cluster_ccs(
    inputs: Inputs,
    pool: Pool,
    *,
    ccs_beta: float = 0.1,
    score: str = "el2n",
    score_epoch: float | None = None,
    size_power: float = 0.5,
) -> Picks:
    """drop the hardest share of all, then fill bins of difficulty inside each cluster; a cluster's share is size^a x mean difficulty^(1 - a).

    size_power: a in a cluster's share, size^a x mean score^(1-a)
    """
    if not 0 <= size_power <= 1:
        raise InputError(f"--size_power {size_power:g} is outside [0, 1]")
    scores = difficulty(inputs, score, score_epoch)
    kept, dropped = _without_hardest(pool.by_score(scores), ccs_beta)
    own, k = inputs.clusters.labels[kept], inputs.clusters.k
    positive = scores[kept] - float(scores[kept].min(initial=0.0))  # shares need scores of at least 0
    sizes = np.bincount(own, minlength=k)
    means = np.bincount(own, positive, minlength=k) / np.maximum(sizes, 1)
    members = np.split(stable_order(own), np.cumsum(sizes)[:-1])
    positions = np.concatenate([of_one[_even_over_bins(scores[kept[of_one]], pool.rng)] for of_one in members])
    share = sizes**size_power * means ** (1 - size_power)
    order = kept[positions[interleave(own[positions], share=share, priority=pool.rng.permutation(k))]]
    return Picks(np.concatenate([order, dropped]), scores=scores)


def _without_hardest(hardest_first, beta: float):
    """The rows that stay, and the hardest beta share, easiest of them first."""
    if not 0 <= beta < 1:
        raise InputError(f"--ccs_beta {beta:g} is outside [0, 1); it is a fraction: 0.1 means 10 %")
    dropped = round(beta * len(hardest_first))
    return hardest_first[dropped:], hardest_first[:dropped][::-1]


def _even_over_bins(scores, rng) -> np.ndarray:
    """Positions ordered so that every prefix fills CCS_BINS equal-width bins of the score range as evenly as it can.

    Zheng et al. give every bin, smallest first, an equal part of what is left; taking bins in turn (the larger first,
    which gets the remainder) takes the same examples and needs no budget.
    """
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    low, high = float(scores.min()), float(scores.max())
    width = (high - low) / CCS_BINS or 1.0
    bins = np.minimum((scores.astype(np.float64) - low) // width, CCS_BINS - 1).astype(np.int64)
    shuffled = rng.permutation(len(scores))
    sizes = np.bincount(bins, minlength=CCS_BINS)
    largest_first = np.argsort(np.argsort(-sizes, kind="stable"))
    return shuffled[interleave(bins[shuffled], priority=largest_first)]
