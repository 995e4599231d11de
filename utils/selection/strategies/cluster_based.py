"""Strategies on a clustering of the embeddings: who is near which centroid."""

import numpy as np

from utils.errors import InputError
from utils.selection.blocks import row_blocks
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.ordering import interleave, ranks_within, stable_order
from utils.selection.strategies.registry import Picks, Pool, strategy

BHARGAVA = "Bhargava et al. 2021, arXiv 2110.01518"
SORSCHER = "Sorscher et al. 2022, arXiv 2206.14486"
_DISTANCE = (
    "differs in the distance, Euclidean in the space that was clustered (rows of length 1 with --metric cosine), because "
    "the clusters' file holds that one; the paper takes the cosine to the nearest centroid"
)
MEDIAN_COLUMNS = 32  # of one class, copied at a time


@strategy(
    "diverse", needs=("clusters",), source=f"the diverse stream of {BHARGAVA}", version=2,
    fidelity="differs in the order inside a cluster, because budgets of one seed are to nest and ties are not to follow the "
    "rows: the published code takes row order, this one a random order of the selection seed",
)  # fmt: skip
def diverse(inputs: Inputs, pool: Pool, *, within_cluster: str = "stream") -> Picks:
    """round-robin over clusters, in a random order inside each, to be visited in that order (without --class_balanced and --start_from).

    within_cluster: order inside a cluster: stream (random, by the selection seed) or nearest (to the centroid first, a
        set of easy prototypes)
    """
    if within_cluster not in ("stream", "nearest"):
        raise InputError(f"--within_cluster {within_cluster} is unknown; there are stream and nearest")
    rows = pool.by_score(-inputs.clusters.distances) if within_cluster == "nearest" else pool.shuffled()
    own, priority = inputs.clusters.labels[rows], pool.rng.permutation(inputs.clusters.k)
    return Picks(rows[interleave(own, pool.m, priority=priority)], ordered=True)


@strategy(
    "centroids", needs=("clusters",), source=BHARGAVA,
    fidelity="equal to the published code up to k examples, but for an example that is nearest to one centroid and belongs "
    "to another; differs beyond k, because the published choice ends there",
)  # fmt: skip
def centroids(inputs: Inputs, pool: Pool) -> Picks:
    """the example nearest each centroid (m = k without a budget); past k, the rest by distance to their centroid."""
    rows = pool.by_score(-inputs.clusters.distances)
    own, priority = inputs.clusters.labels[rows], pool.rng.permutation(inputs.clusters.k)
    nearest = np.flatnonzero(ranks_within(own) == 0)
    nearest = nearest[np.argsort(priority[own[nearest]])]
    order = np.concatenate([rows[nearest], np.delete(rows, nearest)])
    return Picks(order, natural=len(nearest), counts={"beyond_centroids": max(0, pool.m - len(nearest))})


@strategy(
    "clusters", needs=("clusters",), source=BHARGAVA,
    fidelity="differs in the order of the clusters (random, published: by number) and in taking a part of the last one "
    "(published: leaves it out), because seeds are to differ and budgets are exact",
)  # fmt: skip
def clusters(inputs: Inputs, pool: Pool) -> Picks:
    """whole clusters in random order until the budget is full (the last one in part)."""
    rows = pool.shuffled()
    priority = pool.rng.permutation(inputs.clusters.k)
    return Picks(rows[stable_order(priority[inputs.clusters.labels[rows]])])


@strategy(
    "proportional", needs=("clusters",), source="stratified sampling over clusters",
    fidelity="equal to proportional allocation, rounded by Webster's method so that budgets nest",
)  # fmt: skip
def proportional(inputs: Inputs, pool: Pool) -> Picks:
    """from each cluster its share of the budget, at random."""
    rows = pool.shuffled()
    own = inputs.clusters.labels[rows]
    sizes, priority = np.bincount(own, minlength=inputs.clusters.k), pool.rng.permutation(inputs.clusters.k)
    return Picks(rows[interleave(own, pool.m, share=sizes, priority=priority)])


@strategy(
    "prototypes_easy", needs=("clusters",), source=f"{SORSCHER}: when data is scarce", fidelity=_DISTANCE
)  # fmt: skip
def prototypes_easy(inputs: Inputs, pool: Pool) -> Picks:
    """nearest to the own centroid first."""
    scores = -inputs.clusters.distances
    return Picks(pool.by_score(scores), scores=scores)


@strategy(
    "prototypes_hard", needs=("clusters",), source=f"{SORSCHER}: when data is plentiful", fidelity=_DISTANCE
)  # fmt: skip
def prototypes_hard(inputs: Inputs, pool: Pool) -> Picks:
    """farthest from the own centroid first."""
    scores = inputs.clusters.distances
    return Picks(pool.by_score(scores), scores=scores)


@strategy(
    "moderate", needs=("labels", "embeddings"), source="Xia et al. 2023, ICLR (Moderate Coreset)", version=2,
    fidelity="equal to the published code where n - m is even, but for ties, which the selection seed breaks; where n - m "
    "is odd the band is exactly m wide (the published rounding may give one more)",
)  # fmt: skip
def moderate(inputs: Inputs, pool: Pool) -> Picks:
    """examples whose distance to the median embedding of their gold label is nearest the median of all such distances."""
    distances = distances_to_class_medians(inputs.embeddings, inputs.classes)
    order = np.random.default_rng(pool.seed).permutation(inputs.n)  # the same ties for every pool
    order = order[np.argsort(distances[order], kind="stable")]
    scores = np.empty(inputs.n, dtype=np.float32)
    scores[order] = -np.abs(np.arange(inputs.n) - (inputs.n - 1) / 2)
    return Picks(pool.by_score(scores), scores=scores)


def distances_to_class_medians(embeddings, labels) -> np.ndarray:
    """float64 (n,): Euclidean distance of each example to the median, taken column by column, of its class."""
    n, d = embeddings.shape
    medians = np.zeros((int(labels.max()) + 1, d), dtype=embeddings.dtype)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        for first in range(0, d, MEDIAN_COLUMNS):
            columns = slice(first, first + MEDIAN_COLUMNS)
            medians[label, columns] = np.median(np.ascontiguousarray(embeddings[own, columns].T), axis=1)
    distances = np.empty(n)
    for block in row_blocks(n, 2 * d):  # float64
        distances[block] = np.linalg.norm(embeddings[block] - medians[labels[block]].astype(np.float64), axis=1)
    return distances
