"""The registry of strategies, and `select`: inputs checked, budget exact, classes balanced, the result a Selection."""

import inspect
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from utils.errors import InputError
from utils.selection.selection import Selection
from utils.selection.strategies.inputs import Inputs

logger = logging.getLogger(__name__)

STRATEGIES: dict[str, "Strategy"] = {}

BLAS_FLOPS = 4e10  # what a prediction of seconds counts on: float32 matrix products on two ordinary cores
WORTH_A_WORD = 10.0  # seconds


@dataclass(frozen=True)
class Pool:
    """What one call of a strategy chooses from: `m` of `rows` int64 (r,) (rows of the full split, ascending).

    start: int64 (s,), rows that are chosen already and not among `rows`; seed: --selection_seed; rng: the call's own
    generator, drawn from that seed.
    """

    rows: np.ndarray
    m: int
    seed: int
    rng: np.random.Generator
    start: np.ndarray

    def shuffled(self) -> np.ndarray:
        """The rows in a random order that does not depend on m."""
        return self.rows[self.rng.permutation(len(self.rows))]

    def by_score(self, scores) -> np.ndarray:
        """The rows by scores (n,) of the full split, highest first, ties in random order, NaN last."""
        rows = self.shuffled()
        return rows[np.argsort(-scores[rows], kind="stable")]


