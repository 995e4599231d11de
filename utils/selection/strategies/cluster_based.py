"""Strategies on a clustering of the embeddings: who is near which centroid."""

import numpy as np

from utils.selection.embeddings import row_blocks
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.ordering import interleave, ranks_within
from utils.selection.strategies.registry import Picks, Pool, strategy

BHARGAVA = "Bhargava et al. 2021, arXiv 2110.01518"
SORSCHER = "Sorscher et al. 2022, arXiv 2206.14486"


def _nearest_first(inputs: Inputs, pool: Pool):
    """Rows by distance to their own centroid, their clusters, and a random priority of clusters."""
    rows = pool.by_score(-inputs.clusters.distances)
    return rows, inputs.clusters.labels[rows], pool.rng.permutation(inputs.clusters.k)


@strategy("diverse", needs=("clusters",), source=f"the diverse stream of {BHARGAVA}")
def diverse(inputs: Inputs, pool: Pool) -> Picks:
    """round-robin over clusters, nearest to the centroid first, to be visited in that order."""
    rows, clusters, priority = _nearest_first(inputs, pool)
    return Picks(rows[interleave(clusters, ranks_within(clusters), priority=priority)], ordered=True)


@strategy("centroids", needs=("clusters",), source=BHARGAVA)
def centroids(inputs: Inputs, pool: Pool) -> Picks:
    """the example nearest each centroid (m = k without a budget); past k, the rest by distance to their centroid."""
    rows, clusters, priority = _nearest_first(inputs, pool)
    nearest = np.flatnonzero(ranks_within(clusters) == 0)
    nearest = nearest[np.argsort(priority[clusters[nearest]])]
    order = np.concatenate([rows[nearest], np.delete(rows, nearest)])
    return Picks(order, natural=len(nearest), notes={"beyond_centroids": max(0, pool.m - len(nearest))})


@strategy("clusters", needs=("clusters",), source=BHARGAVA)
def clusters(inputs: Inputs, pool: Pool) -> Picks:
    """whole clusters in random order until the budget is full (the last one in part)."""
    rows = pool.shuffled()
    priority = pool.rng.permutation(inputs.clusters.k)
    return Picks(rows[np.argsort(priority[inputs.clusters.labels[rows]], kind="stable")])


@strategy("proportional", needs=("clusters",), source="stratified sampling over clusters")
def proportional(inputs: Inputs, pool: Pool) -> Picks:
    """from each cluster its share of the budget, at random."""
    rows = pool.shuffled()
    own = inputs.clusters.labels[rows]
    sizes, priority = np.bincount(own, minlength=inputs.clusters.k), pool.rng.permutation(inputs.clusters.k)
    return Picks(rows[interleave(own, ranks_within(own), share=sizes, priority=priority)])


@strategy("prototypes_easy", needs=("clusters",), source=f"{SORSCHER}: when data is scarce")
def prototypes_easy(inputs: Inputs, pool: Pool) -> Picks:
    """nearest to the own centroid first."""
    scores = -inputs.clusters.distances
    return Picks(pool.by_score(scores), scores=scores)


@strategy("prototypes_hard", needs=("clusters",), source=f"{SORSCHER}: when data is plentiful")
def prototypes_hard(inputs: Inputs, pool: Pool) -> Picks:
    """farthest from the own centroid first."""
    scores = inputs.clusters.distances
    return Picks(pool.by_score(scores), scores=scores)


@strategy("moderate", needs=("labels", "embeddings"), source="Xia et al. 2023, ICLR (Moderate Coreset)")
def moderate(inputs: Inputs, pool: Pool) -> Picks:
    """closest to the median distance from the mean of its gold label."""
    labels, embeddings = inputs.classes, inputs.embeddings
    number = int(labels.max()) + 1
    sums, distances = np.zeros((number, embeddings.shape[1])), np.empty(inputs.n, dtype=np.float32)
    for block in row_blocks(*embeddings.shape):
        for label in range(number):
            sums[label] += embeddings[block][labels[block] == label].sum(0, dtype=np.float64)
    counts = np.bincount(labels, minlength=number)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    for block in row_blocks(*embeddings.shape):
        distances[block] = np.linalg.norm(embeddings[block] - means[labels[block]], axis=1)
    medians = [np.median(distances[labels == label]) if counts[label] else 0 for label in range(number)]
    scores = -np.abs(distances - np.asarray(medians, dtype=np.float32)[labels])
    return Picks(pool.by_score(scores), scores=scores)
