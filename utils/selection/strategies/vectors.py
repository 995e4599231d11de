"""Vector arithmetic that several strategies share."""

import numpy as np

from utils.selection.blocks import row_blocks


def unit(vectors) -> np.ndarray:
    """Rows scaled to length 1; rows of 0 stay 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def mean_of(embeddings, rows) -> np.ndarray:
    """float32 (d,): mean of those rows, summed in float64. [CLS] vectors share a large constant part: subtract
    it before float32 products and cosines, which lose digits to it otherwise."""
    total = np.zeros(embeddings.shape[1])
    for block in row_blocks(len(rows), embeddings.shape[1]):
        total += embeddings[rows[block]].sum(0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)


def squared_distances(a, b) -> np.ndarray:
    """float32 (len(a), len(b)), never negative."""
    products = a @ b.T
    products *= -2
    products += np.square(a).sum(1)[:, None]
    products += np.square(b).sum(1)
    return np.maximum(products, 0, out=products)
