"""What one set of logits says about its examples."""

import numpy as np

BLOCK = 65_536  # examples worked on at a time: 12 snapshots of 3 classes are 9 MB of float32


def softmax(z) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def errors(z, gold) -> np.ndarray:
    """float32 (..., C): softmax(z) - y, the gradient of the loss by the logits. z: (..., C); gold: (...)."""
    p = softmax(np.asarray(z, dtype=np.float32))
    np.put_along_axis(p, gold[..., None], _pick(p, gold)[..., None] - 1, -1)
    return p


def error_norm(z, gold) -> np.ndarray:
    """norm(softmax(z) - y), in [0, sqrt 2]: EL2N. z: (..., C); gold: (...); of one output, abs(z - gold)."""
    if np.shape(z)[-1] == 1:
        return np.abs(np.asarray(z)[..., 0] - gold)
    return np.linalg.norm(errors(z, gold), axis=-1)


def cross_entropy(z, gold) -> np.ndarray:
    """Per-example loss. z: (..., C), gold: (...) class numbers; of one output, gold is a score and the loss is squared."""
    z = np.asarray(z, dtype=np.float64)
    if z.shape[-1] == 1:
        return (z[..., 0] - gold) ** 2
    return _log_sum_exp(z) - _pick(z, gold)


def grad_norm(z, gold, features) -> np.ndarray:
    """GraNd of the classifier layer, exactly: norm of the loss gradient by its weight and bias.

    z (n, C) = features (n, d) @ W.T + b gives the gradient (p - y) (h, 1)^T, an outer product, whose norm is
    norm(p - y) sqrt(norm(h)^2 + 1). float32 (n,). Paul et al. 2021, arXiv 2107.07075.
    """
    squared = np.concatenate(
        [np.square(features[i : i + BLOCK], dtype=np.float32).sum(1) for i in range(0, len(features), BLOCK)]
    )
    return error_norm(z, gold) * np.sqrt(squared + 1)


def _pick(values, gold):
    return np.take_along_axis(values, gold[..., None], -1)[..., 0]


def _log_sum_exp(z):
    top = z.max(-1, keepdims=True)
    return np.log(np.exp(z - top).sum(-1)) + top[..., 0]


def _gold_margin(z, gold):
    others = z.copy()
    np.put_along_axis(others, gold[..., None], -np.inf, -1)
    return _pick(z, gold) - others.max(-1)
