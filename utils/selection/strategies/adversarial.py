"""Strategies that filter out what simple models predict: adversarial filtering of frozen embeddings."""

import numpy as np

from utils.errors import InputError
from utils.selection.blocks import row_blocks
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy
from utils.selection.strategies.vectors import mean_of

BLOCKS = 64  # random parts of the examples; a model is fitted to some of them
SHRINKAGE = 0.01  # share of the mean variance in the covariance, so that fewer examples than columns suffice
SLICES = 50  # a round drops at most one of so many slices of the examples


def _cost(n: int, d: int, k: int, m: int) -> Cost:
    kept = np.maximum(n - np.arange(SLICES) * n / SLICES, m)
    rounds = kept[kept > m].sum()  # rows looked at in all rounds
    bytes_held = 4 * (BLOCKS * d * d + 3 * n)
    return Cost(2 * rounds * d * (d + 3 * 64), bytes_held, "linear models on sums over random blocks")


@strategy(
    "aflite", needs=("labels", "embeddings"), source="Le Bras et al. 2020, arXiv 2002.04108", cost=_cost,
    fidelity="differs in the linear model, a discriminant analysis (class frequencies, one shrunk covariance) instead of "
    "logistic regression, because it needs sums alone, so that 64 models cost one pass over the data; in the splits of a "
    "round, unions of 64 random blocks for the same reason; and in the training part, a share of what is left instead of a "
    "fixed number, because that number must lie below every budget. The score, the threshold and the early stop are the "
    "published ones",
)  # fmt: skip
def aflite(
    inputs: Inputs, pool: Pool, *, aflite_models: int = 64, aflite_train_share: float = 0.1, aflite_tau: float = 0.75
) -> Picks:
    """examples that most linear models on random parts of the data fail to predict: the others are dropped, slice by slice.

    aflite_models: number of linear models in each round
    aflite_train_share: share of the remaining examples that each model is fitted to
    aflite_tau: an example is dropped only where at least this share of the models that did not see it predicts its label;
        filtering ends once fewer than a fiftieth of the data are that predictable
    """
    _check(aflite_models, aflite_train_share, aflite_tau)
    # Rows outside the pool (other labels, a start set) stay, and the models learn from them too.
    kept, is_free = np.arange(inputs.n), np.zeros(inputs.n, dtype=bool)
    is_free[pool.rows] = True
    tie_break, center = pool.rng.permutation(inputs.n), mean_of(inputs.embeddings, kept)
    slice_size, dropped, free = max(1, len(pool.rows) // SLICES), [], len(pool.rows)
    scores = np.full(inputs.n, np.nan, dtype=np.float32)
    while free > pool.m:
        rng = np.random.default_rng([pool.seed, len(dropped)])  # the same rounds for every budget
        shares = predictability(
            inputs.embeddings, inputs.classes, kept, center, rng, models=aflite_models, train_share=aflite_train_share
        )
        scores[kept] = -shares
        candidates = np.flatnonzero(is_free[kept] & (shares >= aflite_tau))
        order = np.lexsort((tie_break[kept[candidates]], -shares[candidates]))
        gone = candidates[order[: min(slice_size, free - pool.m)]]
        dropped.append(kept[gone])
        kept, free = np.delete(kept, gone), free - len(gone)
        if len(candidates) < slice_size:
            break
    left = kept[is_free[kept]]
    left = left[np.argsort(tie_break[left])]
    order = np.concatenate([left, *(part[::-1] for part in dropped[::-1])])
    return Picks(order, scores=scores, counts={"aflite_rounds": len(dropped), "aflite_left": len(left)})


def _check(models: int, train_share: float, tau: float) -> None:
    if models < 1:
        raise InputError(f"--aflite_models {models}: at least one model is needed")
    for name, value in (("train_share", train_share), ("tau", tau)):
        if not 0 < value < 1:
            raise InputError(f"--aflite_{name} {value:g} is outside (0, 1)")


def predictability(embeddings, labels, rows, center, rng, *, models: int, train_share: float) -> np.ndarray:
    """float32 (r,): share of right predictions for each row, among the models that were not fitted to it; 0 without any.

    The rows are dealt at random into BLOCKS blocks. A model is fitted to a random set of blocks, and predicts the others.
    """
    number = min(BLOCKS, len(rows))
    blocks = [np.sort(block) for block in np.array_split(rng.permutation(len(rows)), number)]  # sorted rows read fast
    size = min(max(1, round(train_share * number)), number - 1)
    uses = np.zeros((models, number), dtype=bool)
    for own in uses:
        own[rng.choice(number, size, replace=False)] = True
    sums = _block_sums(embeddings, labels, [rows[block] for block in blocks], center)
    slopes, offsets = (
        np.stack(part) for part in zip(*(discriminant(*(part[own] for part in sums)) for own in uses), strict=True)
    )
    shares = np.zeros(len(rows), dtype=np.float32)
    for block, judges in zip(blocks, ~uses.T, strict=True):
        if judges.any():
            shares[block] = _share_right(embeddings, labels, rows[block], center, slopes[judges], offsets[judges])
    return shares


def _block_sums(embeddings, labels, blocks, center):
    """Three arrays, row by block: scatter float32 (b, d, d), the sum of x x^T over its examples, x their difference from the
    mean of their class in the block; those means float64 (b, C, d); class sizes float64 (b, C)."""
    d, number = embeddings.shape[1], int(labels.max()) + 1
    products = np.empty((len(blocks), d, d), dtype=np.float32)
    means, counts = np.zeros((len(blocks), number, d)), np.zeros((len(blocks), number))
    for b, block in enumerate(blocks):
        values = embeddings[block] - center
        is_class = labels[block] == np.arange(number)[:, None]
        counts[b] = is_class.sum(1)
        means[b] = is_class.astype(np.float32) @ values / np.maximum(counts[b], 1)[:, None]
        values -= means[b].astype(np.float32)[labels[block]]
        np.matmul(values.T, values, out=products[b])
    return products, means, counts


def discriminant(products, means, counts) -> tuple[np.ndarray, np.ndarray]:
    """(slopes float32 (C, d), offsets float32 (C,)) of linear discriminant analysis from the sums over its blocks.

    products: (b, d, d), means: (b, C, d) and counts: (b, C) as of `_block_sums`. The scatter inside the classes is a sum of
    two scatters, never a difference, so that it stays positive where the classes are tight. A class without examples has
    offset -inf, so that it is never predicted.
    """
    from scipy.linalg import cho_factor, cho_solve

    of_block, total = counts[..., None], counts.sum()
    counts = counts.sum(0)
    center = (of_block * means).sum(0) / np.maximum(counts, 1)[:, None]
    between = (np.sqrt(of_block) * (means - center)).reshape(-1, means.shape[2])  # of block means about the class mean
    means, within = center, (products.sum(0) + between.T @ between) / total
    variance = max(np.trace(within) / len(within), 1e-12)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * variance * np.eye(len(within))
    slopes = cho_solve(cho_factor(within, overwrite_a=True, check_finite=False), means.T, check_finite=False).T
    with np.errstate(divide="ignore"):
        offsets = np.log(counts / total) - (slopes * means).sum(1) / 2
    return slopes.astype(np.float32), offsets.astype(np.float32)


def _share_right(embeddings, labels, rows, center, slopes, offsets) -> np.ndarray:
    """float32 (r,): share of the models, slopes (j, C, d) and offsets (j, C), that predict the label of each row."""
    right = np.empty(len(rows), dtype=np.float32)
    flat = slopes.reshape(-1, slopes.shape[2])
    for part in row_blocks(len(rows), len(flat) + flat.shape[1]):
        values = (embeddings[rows[part]] - center) @ flat.T
        predicted = (values.reshape(-1, *offsets.shape) + offsets).argmax(2)
        right[part] = (predicted == labels[rows[part], None]).mean(1)
    return right
