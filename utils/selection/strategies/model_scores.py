"""Strategies on a model's view of each example: training dynamics, or one checkpoint's logits."""

import logging
from collections.abc import Callable

import numpy as np

from utils.data.logits import cross_entropy, error_norm, grad_norm, softmax
from utils.errors import InputError
from utils.selection.dynamics import Dynamics, mean_where_seen
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Picks, Pool, strategy

logger = logging.getLogger(__name__)

SWAYAMDIPTA = "Swayamdipta et al. 2020, arXiv 2009.10795"
SETTLES = "Settles 2009; Coleman et al. 2020, arXiv 1906.11829"
PAUL = "Paul et al. 2021, arXiv 2107.07075"

# Measures of difficulty, higher = harder: from training dynamics, and from one checkpoint's logits.
DIFFICULTY = {
    "el2n": lambda d: d.el2n(),
    "loss": lambda d: d.loss(),
    "aum": lambda d: -d.aum(),
    "probability_margin": lambda d: -d.probability_margin(),
    "confidence": lambda d: -d.confidence(),
    "variability": lambda d: d.variability(),
    "forgetting": lambda d: d.forgetting_counts(),
}
OVER_SNAPSHOTS = ("variability", "forgetting")  # measures that need two snapshots or more
DIFFICULTY_OF_LOGITS = {"el2n": error_norm, "loss": cross_entropy}


def measure(inputs: Inputs, take: Callable[[Dynamics], np.ndarray], score_epoch: float | None = None) -> np.ndarray:
    """float32 (n,): take(run), averaged over the runs in which an example was seen; NaN where it was seen in none.

    score_epoch: look at the snapshots of this epoch alone. Raises InputError where a run has none.
    """
    runs = _runs(inputs, score_epoch)
    return take(runs[0]) if len(runs) == 1 else mean_where_seen(np.stack([take(run) for run in runs]))


def _runs(inputs: Inputs, score_epoch: float | None):
    return inputs.runs if score_epoch is None else [run.at_epoch(score_epoch) for run in inputs.runs]


def scores_of(inputs: Inputs, score: str = "el2n", score_epoch: float | None = None) -> np.ndarray:
    """float (n,), higher = harder, NaN without dynamics: the user's own scores where there are some; else the named
    measure of the training dynamics, or of one checkpoint's logits. Raises InputError for an unknown score."""
    if score_epoch is not None and (inputs.scores is not None or inputs.dynamics is None):
        raise InputError(
            "--score_epoch chooses among the snapshots of --dynamics_path, and the scores come from elsewhere"
        )
    if inputs.scores is not None:
        return inputs.scores
    if score not in DIFFICULTY:
        raise InputError(f"--score {score} is unknown; there are {', '.join(DIFFICULTY)}")
    if inputs.dynamics is not None:
        fewest = min(run.num_snapshots for run in _runs(inputs, score_epoch))
        if score in OVER_SNAPSHOTS and fewest < 2:
            raise InputError(
                f"--score {score} compares snapshots, but there is one only; give --dynamics_path with at least two "
                "snapshots, and no --score_epoch"
            )
        return measure(inputs, DIFFICULTY[score], score_epoch)
    if score not in DIFFICULTY_OF_LOGITS:
        known = " and ".join(DIFFICULTY_OF_LOGITS)
        raise InputError(f"--score {score} needs --dynamics_path; from --logits_path there are {known} only")
    if inputs.classes is None:
        raise InputError("scores from --logits_path need gold labels of classes")
    return DIFFICULTY_OF_LOGITS[score](inputs.logits, inputs.classes)


def difficulty(inputs: Inputs, score: str = "el2n", score_epoch: float | None = None) -> np.ndarray:
    """`scores_of`, finite: an example without dynamics counts as average."""
    scores = scores_of(inputs, score, score_epoch)
    return np.where(np.isnan(scores), np.nanmean(scores), scores)


