"""Nearest neighbours among many vectors: exact by matrix products, or, for very many, found in a projection and then
ranked by their exact distances. No array grows with n x n.
"""

import logging
from collections.abc import Callable

import numpy as np

from utils.selection.blocks import row_blocks, scatter_matrix

logger = logging.getLogger(__name__)

EXACT_FLOPS = 8e13  # operations of an exact search, about ten minutes on two cores; beyond, a projection is searched
BLOCK_VALUES = 2**27  # products held at once: 512 MB of float32; with fewer, all vectors are read more often
GROUP_SIZE = 64  # columns of a group; the maxima of the groups are compared first
RECALL = 0.95  # share of the true neighbours that a projection has to find, on SAMPLE examples
SAMPLE = 256


def largest(products: Callable[[slice], np.ndarray], num_queries: int, n: int, k: int):
    """The k largest products of every query: indices int32 (q, k) and values float32 (q, k), in no order.

    products(slice of queries) -> float32 (b, n), which may be overwritten.
    """
    indices = np.empty((num_queries, k), dtype=np.int32)
    values = np.empty((num_queries, k), dtype=np.float32)
    step = max(1, BLOCK_VALUES // n)
    for start in range(0, num_queries, step):
        block = slice(start, min(num_queries, start + step))
        found = products(block)
        indices[block] = _top(found, k)
        values[block] = np.take_along_axis(found, indices[block], 1)
    return indices, values


def _top(values: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest values of each row (b, n). A row's k largest lie in the k groups of largest maxima."""
    n = values.shape[1]
    num_groups = n // GROUP_SIZE
    if 4 * k > num_groups:
        return np.argpartition(values, n - k, axis=1)[:, n - k :] if k < n else np.tile(np.arange(n), (len(values), 1))
    whole = num_groups * GROUP_SIZE
    maxima = values[:, :whole].reshape(len(values), GROUP_SIZE, num_groups).max(1)
    groups = np.argpartition(maxima, num_groups - k, axis=1)[:, num_groups - k :]
    columns = (groups[:, :, None] + num_groups * np.arange(GROUP_SIZE)).reshape(len(values), -1)
    rest = np.broadcast_to(np.arange(whole, n), (len(values), n - whole))
    columns = np.concatenate([columns, rest], axis=1)
    kept = np.argpartition(np.take_along_axis(values, columns, 1), columns.shape[1] - k, axis=1)
    return np.take_along_axis(columns, kept[:, columns.shape[1] - k :], 1)


def nearest(points: np.ndarray, k: int):
    """The k nearest other points of each of the points (n, d): indices int32 (n, k), Euclidean distances float32 (n, k),
    nearest first; and the dimensions that were searched, d where the search was exact.
    """
    n, d = points.shape
    everything = np.arange(n)
    k = min(k, n - 1)
    if k < 1:  # one point has no other
        return np.empty((n, 0), dtype=np.int32), np.empty((n, 0), dtype=np.float32), d
    for dims in (d,) if 2.0 * n * n * d <= EXACT_FLOPS else (128, 256, 512, d):
        if dims >= d:
            return (*_sorted(points, _search(points, everything, k)), d)
        projected = _project(points, dims)
        wide = min(n - 1, max(4 * k, k + 32))
        sample = np.linspace(0, n - 1, SAMPLE).astype(np.int64)
        recall = _recall(points, projected, sample, k, wide)
        logger.info("neighbours in %d of %d dimensions: recall %.3f", dims, d, recall)
        if recall >= RECALL:
            indices, distances = _sorted(points, _search(projected, everything, wide))
            return indices[:, :k], distances[:, :k], dims


def _search(points, queries, k: int) -> np.ndarray:
    """int32 (q, k): positions of the k nearest other points of those at `queries`. The nearest of q is the largest <q, p> - norm(p)^2 / 2."""
    half = 0.5 * np.square(points).sum(1)

    def products(block):
        own = queries[block]
        found = points[own] @ points.T
        found -= half
        found[np.arange(len(own)), own] = -np.inf
        return found

    return largest(products, len(queries), len(points), k)[0]


def _sorted(points, indices):
    """Those neighbours by their exact distance, taken from differences: products lose the last digits of small ones."""
    distances = np.empty(indices.shape, dtype=np.float32)
    for block in row_blocks(len(points), indices.shape[1] * points.shape[1]):
        distances[block] = np.linalg.norm(points[indices[block]] - points[block][:, None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)


def _project(points, dims: int) -> np.ndarray:
    """float32 (n, dims): the points (centred) on their principal axes."""
    axes = np.linalg.eigh(scatter_matrix(points))[1][:, -dims:].astype(np.float32)
    return points @ axes


def _recall(points, projected, sample, k: int, wide: int) -> float:
    """Share of the sample's true k nearest that are among the `wide` nearest in the projection."""
    true, found = _search(points, sample, k), _search(projected, sample, wide)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]))
