"""A matrix that may be larger than memory, in blocks of consecutive rows."""

from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 64 << 20  # of a block, about


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Slices that cover n float32 rows of width d, each about 64 MB."""
    step = max(1, BLOCK_BYTES // (4 * max(1, d)))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def scatter_matrix(array, mean=None) -> np.ndarray:
    """float64 (d, d): the sum of x x^T over the rows x of array float (n, d), less `mean` (d,) where there is one."""
    found = np.zeros((array.shape[1],) * 2)
    for block in row_blocks(*array.shape):
        rows = array[block] if mean is None else array[block] - mean
        found += rows.T @ rows
    return found