def _ranked(pool: Pool, scores, *, drop_hardest: float = 0.0, **facts) -> Picks:
    """Highest score first. Of the rows with a score, the highest `drop_hardest` share goes last; rows without one follow."""
    if not 0 <= drop_hardest < 1:
        raise InputError(f"--drop_hardest {drop_hardest:g} is outside [0, 1); it is a fraction: 0.05 means 5 %")
    rows = pool.by_score(scores)
    known = int((~np.isnan(scores[rows])).sum())
    dropped = round(drop_hardest * known)
    order = np.concatenate([rows[dropped:known], rows[:dropped][::-1], rows[known:]])
    return Picks(order, scores=scores, **facts)


@strategy(
    "ambiguous",
    needs=("two snapshots",),
    source=SWAYAMDIPTA,
    fidelity=(
        "equal to the published variability (population standard deviation); --mix_easy takes a share of "
        "the easiest, as the paper does at small budgets"
    ),
)
def ambiguous(inputs: Inputs, pool: Pool, *, mix_easy: float = 0.0) -> Picks:
    """highest variability of the gold probability first.

    mix_easy: share of the budget that is taken from the examples of highest mean gold probability; 0.1 means 10 %
    """
    if not 0 <= mix_easy <= 1:
        raise InputError(f"--mix_easy {mix_easy:g} is outside [0, 1]; it is a fraction: 0.1 means 10 %")
    picks = _ranked(pool, measure(inputs, Dynamics.variability))
    if not mix_easy:
        return picks
    easiest = pool.by_score(measure(inputs, Dynamics.confidence))
    return Picks(_mixed(picks.rows, easiest, mix_easy), scores=picks.scores)


def _mixed(first, second, share: float) -> np.ndarray:
    """All rows, ordered so that of every prefix of m rows about share x m come from the front of `second`.

    first, second: the same rows in two orders. A row is taken once, from the order whose turn it is.
    """
    queues, taken, order = (iter(first.tolist()), iter(second.tolist())), set(), []
    for position in range(len(first)):
        turn = int(share * (position + 1) + 0.5) > int(share * position + 0.5)
        row = next(row for row in queues[turn] if row not in taken)
        taken.add(row)
        order.append(row)
    return np.array(order, dtype=np.int64)


@strategy("easy", needs=("dynamics",), source=SWAYAMDIPTA, fidelity="equal to the published confidence")
def easy(inputs: Inputs, pool: Pool, *, score_epoch: float | None = None) -> Picks:
    """highest mean gold probability first.

    score_epoch: look at the snapshots of this epoch alone (of each run); by default at all
    """
    return _ranked(pool, measure(inputs, Dynamics.confidence, score_epoch))


@strategy(
    "hard",
    needs=("dynamics",),
    source=f"{SWAYAMDIPTA}: holds most of the label noise",
    version=2,
    fidelity="equal to the published confidence, lowest first; --drop_hardest is ours",
)
def hard(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0, score_epoch: float | None = None) -> Picks:
    """lowest mean gold probability first.

    drop_hardest: hardest share of the examples, which goes last; 0.05 means the hardest 5 %
    """
    return _ranked(pool, -measure(inputs, Dynamics.confidence, score_epoch), drop_hardest=drop_hardest)


@strategy(
    "correctness",
    needs=("dynamics",),
    source=SWAYAMDIPTA,
    fidelity="equal to the published correctness, as a share of the snapshots",
)
def correctness(inputs: Inputs, pool: Pool) -> Picks:
    """least often predicted right first."""
    return _ranked(pool, -measure(inputs, Dynamics.correctness))


@strategy(
    "loss",
    needs=("difficulty",),
    source="ranking by mean loss, a common baseline",
    version=2,
    fidelity="equal to the mean cross-entropy of a naive loop",
)
def loss(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0, score_epoch: float | None = None) -> Picks:
    """highest cross-entropy first (mean over snapshots, or of one checkpoint)."""
    return _ranked(pool, scores_of(inputs, "loss", score_epoch), drop_hardest=drop_hardest)


