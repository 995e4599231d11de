"""SemDeDup: near duplicates inside clusters are dropped."""

import numpy as np

from utils.errors import InputError
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy
from utils.selection.strategies.vectors import unit

BLOCK_ROWS = 4096  # rows that are compared with each other at once


def _cost(n: int, d: int, k: int, m: int) -> Cost:
    return Cost(2.0 * n * n / k * d, 4.0 * BLOCK_ROWS * (2 * BLOCK_ROWS + d), "inside clusters")


@strategy(
    "semdedup",
    needs=("labels", "embeddings", "clusters"),
    source="Abbas et al. 2023, arXiv 2303.09540",
    cost=_cost,
    version=2,
    fidelity=(
        "equal to the published rule with --across_labels; by default only examples of one gold label are duplicates, "
        "because NLI data repeats each premise with other labels on purpose"
    ),
)
def semdedup(inputs: Inputs, pool: Pool, *, eps: float = 0.05, across_labels: bool = False) -> Picks:
    """drop near duplicates in one cluster (cosine above 1 - eps); the kept at random, then the dropped.

    eps: examples of a cosine above 1 - eps are duplicates
    across_labels: examples of different gold labels can be duplicates too
    """
    if not 0 < eps < 1:
        raise InputError(
            f"--eps {eps:g} is outside (0, 1): examples of cosine similarity above 1 - eps are duplicates; 1e-5 is for equal "
            "embeddings alone, because cosines are rounded"
        )
    if across_labels and len(pool.rows) + len(pool.start) < inputs.n:
        raise InputError(
            "--across_labels compares examples of all labels, but --class_balanced chooses from each label alone; give one of them"
        )
    duplicate = np.zeros(inputs.n, dtype=bool)
    farthest = pool.by_score(inputs.clusters.distances)  # of two duplicates the one farther from its centroid stays
    group = inputs.clusters.labels[farthest].astype(np.int64)
    if not across_labels:
        group = group * (inputs.classes.max() + 1) + inputs.classes[farthest]
    order = np.argsort(group, kind="stable")
    for members in np.split(farthest[order], np.flatnonzero(np.diff(group[order])) + 1):
        duplicate[members] = near_duplicates(inputs.embeddings, members, 1 - eps)
    rows = pool.shuffled()
    dropped = duplicate[rows]
    kept = int((~dropped).sum())
    return Picks(np.concatenate([rows[~dropped], rows[dropped]]), natural=kept, counts={"kept": kept})


def near_duplicates(embeddings, rows, threshold: float) -> np.ndarray:
    """bool (r,): rows whose cosine similarity to any earlier row, dropped or not, exceeds the threshold."""
    dropped = np.zeros(len(rows), dtype=bool)
    blocks = [slice(i, min(i + BLOCK_ROWS, len(rows))) for i in range(0, len(rows), BLOCK_ROWS)]
    for at, block in enumerate(blocks):
        own = unit(embeddings[rows[block]])
        dropped[block] = np.triu(own @ own.T > threshold, 1).any(0)
        for before in blocks[:at]:
            dropped[block] |= (own @ unit(embeddings[rows[before]]).T > threshold).any(1)
    return dropped
