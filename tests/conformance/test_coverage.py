"""k-center, herding, facility location, SemDeDup and D2 against plain implementations of what their sources say."""

from unittest.mock import patch

import numpy as np
import pytest

from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.neighbors import largest, nearest
from utils.selection.selection import random_ranking
from utils.selection.strategies import Inputs, coverage, select, semdedup

NAMES = ("contradiction", "entailment", "neutral")
SEEDS = (0, 1, 2)


def cloud(n, d, seed, *, kind="mixed") -> np.ndarray:
    """float32 (n, d): "gauss" without structure; "clustered" of unequal sizes and spreads; "mixed" with duplicates."""
    rng = np.random.default_rng(seed)
    if kind == "gauss":
        return (rng.normal(size=(n, d)) + 3).astype(np.float32)
    centers, sizes = rng.normal(size=(20, d)), rng.dirichlet(np.ones(20))
    own, spread = rng.choice(20, n, p=sizes), rng.uniform(0.1, 1.2, 20)
    points = centers[own] + rng.normal(size=(n, d)) * spread[own, None]
    if kind == "mixed":
        points[: n // 10] = points[n // 2 : n // 2 + n // 10]  # exact duplicates
    return (points + 3).astype(np.float32)


def inputs_of(points, seed=0, k=5) -> Inputs:
    rng = np.random.default_rng(seed)
    n = len(points)
    labels = rng.choice(3, n, p=[0.7, 0.28, 0.02])  # one tiny class
    own = rng.integers(k, size=n)
    centers = np.stack([points[own == i].mean(0) for i in range(k)])
    clusters = Clusters(own, centers, np.linalg.norm(points - centers[own], axis=1), "f", n)
    logits = rng.normal(size=(4, n, 3)).astype(np.float16)
    logits[:, ::7] = logits[:, :1]  # ties
    dynamics = Dynamics(logits, labels, NAMES, np.arange(4), "eval", "f")
    return Inputs(n, "f", labels, class_names=NAMES, embeddings=points, clusters=clusters, dynamics=dynamics)


def distances(points) -> np.ndarray:
    points = points.astype(np.float64)
    return np.sqrt(((points[:, None] - points) ** 2).sum(2))


# -------------------------------------------------------------------------------------------------------------- k-center
@pytest.mark.parametrize("kind", ["gauss", "mixed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_kcenter_takes_the_farthest_every_time(kind, seed, monkeypatch):
    monkeypatch.setattr(coverage, "REFRESHED", 32)  # many passes
    monkeypatch.setattr(coverage, "CANDIDATES", 16)
    monkeypatch.setattr(coverage, "CHUNK", 8)
    compared, squared_distances = [], coverage.squared_distances
    monkeypatch.setattr(
        coverage, "squared_distances", lambda a, b: compared.append(len(a) * len(b)) or squared_distances(a, b)
    )
    points = cloud(400, 6, seed, kind=kind)
    order = select("kcenter", inputs_of(points), 120, seed).indices
    assert sum(compared) < 0.6 * 400 * 120  # most pairs are never compared
    apart = distances(points)
    to_chosen = apart[order[0]]
    for row in order[1:]:
        assert to_chosen[row] >= to_chosen.max() - 1e-3
        to_chosen = np.minimum(to_chosen, apart[row])
    assert len(set(order)) == 120


# --------------------------------------------------------------------------------------------------------------- herding
def mean_error(points, rows) -> float:
    points = points.astype(np.float64)
    return float(np.linalg.norm(points[rows].mean(0) - points.mean(0)))


def naive_herding(points, m) -> list[int]:
    """The row that brings the mean of the chosen closest to the mean of all, m times."""
    points = points.astype(np.float64) - points.astype(np.float64).mean(0)
    left, total, chosen = np.ones(len(points), dtype=bool), np.zeros(points.shape[1]), []
    for _ in range(m):
        errors = np.where(left, np.linalg.norm(total + points, axis=1), np.inf)
        chosen.append(int(errors.argmin()))
        left[chosen[-1]] = False
        total += points[chosen[-1]]
    return chosen


@pytest.mark.parametrize("kind", ["gauss", "mixed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_herding_follows_the_mean(kind, seed):
    points = cloud(300, 6, seed, kind=kind)
    order = select("herding", inputs_of(points), 60, seed).indices
    unique = kind == "gauss"  # of exact duplicates either one may be taken
    mine, naive = (
        (order.tolist(), naive_herding(points, 60)) if unique else (points[order], points[naive_herding(points, 60)])
    )
    np.testing.assert_allclose(mine, naive, atol=1e-4)


@pytest.mark.parametrize("kind", ["gauss", "clustered"])
def test_herding_in_blocks_stays_near_the_mean(kind):
    n = 3 * coverage.BLOCK_ROWS
    for share in (0.01, 0.1):
        ratios = []
        for seed in SEEDS:
            points = cloud(n, 16, seed, kind=kind)
            m = round(share * n)
            mine = mean_error(points, select("herding", inputs_of(points), m, seed).indices)
            ratios.append(mine / mean_error(points, naive_herding(points, m)))
        assert np.mean(ratios) < 1.2


# ----------------------------------------------------------------------------------------------------- facility location
def similarities(points) -> np.ndarray:
    points = points.astype(np.float64) - points.astype(np.float64).mean(0)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (1 + points @ points.T) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_facility_location_is_greedy(seed):
    points = cloud(250, 6, seed)
    order = select("facility_location", inputs_of(points), 60, seed).indices
    alike = similarities(points)
    covered = np.zeros(250)
    for row in order:
        gains = np.maximum(alike - covered, 0).sum(1)
        assert gains[row] >= gains.max() - 1e-3
        covered = np.maximum(covered, alike[row])
    assert len(set(order)) == 60


def objective(points, rows) -> float:
    points = points - points.mean(0)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    blocks = np.array_split(points, 20)
    return sum(float(((1 + block @ points[rows].T) / 2).max(1).sum(dtype=np.float64)) for block in blocks)


def share_kept_on_a_graph(kind: str, share: float) -> float:
    """Of exact greedy's gain over random, on 20,000 rows; more than 1 where the graph's choice is better than greedy's."""
    n = 20_000
    points = cloud(n, 24, 0, kind=kind)
    inputs, m = Inputs(n, "f", embeddings=points), round(share * n)
    on_graph = select("facility_location", inputs, m, 0)
    assert on_graph.provenance["similarities"] == "graph"
    with patch.object(coverage, "EXACT_ROWS", n):
        exact = select("facility_location", inputs, m, 0)
    assert exact.provenance["similarities"] == "all"
    by_chance = np.mean([objective(points, random_ranking(n, seed)[:m]) for seed in SEEDS])
    return (objective(points, on_graph.indices) - by_chance) / (objective(points, exact.indices) - by_chance)


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("kind", ["gauss", "clustered"])
def test_facility_location_on_a_graph_keeps_its_gain(kind, share):
    assert share_kept_on_a_graph(kind, share) >= 0.9


def test_facility_location_goes_on_from_a_start(monkeypatch):
    points = cloud(600, 6, 0)
    start = select("random", inputs_of(points), 30, 5)
    for rows in (8192, 100):
        monkeypatch.setattr(coverage, "EXACT_ROWS", rows)
        order = select("facility_location", inputs_of(points), 60, 0, start_from=start).indices
        assert set(order[:30]) == set(start.indices) and len(set(order)) == 60
        alone = np.r_[start.indices, random_ranking(600, 1)[:30]]
        assert objective(points, order) > objective(points, alone)


# -------------------------------------------------------------------------------------------------------------- SemDeDup
def published_semdedup(points, inputs, *, across: bool) -> list[int]:
    """Rows that resemble no row before them in their cluster, the farthest from the centroid first; eps = 0.01."""
    unit = points.astype(np.float64) / np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
    farthest = np.argsort(-inputs.clusters.distances, kind="stable")
    kept = []
    for at, i in enumerate(farthest):
        earlier = [
            j for j in farthest[:at]
            if inputs.clusters.labels[i] == inputs.clusters.labels[j] and (across or inputs.labels[i] == inputs.labels[j])
        ]  # fmt: skip
        if not any(unit[i] @ unit[j] > 0.99 for j in earlier):
            kept.append(i)
    return kept


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_semdedup_drops_what_resembles_anything_before(across, seed, monkeypatch):
    monkeypatch.setattr(semdedup, "BLOCK_ROWS", 16)
    points = cloud(300, 4, seed)
    inputs = inputs_of(points, seed)
    kept = published_semdedup(points, inputs, across=across)
    mine = select("semdedup", inputs, None, seed, eps=0.01, across_labels=across).indices
    # Of exact duplicates either one may stay.
    assert sorted(map(tuple, points[mine])) == sorted(map(tuple, points[kept])) and 10 < len(kept) < 299


# -------------------------------------------------------------------------------------------------------------------- D2
def naive_d2(points, scores, m, k, gamma) -> set:
    """Sums over the k nearest neighbours; then the best that is left, which lowers its own neighbours."""
    apart = distances(points)
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1, kind="stable")[:, :k]
    x = np.array([scores[i] + sum(np.exp(-apart[i, j]) * scores[j] for j in near[i]) for i in range(len(points))])
    taken = []
    for _ in range(m):
        best = max((i for i in range(len(points)) if i not in taken), key=lambda i: x[i])
        taken.append(best)
        for j in near[best]:
            x[j] -= np.exp(-gamma * apart[best, j]) * x[best]
    return set(taken)


@pytest.mark.parametrize("seed", SEEDS)
def test_d2_passes_messages_as_published(seed):
    points = cloud(240, 5, seed, kind="clustered")
    inputs = inputs_of(points, seed)
    scores = inputs.dynamics.el2n().astype(np.float64)
    for m, mis_ratio in ((30, 0.4), (150, 0.4), (60, 0.0)):
        mine = set(select("d2", inputs, m, seed, mis_ratio=mis_ratio).indices)
        dropped = min(round(mis_ratio * 240), 240 - m)
        left = np.sort(np.argsort(-scores, kind="stable")[dropped:])
        found = {int(left[i]) for i in naive_d2(points[left], scores[left], m, 5, 0.1)}
        assert len(mine & found) / len(mine | found) >= 0.95


# ------------------------------------------------------------------------------------------------------------ neighbours
def test_largest_finds_the_largest_in_blocks(monkeypatch):
    monkeypatch.setattr("utils.selection.neighbors.BLOCK_VALUES", 5000)
    values = np.random.default_rng(0).normal(size=(40, 1030)).astype(np.float32)
    for k in (1, 3, 200, 1030):  # by groups, and all at once
        indices, found = largest(lambda block: values[block].copy(), 40, 1030, k)
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(values, axis=1)[:, 1030 - k :])
        np.testing.assert_array_equal(np.take_along_axis(values, indices, 1), found)


@pytest.mark.parametrize("flops", [1e30, 0])
def test_nearest_neighbours(flops, monkeypatch):
    monkeypatch.setattr("utils.selection.neighbors.EXACT_FLOPS", flops)
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(700, 40)) @ rng.normal(size=(40, 150))).astype(np.float32)
    points -= points.mean(0)
    indices, found, dims = nearest(points, 5)
    true = distances(points)
    np.fill_diagonal(true, np.inf)
    recall = np.mean([np.isin(np.argsort(row)[:5], mine).mean() for row, mine in zip(true, indices, strict=True)])
    assert recall >= 0.95 and dims == (150 if flops else 128)
    np.testing.assert_allclose(found, np.take_along_axis(true, indices, 1), rtol=1e-3)
    assert (np.diff(found, axis=1) >= 0).all()