@strategy(
    "forgetting",
    needs=("two snapshots",),
    source="Toneva et al. 2019, arXiv 1812.05159",
    fidelity=(
        "equal to the published count, with S (the number of snapshots) for an example that is never "
        "learnt, where the authors' code has infinity"
    ),
)
def forgetting(inputs: Inputs, pool: Pool) -> Picks:
    """most often forgotten first; never learnt counts as most."""
    return _ranked(pool, measure(inputs, Dynamics.forgetting_counts))


@strategy(
    "forgettable",
    needs=("two snapshots",),
    source="Yaghoobzadeh et al. 2021, arXiv 1911.03861",
    second_pass=True,
    fidelity="equal to the published set: forgotten at least once, or never learnt",
)
def forgettable(inputs: Inputs, pool: Pool) -> Picks:
    """forgotten at least once or never learnt, at random (all of them without a budget); then the rest at random."""
    counts = measure(inputs, Dynamics.forgetting_counts)
    scores = np.where(np.isnan(counts), np.nan, np.float32(1) * (counts > 0))
    count = int(np.nansum(scores[pool.rows]))
    if count == 0:
        logger.warning("forgettable: no example was ever forgotten; take more snapshots with --dynamics_per_epoch")
    return _ranked(pool, scores, natural=count, counts={"forgettable": count})


@strategy(
    "el2n",
    needs=("difficulty",),
    source=f"{PAUL}; Fayyaz et al. 2022, arXiv 2211.05610",
    version=2,
    fidelity=(
        "equal to the published norm; the mean over ten seeds of the paper is --dynamics_path with "
        "several files and --score_epoch"
    ),
)
def el2n(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0, score_epoch: float | None = None) -> Picks:
    """largest norm of p - y first (mean over snapshots, or of one checkpoint)."""
    return _ranked(pool, scores_of(inputs, "el2n", score_epoch), drop_hardest=drop_hardest)


@strategy(
    "grand",
    needs=("labels", "logits", "pooler"),
    source=f"{PAUL}; Kirsch 2023, arXiv 2303.14753",
    fidelity=("equal to the norm of the classifier layer's gradient; the paper takes the gradient of all parameters"),
)
def grand(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0) -> Picks:
    """largest gradient norm of the classifier layer first."""
    return _ranked(pool, grad_norm(inputs.logits, inputs.classes, inputs.embeddings), drop_hardest=drop_hardest)


@strategy(
    "aum",
    needs=("dynamics",),
    source="Pleiss et al. 2020, arXiv 2001.10528",
    version=2,
    fidelity="equal to the published margin of logits",
)
def aum(inputs: Inputs, pool: Pool, *, drop_hardest: float = 0.0, score_epoch: float | None = None) -> Picks:
    """smallest area under the margin first."""
    return _ranked(pool, -measure(inputs, Dynamics.aum, score_epoch), drop_hardest=drop_hardest)


@strategy("entropy", needs=("logits",), source=SETTLES, fidelity="equal to the definition")
def entropy(inputs: Inputs, pool: Pool) -> Picks:
    """highest entropy of one checkpoint's prediction first."""
    p = softmax(inputs.logits.astype(np.float32))
    return _ranked(pool, -np.where(p > 0, p * np.log(np.maximum(p, 1e-38)), 0).sum(1))


@strategy("margin", needs=("logits",), source=SETTLES, fidelity="equal to the definition")
def margin(inputs: Inputs, pool: Pool) -> Picks:
    """smallest gap between the two highest probabilities first."""
    top = np.sort(softmax(inputs.logits.astype(np.float32)), axis=1)
    return _ranked(pool, top[:, -2] - top[:, -1])


@strategy("least_confidence", needs=("logits",), source=SETTLES, fidelity="equal to the definition")
def least_confidence(inputs: Inputs, pool: Pool) -> Picks:
    """lowest probability of the predicted class first."""
    return _ranked(pool, -softmax(inputs.logits.astype(np.float32)).max(1))