@dataclass(frozen=True)
class Picks:
    """What a strategy returns: rows int64, in order, at least m of them (those past m are not taken).

    weights: float (same length) or None for ones; scores: (n,), higher = kept first; ordered: training should visit
    them in this order; natural: how many of `rows` the method itself would keep when no budget is given; notes: facts
    for the provenance.
    """

    rows: np.ndarray
    weights: np.ndarray | None = None
    scores: np.ndarray | None = None
    ordered: bool = False
    natural: int | None = None
    notes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a costly strategy will take: operations, in those of matrix products, and bytes held beside the inputs."""

    flops: float
    bytes: float
    variant: str


@dataclass(frozen=True)
class Strategy:
    """One way of choosing. `needs` are keys of NEEDS; `cost(n, d, k, m)` predicts, where it is worth a word."""

    name: str
    function: Callable[..., Picks]
    needs: tuple[str, ...]
    description: str
    source: str
    weighted: bool = False
    cost: Callable[[int, int, int, int], Cost] | None = None

    @property
    def parameters(self) -> dict:
        """Name -> default of what the function takes beside inputs and pool."""
        return {p.name: p.default for p in list(inspect.signature(self.function).parameters.values())[2:]}


def strategy(name: str, *, needs: tuple[str, ...] = (), source: str, weighted: bool = False, cost=None):
    """Register the decorated function under `name`; the first line of its docstring is the description.

    weighted: it returns weights of its own. The function takes (inputs, pool, *, parameters with defaults).
    """

    def register(function):
        description = function.__doc__.partition("\n")[0].rstrip(".")
        STRATEGIES[name] = Strategy(name, function, needs, description, source, weighted, cost)
        return function

    return register


# Each need: is it there, and how does one get it.
NEEDS = {
    "labels": (lambda i: i.classes is not None, "gold labels: a --data_dir and --split with labels of classes"),
    "pairs": (lambda i: len(i.texts) == 2, "a premise and a hypothesis: a --task_name of sentence pairs"),
    "entailment": (lambda i: "entailment" in i.class_names, "a class called entailment: --task_name mnli, rte or wnli"),
    "embeddings": (lambda i: i.embeddings is not None, "embeddings: --embedding_path FILE, made by get_embeddings.py"),
    "pooler": (
        lambda i: i.embeddings is not None and i.pooling == "pooler",
        "the classifier's input: --embedding_path FILE, made by get_embeddings.py --pooling pooler",
    ),
    "clusters": (lambda i: i.clusters is not None, "clusters: --cluster_path FILE, made by cluster_embeddings.py"),
    "dynamics": (
        lambda i: i.dynamics is not None,
        "training dynamics: --dynamics_path FILE, made by run_glue.py --record_dynamics",
    ),
    "two snapshots": (
        lambda i: i.dynamics is not None and i.dynamics.num_snapshots >= 2,
        "training dynamics of at least two snapshots: --dynamics_path FILE, made by run_glue.py --record_dynamics with "
        "more epochs or --dynamics_per_epoch above 1",
    ),
    "logits": (lambda i: i.logits is not None, "logits: --logits_path FILE, made by get_embeddings.py --logits"),
    "difficulty": (
        lambda i: i.dynamics is not None or i.logits is not None,
        "a measure of difficulty: --dynamics_path FILE, made by run_glue.py --record_dynamics, or --logits_path FILE, "
        "made by get_embeddings.py --logits",
    ),
    "score": (
        lambda i: i.dynamics is not None or i.logits is not None or i.embeddings is not None,
        "something to score by: --dynamics_path FILE (run_glue.py --record_dynamics), --logits_path FILE "
        "(get_embeddings.py --logits) or --embedding_path FILE (get_embeddings.py)",
    ),
}


def get_strategy(name: str) -> Strategy:
    if name not in STRATEGIES:
        raise InputError(f"--strategy {name} is unknown; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def quotas(counts, m: int) -> np.ndarray:
    """int64 (g,): m split over groups in proportion to their sizes `counts` (g,), by largest remainder.

    Never more than a group holds. Two budgets nest where they differ by at least one example of the smallest group
    (sum(counts) / min(counts)); closer together the method may take one back (the Alabama paradox).
    """
    counts = np.asarray(counts, dtype=np.int64)
    whole, remainder = np.divmod(counts * m, counts.sum())
    missing = m - whole.sum()
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return whole


def interleave(groups, ranks, *, share=None, priority=None) -> np.ndarray:
    """int64 (r,): positions, ordered so that every prefix holds its share of each group (Webster's method).

    groups: int (r,), group number of each position; ranks: (r,), its place in its group from 0; share: (g,), by default
    equal for all, which is a round-robin; priority: (g,), lower = first within a round. Prefixes nest by construction.
    """
    rounds = ranks if share is None else (ranks + 0.5) / np.maximum(share, 1e-300)[groups]
    return np.lexsort((groups if priority is None else priority[groups], rounds))


def ranks_within(groups) -> np.ndarray:
    """int64 (r,): how many earlier positions share the group of each position."""
    order = np.argsort(groups, kind="stable")
    ordered = np.asarray(groups)[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return ranks


def select(
    name: str,
    inputs: Inputs,
    m: int | None,
    seed: int,
    *,
    class_balanced: bool = False,
    start_from: Selection | None = None,
    **params,
) -> Selection:
    """Choose m of the examples by the named strategy.

    m: exact size, or None where the method has a size of its own (forgettable, centroids, semdedup, bias_reweight);
    class_balanced: the budget is split over gold labels in proportion (largest remainder) and each label chosen from
    alone; start_from: these rows come first and count towards m, and k-center, facility location and herding choose
    around them; params: the strategy's own, None for its default. Deterministic in (inputs, seed). Raises InputError
    for a missing input, an unknown parameter, an impossible budget.
    """
    chosen = get_strategy(name)
    for need in chosen.needs:
        present, way_out = NEEDS[need]
        if not present(inputs):
            raise InputError(f"--strategy {name} needs {way_out}")
    params = {key: value for key, value in params.items() if value is not None}
    if unknown := params.keys() - chosen.parameters.keys():
        raise InputError(f"--strategy {name} does not read {', '.join(f'--{key}' for key in sorted(unknown))}")
    start = _start_rows(chosen, inputs, start_from)
    free = np.setdiff1d(np.arange(inputs.n), start, assume_unique=True)
    if m is not None and not len(start) <= m <= inputs.n:
        raise InputError(f"a budget of {m} of {inputs.n} examples, {len(start)} of them given by --start_from")
    left = None if m is None else m - len(start)

    pools = [free]
    if class_balanced:
        pools = _by_class(inputs, free)
    sizes = [None] if left is None else quotas([len(rows) for rows in pools], left)
    if left is None and class_balanced:
        raise InputError("--class_balanced needs a budget: give --data_pct or --num_examples")
    if class_balanced and chosen.weighted and min(sizes) == 0:
        raise InputError(
            f"a budget of {m} leaves a label without examples: its weights cannot be right with --class_balanced"
        )
    _announce(chosen, inputs, left)
    picks = []
    for part, (rows, size) in enumerate(zip(pools, sizes, strict=True)):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), part])
        pool = Pool(rows, len(rows) if size is None else int(size), seed, rng, start)
        if pool.m == 0:
            continue
        found = chosen.function(inputs, pool, **params)
        if size is None and not found.natural:
            raise InputError(f"--strategy {name} has no size of its own here: give --data_pct or --num_examples")
        picks.append((found, found.natural if size is None else pool.m, len(rows)))
    return _assemble(name, inputs, start, picks, seed, class_balanced, params)


def _start_rows(chosen: Strategy, inputs: Inputs, start_from: Selection | None) -> np.ndarray:
    if start_from is None:
        return np.zeros(0, dtype=np.int64)
    if chosen.weighted:
        raise InputError(f"--strategy {chosen.name} weights what it draws; it cannot be combined with --start_from")
    if start_from.n_total != inputs.n or start_from.fingerprint != inputs.fingerprint:
        raise InputError("--start_from was made for other data; select again from this --data_dir")
    return start_from.indices[np.sort(np.unique(start_from.indices, return_index=True)[1])]


def _by_class(inputs: Inputs, rows) -> list[np.ndarray]:
    if inputs.classes is None:
        raise InputError("--class_balanced needs gold labels of classes")
    return [rows[inputs.classes[rows] == label] for label in np.unique(inputs.classes[rows])]


def _announce(chosen: Strategy, inputs: Inputs, m: int | None) -> None:
    if chosen.cost is None:
        return
    k = 1 if inputs.clusters is None else inputs.clusters.k
    cost = chosen.cost(inputs.n, inputs.embeddings.shape[1], k, inputs.n if m is None else m)
    seconds = cost.flops / BLAS_FLOPS
    if seconds >= WORTH_A_WORD:
        logger.info(
            "%s (%s): about %.1f GB beside the embeddings and %.1f minutes on two cores",
            chosen.name, cost.variant, cost.bytes / 1e9, seconds / 60,
        )  # fmt: skip


def _assemble(name, inputs, start, picks, seed, class_balanced, params) -> Selection:
    rows = [start] + [found.rows[:size] for found, size, _ in picks]
    weights = [np.ones(len(start))]
    total = sum(size for _, size, _ in picks)
    population = sum(count for _, _, count in picks)
    for found, size, count in picks:
        own = np.ones(size) if found.weights is None else np.asarray(found.weights[:size], dtype=np.float64)
        # Within a label the mean is over its own examples: give the label its true share in the whole.
        correction = (count / population) / (size / total) if found.weights is not None else 1.0
        weights.append(own * correction)
    notes, scores = {}, None
    for found, _, _ in picks:
        for key, value in found.notes.items():
            notes[key] = notes.get(key, 0) + value if isinstance(value, int) else value
        if found.scores is not None:
            # Each call fills in its own rows at least; scores of the full split are equal in all calls.
            scores = found.scores if scores is None else np.where(np.isnan(scores), found.scores, scores)
    defaults = get_strategy(name).parameters
    provenance = {
        "method": name,
        "m": total + len(start),
        "selection_seed": seed,
        "class_balanced": class_balanced,
        "parameters": {**defaults, **params},
        "started_from": len(start),
        **notes,
        **inputs.facts,
    }
    return Selection(
        np.concatenate(rows),
        np.concatenate(weights),
        inputs.n,
        inputs.fingerprint,
        ordered=len(picks) == 1 and not len(start) and picks[0][0].ordered,
        scores=scores,
        provenance=provenance,
    )
