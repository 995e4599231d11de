"""How close each method comes to its source, in figures: python -m tests.conformance.figures (about a minute).

The tests of this folder hold limits; this prints what is reached. The naive implementations are those of the tests.
"""

import numpy as np

from tests.conformance.test_clusters_and_text import awkward, naive_bias_weights, published_band
from tests.conformance.test_coverage import (
    cloud,
    inputs_of,
    mean_error,
    naive_d2,
    naive_herding,
    published_semdedup,
    share_kept_on_a_graph,
)
from tests.test_online import N, subsets
from utils.selection.strategies import coverage, select
from utils.selection.strategies.cluster_based import distances_to_class_medians

SEEDS = (0, 1, 2)


def jaccard(first, second) -> float:
    first, second = set(first), set(second)
    return len(first & second) / len(first | second)


def radius(points, chosen) -> float:
    return float(np.sqrt(coverage.squared_distances(points, points[chosen]).min(1).max()))


def greedy_radius(points, first: int, m: int) -> float:
    """Of the choice that takes the farthest row every time."""
    nearest = np.linalg.norm(points - points[first], axis=1)
    for _ in range(m - 1):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[nearest.argmax()], axis=1))
    return float(nearest.max())


def facility_location() -> str:
    found = [
        f"{share_kept_on_a_graph(kind, share):.2f} ({kind}, {share:.0%})"
        for kind in ("gauss", "clustered")
        for share in (0.01, 0.1)
    ]
    return f"share of exact greedy's gain over random, 20,000 rows on a graph: {', '.join(found)}"


def kcenter() -> str:
    points, m = cloud(5000, 384, 0, kind="gauss"), 500
    chosen = select("kcenter", inputs_of(points), m, 0).indices
    by_chance = np.random.default_rng(0).permutation(5000)[:m]
    return (
        f"radius on Gaussian data {radius(points, chosen):.2f}, exact greedy {greedy_radius(points, chosen[0], m):.2f}, "
        f"random {radius(points, by_chance):.2f}"
    )


def herding() -> str:
    n, ratios = 3 * coverage.BLOCK_ROWS, []
    for kind in ("gauss", "clustered"):
        points = cloud(n, 16, 0, kind=kind)
        mine = mean_error(points, select("herding", inputs_of(points), n // 10, 0).indices)
        ratios.append(f"{mine / mean_error(points, naive_herding(points, n // 10)):.2f} ({kind})")
    return f"error of the mean over exact greedy's, {n:,} rows in blocks: {', '.join(ratios)}"


def diverse() -> str:
    inputs = inputs_of(cloud(2000, 8, 0, kind="clustered"))
    order = np.argsort(np.argsort(inputs.clusters.distances)) / inputs.n
    ranks = [
        order[select("diverse", inputs, 200, 0, within_cluster=how).indices].mean() for how in ("stream", "nearest")
    ]
    return f"mean rank by distance to the centroid (0 nearest, 1 farthest): {ranks[0]:.2f}, with nearest {ranks[1]:.2f}"


def moderate() -> str:
    apart = 0.0
    for seed in SEEDS:
        inputs = awkward(seed, n=60)
        found = distances_to_class_medians(inputs.embeddings, inputs.labels)
        chosen = np.sort(found[select("moderate", inputs, 34, seed).indices])
        apart = max(apart, float(np.abs(chosen / np.array(published_band(inputs, 34)) - 1).max()))
    return f"distances of the chosen against those of the published band: at most {apart:.0e} apart"


def d2() -> str:
    found = []
    for seed in SEEDS:
        points = cloud(240, 5, seed, kind="clustered")
        inputs = inputs_of(points, seed)
        scores = inputs.dynamics.el2n().astype(np.float64)
        left = np.sort(np.argsort(-scores, kind="stable")[96:])
        published = left[list(naive_d2(points[left], scores[left], 60, 5, 0.1))]
        found.append(jaccard(select("d2", inputs, 60, seed, mis_ratio=0.4).indices, published))
    return f"overlap with the published rule (Jaccard): {np.mean(found):.2f}"


def semdedup() -> str:
    found = []
    for seed in SEEDS:
        points = cloud(300, 4, seed)
        inputs = inputs_of(points, seed)
        mine = select("semdedup", inputs, None, seed, eps=0.01, across_labels=True).indices
        published = published_semdedup(points, inputs, across=True)
        found.append(jaccard(map(tuple, points[mine]), map(tuple, points[published])))
    return f"overlap of the kept with the published rule (Jaccard): {np.mean(found):.2f}"


def rs2() -> str:
    seen = []
    for options in ({}, {"replacement": True}):
        rows, _ = subsets(10, size=N // 10, **options)
        seen.append(len(np.unique(np.concatenate(rows))) / N)
    return f"share of the data seen in ten 10 % epochs: {seen[0]:.0%}, with --replacement {seen[1]:.0%}"


def bias_reweight() -> str:
    apart = 0.0
    for seed in SEEDS:
        inputs = awkward(seed)
        chosen = select("bias_reweight", inputs, None, seed)
        apart = max(apart, float(np.abs(chosen.weights / naive_bias_weights(inputs, seed)[chosen.indices] - 1).max()))
    return f"weights against the published two-way balanced model: at most {apart:.0e} apart"


METHODS = (facility_location, kcenter, herding, diverse, moderate, d2, semdedup, rs2, bias_reweight)

if __name__ == "__main__":
    for method in METHODS:
        print(f"{method.__name__:<18} {method()}", flush=True)
