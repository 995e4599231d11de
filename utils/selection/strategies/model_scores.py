"""Strategies on a model's view of each example: training dynamics, or one checkpoint's logits."""

import logging

import numpy as np

from utils.data.logits import error_norm, grad_norm, softmax
from utils.errors import InputError
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.ordering import interleave, ranks_within
from utils.selection.strategies.registry import Picks, Pool, strategy

logger = logging.getLogger(__name__)

SWAYAMDIPTA = "Swayamdipta et al. 2020, arXiv 2009.10795"
SETTLES = "Settles 2009; Coleman et al. 2020, arXiv 1906.11829"
PAUL = "Paul et al. 2021, arXiv 2107.07075"
CCS_BINS = 50  # as published

# Measures of difficulty, higher = harder: from training dynamics.
DIFFICULTY = {
    "el2n": lambda d: d.el2n(),
    "loss": lambda d: d.loss(),
    "aum": lambda d: -d.aum(),
    "confidence": lambda d: -d.confidence(),
    "variability": lambda d: d.variability(),
    "forgetting": lambda d: d.forgetting_counts(),
}


def difficulty(inputs: Inputs, score: str = "el2n") -> np.ndarray:
    """float32 (n,), finite, higher = harder; an example without dynamics counts as average.

    From training dynamics, or, for el2n alone, from one checkpoint's logits. Raises InputError for an unknown score.
    """
    if inputs.dynamics is None:
        if score != "el2n":
            raise InputError(f"--score {score} needs --dynamics_path; from --logits_path there is el2n only")
        return _error_norm(inputs)
    if score not in DIFFICULTY:
        raise InputError(f"--score {score} is unknown; there are {', '.join(DIFFICULTY)}")
    scores = DIFFICULTY[score](inputs.dynamics)
    return np.where(np.isnan(scores), np.nanmean(scores), scores)


def _error_norm(inputs: Inputs) -> np.ndarray:
    if inputs.classes is None:
        raise InputError("scores from --logits_path need gold labels of classes")
    return error_norm(inputs.logits, inputs.classes)


def _ranked(pool: Pool, scores, *, drop_hardest: float = 0.0, **facts) -> Picks:
    """Highest score first; the `drop_hardest` share at the very top goes last."""
    if not 0 <= drop_hardest < 1:
        raise InputError(f"--drop_hardest {drop_hardest:g} is outside [0, 1); it is a fraction: 0.05 means 5 %")
    rows = pool.by_score(scores)
    dropped = round(drop_hardest * len(rows))
    return Picks(np.concatenate([rows[dropped:], rows[:dropped][::-1]]), scores=scores, **facts)


@strategy("ambiguous", needs=("two snapshots",), source=SWAYAMDIPTA)
def ambiguous(inputs: Inputs, pool: Pool) -> Picks:
    """highest variability of the gold probability first."""
    return _ranked(pool, inputs.dynamics.variability())


@strategy("easy", needs=("dynamics",), source=SWAYAMDIPTA)
def easy(inputs: Inputs, pool: Pool) -> Picks:
    """highest mean gold probability first."""
    return _ranked(pool, inputs.dynamics.confidence())


@strategy("hard", needs=("dynamics",), source=f"{SWAYAMDIPTA}: holds most of the label noise")
def hard(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0) -> Picks:
    """lowest mean gold probability first.

    drop_hardest: share at the very top that goes last; 0.05 means 5 %
    """
    return _ranked(pool, -inputs.dynamics.confidence(), drop_hardest=drop_hardest)


@strategy("forgetting", needs=("two snapshots",), source="Toneva et al. 2019, arXiv 1812.05159")
def forgetting(inputs: Inputs, pool: Pool) -> Picks:
    """most often forgotten first; never learnt counts as most."""
    return _ranked(pool, inputs.dynamics.forgetting_counts())


@strategy(
    "forgettable", needs=("two snapshots",), source="Yaghoobzadeh et al. 2021, arXiv 1911.03861", second_pass=True
)
def forgettable(inputs: Inputs, pool: Pool) -> Picks:
    """forgotten at least once or never learnt, at random (all of them without a budget); then the rest at random."""
    scores = np.where(np.isnan(counts := inputs.dynamics.forgetting_counts()), np.nan, np.float32(1) * (counts > 0))
    count = int(np.nansum(scores[pool.rows]))
    if count == 0:
        logger.warning("forgettable: no example was ever forgotten; take more snapshots with --dynamics_per_epoch")
    return _ranked(pool, scores, natural=count, notes={"forgettable": count})


