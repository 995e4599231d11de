"""`select` runs a strategy: it checks the inputs, meets the budget exactly, balances classes, and returns a Selection."""

import logging
import zlib

import numpy as np

from utils.errors import InputError
from utils.selection.selection import Selection
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.needs import NEEDS
from utils.selection.strategies.ordering import quotas
from utils.selection.strategies.registry import Pool, Strategy, get_strategy

logger = logging.getLogger(__name__)

BLAS_FLOPS = 4e10  # float32 operations a second in matrix products, on two ordinary cores: for predictions of time
SECONDS_WORTH_SAYING = 10.0


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
    alone; start_from: these rows, without weights or repeats, come first. They count towards m and towards their label's
    part of it, and k-center, facility location and herding choose around them; params: the strategy's own, None for its
    default. Deterministic in (inputs, seed). Raises InputError for a missing input, an unknown parameter, an impossible
    budget.
    """
    chosen = get_strategy(name)
    for need in chosen.needs:
        if not NEEDS[need].present(inputs):
            raise InputError(f"--strategy {name} needs {NEEDS[need].way_out}")
    _check_one_checkpoint(chosen, inputs)
    params = {key: value for key, value in params.items() if value is not None}
    if unknown := params.keys() - chosen.parameters.keys():
        raise InputError(f"--strategy {name} does not read {', '.join(f'--{key}' for key in sorted(unknown))}")
    start = _start_rows(chosen, inputs, start_from)
    free = np.setdiff1d(np.arange(inputs.n), start, assume_unique=True)
    if m is not None and not len(start) <= m <= inputs.n:
        raise InputError(f"a budget of {m}: choose at least {len(start)} (--start_from) and at most {inputs.n}")
    left = None if m is None else m - len(start)

    if left is None and class_balanced:
        raise InputError("--class_balanced needs a budget: give --data_pct or --num_examples")
    pools, sizes = [free], [left]
    if class_balanced:
        pools, given = _by_class(inputs, free), [len(rows) for rows in _by_class(inputs, start)]
        sizes = _sizes_around(np.array([len(rows) for rows in pools]), np.array(given), m)
    if class_balanced and chosen.weighted and min(sizes) == 0:
        raise InputError(
            f"--class_balanced: a budget of {m} leaves a label without examples, so weights cannot be right; give a larger one"
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


def _check_one_checkpoint(chosen: Strategy, inputs: Inputs) -> None:
    """Raise InputError where inputs that the strategy reads together are known to come from different checkpoints."""
    embeddings, logits = inputs.facts.get("embeddings", {}), inputs.facts.get("logits", {})
    weights = [known["weights"] for known in (embeddings, logits) if "weights" in known]
    if {"logits", "pooler"} <= set(chosen.needs) and len(set(weights)) == 2:
        raise InputError(
            f"--strategy {chosen.name}: {logits['path']} and {embeddings['path']} are of different checkpoints; make both "
            "in one run of get_embeddings.py --pooling pooler --logits"
        )
    reads_both = {"embeddings", "clusters"} <= set(chosen.needs) and "digest" in embeddings
    if reads_both and inputs.clusters.about.get("embeddings", {}).get("digest") != embeddings["digest"]:
        raise InputError(
            f"--strategy {chosen.name}: the clusters are of other embeddings than {embeddings['path']}; run "
            "cluster_embeddings.py on this file"
        )


def _start_rows(chosen: Strategy, inputs: Inputs, start_from: Selection | None) -> np.ndarray:
    if start_from is None:
        return np.zeros(0, dtype=np.int64)
    if chosen.weighted:
        raise InputError(f"--strategy {chosen.name} weights what it draws; it cannot be combined with --start_from")
    if start_from.n_total != inputs.n or start_from.fingerprint != inputs.fingerprint:
        raise InputError("--start_from was made for other data; select again from this --data_dir")
    if (start_from.weights != 1).any() or len(np.unique(start_from.indices)) < len(start_from):
        raise InputError(
            "--start_from: its examples have weights or repeats, which would be lost; give a selection that has none"
        )
    return start_from.indices


def _by_class(inputs: Inputs, rows) -> list[np.ndarray]:
    """The rows of each gold label that the data has."""
    if inputs.classes is None:
        raise InputError("--class_balanced needs gold labels of classes")
    return [rows[inputs.classes[rows] == label] for label in np.unique(inputs.classes)]


def _sizes_around(free, given, m: int) -> np.ndarray:
    """int64 (g,): how many of the `free` (g,) rows of each label to take beside the `given` (g,), so that m in all are split in
    proportion. A label of which more is given than its share gets none; the others split what is left."""
    full = np.zeros(len(free), dtype=bool)
    while True:
        sizes = given.copy()
        sizes[~full] = quotas((free + given)[~full], m - given[full].sum())
        over = sizes < given
        if not over.any():
            return sizes - given
        full |= over


def _announce(chosen: Strategy, inputs: Inputs, m: int | None) -> None:
    if chosen.cost is None or m == 0:
        return
    k = 1 if inputs.clusters is None else inputs.clusters.k
    cost = chosen.cost(inputs.n, inputs.embeddings.shape[1], k, inputs.n if m is None else m)
    seconds = cost.flops / BLAS_FLOPS
    if seconds >= SECONDS_WORTH_SAYING:
        logger.info(
            "%s (%s): about %.1f GB beside the embeddings and %.1f minutes on two cores",
            chosen.name, cost.variant, cost.bytes / 1e9, seconds / 60,
        )  # fmt: skip


def _assemble(name, inputs, start, picks, seed, class_balanced, params) -> Selection:
    """One Selection of all calls. picks: of each call its Picks, how many of them are taken, and the size of its pool."""
    rows = [start] + [found.rows[:size] for found, size, _ in picks]
    weights = [np.ones(len(start))]
    total = sum(size for _, size, _ in picks)
    population = sum(count for _, _, count in picks)
    for found, size, count in picks:
        own = np.ones(size) if found.weights is None else np.asarray(found.weights[:size], dtype=np.float64)
        # Weights are unbiased for the label that was chosen from: scale them so that it counts by its share of the data.
        keeps_share = found.weights is not None and not found.relative
        weights.append(own * ((count / population) / (size / total) if keeps_share else 1.0))
    weights = np.concatenate(weights)
    if any(found.relative for found, _, _ in picks):
        weights = weights / weights.mean()
    notes, counts, scores = {}, {}, None
    for found, _, _ in picks:
        for key, value in found.notes.items():
            notes.setdefault(key, []).append(value)
        for key, count in found.counts.items():
            counts[key] = counts.get(key, 0) + count
        if found.scores is not None:
            # Each call fills in its own rows at least; scores of the full split are equal in all calls.
            scores = found.scores if scores is None else np.where(np.isnan(scores), found.scores, scores)
    chosen = get_strategy(name)
    defaults = {parameter.name: parameter.default for parameter in chosen.parameters.values()}
    provenance = {
        "method": name,
        "version": chosen.version,
        "m": total + len(start),
        "selection_seed": seed,
        "class_balanced": class_balanced,
        "parameters": {**defaults, **params},
        "started_from": len(start),
        **{key: values if any(value != values[0] for value in values) else values[0] for key, values in notes.items()},
        **counts,
        **inputs.facts,
    }
    return Selection(
        np.concatenate(rows),
        weights,
        inputs.n,
        inputs.fingerprint,
        ordered=len(picks) == 1 and not len(start) and picks[0][0].ordered,
        scores=scores,
        provenance=provenance,
    )