@strategy("el2n", needs=("difficulty",), source=f"{PAUL}; Fayyaz et al. 2022, arXiv 2211.05610")
def el2n(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0) -> Picks:
    """largest norm of p - y first (mean over snapshots, or of one checkpoint)."""
    scores = inputs.dynamics.el2n() if inputs.dynamics is not None else _error_norm(inputs)
    return _ranked(pool, scores, drop_hardest=drop_hardest)


@strategy("grand", needs=("labels", "logits", "pooler"), source=f"{PAUL}; Kirsch 2023, arXiv 2303.14753")
def grand(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0) -> Picks:
    """largest gradient norm of the classifier layer first."""
    return _ranked(pool, grad_norm(inputs.logits, inputs.classes, inputs.embeddings), drop_hardest=drop_hardest)


@strategy("aum", needs=("dynamics",), source="Pleiss et al. 2020, arXiv 2001.10528")
def aum(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0) -> Picks:
    """smallest area under the margin first."""
    return _ranked(pool, -inputs.dynamics.aum(), drop_hardest=drop_hardest)


@strategy("entropy", needs=("logits",), source=SETTLES)
def entropy(inputs: Inputs, pool: Pool) -> Picks:
    """highest entropy of one checkpoint's prediction first."""
    p = softmax(inputs.logits.astype(np.float32))
    return _ranked(pool, -np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0).sum(1))


@strategy("margin", needs=("logits",), source=SETTLES)
def margin(inputs: Inputs, pool: Pool) -> Picks:
    """smallest gap between the two highest probabilities first."""
    top = np.sort(softmax(inputs.logits.astype(np.float32)), axis=1)
    return _ranked(pool, top[:, -2] - top[:, -1])


@strategy("least_confidence", needs=("logits",), source=SETTLES)
def least_confidence(inputs: Inputs, pool: Pool) -> Picks:
    """lowest probability of the predicted class first."""
    return _ranked(pool, -softmax(inputs.logits.astype(np.float32)).max(1))


# ------------------------------------------------------------------------------------------------- coverage of the range
@strategy("ccs", needs=("difficulty",), source="Zheng et al. 2023, arXiv 2210.15809")
def ccs(inputs: Inputs, pool: Pool, *, ccs_beta: float = 0.1, score: str = "el2n") -> Picks:
    """drop the hardest share, cut the range of difficulty into equal bins and fill all bins equally.

    ccs_beta: share of the hardest that is dropped; 0.1 means 10 %
    score: measure of difficulty: el2n, loss, aum, confidence, variability or forgetting; for importance and poisson
        also embedding (distance to the mean)
    """
    scores = difficulty(inputs, score)
    hardest_first = pool.by_score(scores)
    kept, dropped = _without_hardest(hardest_first, ccs_beta)
    order = kept[_even_over_bins(scores[kept], pool.rng)]
    return Picks(np.concatenate([order, dropped]), scores=scores)


@strategy("cluster_ccs", needs=("difficulty", "clusters"), source="CCS inside each cluster (a combination)")
def cluster_ccs(
    inputs: Inputs, pool: Pool, *, ccs_beta: float = 0.1, score: str = "el2n", size_power: float = 0.5
) -> Picks:
    """CCS inside each cluster; a cluster's share is size^a x mean difficulty^(1 - a).

    size_power: a in a cluster's share, size^a x mean score^(1-a)
    """
    if not 0 <= size_power <= 1:
        raise InputError(f"--size_power {size_power:g} is outside [0, 1]")
    scores = difficulty(inputs, score)
    kept, dropped = _without_hardest(pool.by_score(scores), ccs_beta)
    own, k = inputs.clusters.labels[kept], inputs.clusters.k
    positive = scores[kept] - min(0.0, float(scores[kept].min()))  # shares need scores of at least 0
    sizes = np.bincount(own, minlength=k)
    means = np.bincount(own, positive, minlength=k) / np.maximum(sizes, 1)
    ranks = np.empty(len(kept), dtype=np.int64)
    by_cluster = np.argsort(own, kind="stable")
    for members in np.split(by_cluster, np.cumsum(sizes)[:-1]):
        ranks[members[_even_over_bins(scores[kept[members]], pool.rng)]] = np.arange(len(members))
    share = sizes**size_power * means ** (1 - size_power)
    order = kept[interleave(own, ranks, share=share, priority=pool.rng.permutation(k))]
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
    return shuffled[interleave(bins[shuffled], ranks_within(bins[shuffled]), priority=largest_first)]
