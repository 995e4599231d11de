"""k-means on embeddings: preparation in blocks, fitting, assignment."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError
from utils.selection.blocks import row_blocks, scatter_matrix
from utils.selection.clusters import Clusters

# Relative spread (root mean squared distance to the mean / norm of the mean) under which an encoder has collapsed to a
# constant. Trained and pretrained encoders lie above 0.1; float32 noise alone is about 1e-6.
COLLAPSED_SPREAD = 1e-3
VERSION = 2  # of this k-means; raised when the same embeddings give other clusters
FULL_KMEANS_ROWS = 50_000  # up to here `auto` runs full k-means
# Mini-batch k-means fits on a seeded sample of this many rows per centroid (the cap that faiss uses as well) and never
# fewer than the floor; all rows are then assigned. More rows move the centroids less than a change of seed does.
ROWS_PER_CENTROID = 256
MIN_FIT_ROWS = 65_536
# (d, p): p Lloyd passes over a d-th of the sample, one part after the other. Few rows suffice for the first, rough ones.
PASSES = ((8, 5), (4, 3), (2, 2), (1, 3))
START_ROUNDS = 4  # each draws about k candidates for the first centroids; five rounds are enough in the paper
# The last pass sees more rows, read in blocks: with far outliers it brings the inertia down by 2 %.
REFINING_PASSES = 1
REFINING_ROWS_PER_CENTROID = 1024
MIN_REFINING_ROWS = 2**18


@dataclass(frozen=True)
class Prepared:
    """Embeddings as k-means sees them: centred, optionally projected (PCA, whitened), optionally of length 1.

    Nothing is copied: rows are computed when asked for. `spread` is the root mean squared distance to the mean over
    the mean's norm; `explained` the share of variance that PCA keeps.
    """

    array: np.ndarray
    mean: np.ndarray  # float32 (d,)
    projection: np.ndarray | None  # float32 (d, d')
    metric: str
    spread: float
    explained: float
    description: dict

    def __len__(self) -> int:
        return len(self.array)

    @property
    def d(self) -> int:
        return len(self.mean) if self.projection is None else self.projection.shape[1]

    @property
    def collapsed(self) -> bool:
        return self.spread < COLLAPSED_SPREAD

    def rows(self, index) -> np.ndarray:
        """float32 (m, d') for a slice or row numbers."""
        values = np.asarray(self.array[index], dtype=np.float32) - self.mean
        if self.projection is not None:
            values = values @ self.projection
        if self.metric == "cosine":
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            values /= np.where(norms > 0, norms, 1)
        return values

    def blocks(self, rows: slice = slice(None)) -> Iterator[tuple[slice, np.ndarray]]:
        """The blocks that begin in `rows`: their place and their prepared values."""
        for block in row_blocks(*self.array.shape):
            if block.start in range(len(self))[rows]:
                yield block, self.rows(block)


def prepare(array, *, pca: int | None = None, whiten: bool = False, metric: str = "euclidean") -> Prepared:
    """Centre `array` float (n, d), project it on its `pca` largest principal axes, whiten it; "cosine" makes rows of
    length 1, on which Euclidean k-means is spherical k-means up to the norm of the centroids.

    Raw [CLS] vectors of a pretrained encoder are anisotropic (all share one large direction), so centring is not an
    option but a must for cosine. PCA is exact: one pass in blocks for the d x d covariance, float64. `whiten` divides
    each axis by its standard deviation; axes without variance are dropped. Raises InputError for NaN or pca > d.
    """
    n, d = array.shape
    if pca is not None and not 1 <= pca <= min(n, d):
        raise InputError(f"--pca {pca}: embeddings of {n} rows and width {d} have 1 to {min(n, d)} principal axes")
    mean = sum(array[block].sum(axis=0, dtype=np.float64) for block in row_blocks(n, d)) / n
    if not np.isfinite(mean).all():
        raise InputError("the embeddings hold NaN or infinity; run get_embeddings.py again, without --fp16")
    mean = mean.astype(np.float32)
    variance, covariance = 0.0, None
    if pca is None and not whiten:
        variance = sum(np.square(array[b] - mean).sum(dtype=np.float64) for b in row_blocks(n, d)) / n
    else:
        covariance = scatter_matrix(array, mean) / n
        variance = float(np.trace(covariance))
    projection, explained = (None, 1.0) if covariance is None else _principal_axes(covariance, pca or d, whiten)
    spread = float(np.sqrt(variance) / max(float(np.linalg.norm(mean)), 1e-12))
    description = {"centred": True, "pca": pca, "whiten": whiten, "metric": metric, "explained_variance": explained}
    return Prepared(array, mean, projection, metric, spread, explained, description)


def _principal_axes(covariance, axes: int, whiten: bool) -> tuple[np.ndarray, float]:
    """The projection (d, axes), largest variance first and each axis's largest entry positive; the share it keeps."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:axes], vectors[:, ::-1][:, :axes]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    explained = float(values.clip(0).sum() / max(np.trace(covariance), 1e-30))
    if whiten:
        kept = values > 1e-6 * max(values[0], 1e-30)  # below: rounding noise, which whitening would blow up to 1
        vectors = vectors[:, kept] / np.sqrt(values[kept])
    return np.ascontiguousarray(vectors, dtype=np.float32), explained


def kmeans(
    prepared: Prepared,
    k: int,
    *,
    seed: int = 0,
    algorithm: str = "auto",
    fingerprint: str = "",
    about: dict | None = None,
    found: tuple | None = None,
) -> Clusters:
    """k-means++ and Lloyd ("full"), or k-means|| and Lloyd passes over growing parts of a sample (Newling & Fleuret 2016,
    arXiv 1602.02934, "minibatch"); then one exact assignment in blocks. Clusters are numbered from the largest to the smallest.

    "auto" is full up to 50,000 rows, then minibatch. Full holds all prepared rows in memory (4 n d' bytes), minibatch a
    seeded sample of at most max(65,536, 256 k). The same seed gives the same result. Raises InputError for k < 2 or k > n.
    found: centroids, labels and distances that shards have computed already.
    """
    algorithm = resolve(algorithm, len(prepared))
    if found is None:
        centers = fit(prepared, k, seed, algorithm)
        found = (centers, *assign(prepared, centers))
    facts = {**(about or {}), "algorithm": algorithm, "version": VERSION, "random_state": seed}
    facts["preparation"] = prepared.description
    return partition(*found, fingerprint, facts)


def resolve(algorithm: str, n: int) -> str:
    """What "auto" means for n rows."""
    return algorithm if algorithm != "auto" else "full" if n <= FULL_KMEANS_ROWS else "minibatch"


def partition(centers, labels, distances, fingerprint: str, facts: dict) -> Clusters:
    """The Clusters of an assignment, numbered from the largest to the smallest."""
    k = len(centers)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k)
    return Clusters(rank[labels], centers[order], distances, fingerprint, len(labels), {**facts, "k": k})


def fit(prepared: Prepared, k: int, seed: int, algorithm: str) -> np.ndarray:
    """Centroids float32 (k, d'); algorithm: "full" or "minibatch"."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    n = len(prepared)
    if not 2 <= k <= n:
        raise InputError(f"--num_clusters {k}: {n} rows can be split into 2 to {n} clusters")
    if algorithm == "full":
        model = KMeans(k, n_init=1, max_iter=100, random_state=seed, copy_x=False)  # the rows are ours
        # A second run must give the same bits. The sum of three or more threads' partial sums depends on which thread ends
        # first; that of two does not.
        with threadpool_limits(2, user_api="openmp"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k: empty clusters
            return np.ascontiguousarray(model.fit(prepared.rows(slice(None))).cluster_centers_, dtype=np.float32)
    rng = np.random.default_rng(seed)
    order = rng.choice(n, min(n, max(MIN_FIT_ROWS, ROWS_PER_CENTROID * k)), replace=False)
    sizes = [max(k, len(order) // share) for share, _ in PASSES]
    # In the order of the file inside each part, since a disk reads neighbours fast.
    order = np.concatenate([np.sort(part) for part in np.split(order, sizes[:-1])])
    centers = _nested(prepared.rows(order), sizes, k, seed)
    order = np.sort(rng.choice(n, min(n, max(MIN_REFINING_ROWS, REFINING_ROWS_PER_CENTROID * k)), replace=False))
    for _ in range(REFINING_PASSES):
        centers = _lloyd_pass((prepared.rows(order[block]) for block in row_blocks(len(order), prepared.d)), centers)
    return centers


def _nested(rows, sizes: list[int], k: int, seed: int) -> np.ndarray:
    """Centroids float32 (k, d') after the Lloyd passes of PASSES over the first sizes[0], sizes[1], ... of the rows."""
    centers = _start(rows[: sizes[0]], k, seed)
    for size, (_, passes) in zip(sizes, PASSES, strict=True):
        for _ in range(passes):
            centers = _lloyd_pass((rows[:size][block] for block in row_blocks(size, rows.shape[1])), centers)
    return centers


def _start(rows, k: int, seed: int) -> np.ndarray:
    """k of the rows: k-means|| (Bahmani et al. 2012, arXiv 1203.6402). Rounds draw about k rows each, by their squared
    distance to those drawn before; k-means++ chooses among them, each weighted by the number of rows nearest to it."""
    from sklearn.cluster import kmeans_plusplus

    rng = np.random.default_rng(seed)
    squared = np.full(len(rows), np.inf, dtype=np.float32)
    nearest, drawn = np.zeros(len(rows), dtype=np.int64), np.array([rng.integers(len(rows))])
    norms = np.square(rows).sum(1)
    new = drawn
    for _ in range(START_ROUNDS + 1):
        for block in row_blocks(len(rows), max(rows.shape[1], len(new))):
            products = rows[block] @ rows[new].T - norms[new] / 2
            own = products.argmax(1)
            closer = (norms[block] - 2 * products[np.arange(len(own)), own]).clip(0)
            better = closer < squared[block]
            squared[block][better] = closer[better]
            nearest[block][better] = len(drawn) - len(new) + own[better]
        squared[drawn] = 0
        new = np.flatnonzero(rng.random(len(rows)) * squared.sum(dtype=np.float64) < k * squared)
        if not len(new):
            break
        drawn = np.concatenate([drawn, new])
    drawn = drawn[: len(drawn) - len(new)]  # the last draw was compared with nothing
    if len(drawn) < k:  # few distinct rows
        drawn = np.concatenate([drawn, rng.choice(len(rows), k - len(drawn), replace=False)])
    weights = np.bincount(nearest, minlength=len(drawn)) + 1e-9
    return kmeans_plusplus(rows[drawn], k, sample_weight=weights, random_state=seed)[0]


def assign(prepared: Prepared, centers, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid int32 (r,) and the distance to it float32 (r,) of all rows, or those of the blocks in `rows`."""
    labels, distances = [], []
    for _, values in prepared.blocks(rows):
        labels.append(_nearest(values, centers))
        # The difference itself, not the expanded square: no cancellation for rows near their centroid.
        distances.append(np.linalg.norm(values - centers[labels[-1]], axis=1))
    return np.concatenate(labels), np.concatenate(distances)


def _nearest(values, centers) -> np.ndarray:
    """argmin of |x - c|^2 = argmax of x.c - |c|^2 / 2: one matrix product, in blocks that bound its memory for any k."""
    half, nearest = (centers**2).sum(axis=1) / 2, np.empty(len(values), dtype=np.int32)
    for block in row_blocks(len(values), len(centers)):
        nearest[block] = (values[block] @ centers.T - half).argmax(axis=1)
    return nearest


def _lloyd_pass(blocks, centers) -> np.ndarray:
    """The mean of all rows (in blocks (b, d')) nearest to each centroid, float32 (k, d'); an empty cluster keeps its centroid."""
    from scipy.sparse import csr_array

    sums, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for values in blocks:
        nearest, ones = _nearest(values, centers), np.ones(len(values), np.float32)
        members = csr_array((ones, (nearest, np.arange(len(values)))), shape=(len(centers), len(values)))
        sums += members @ values
        counts += np.bincount(nearest, minlength=len(centers))
    filled = counts[:, None] > 0
    return np.where(filled, sums / np.maximum(1, counts)[:, None], centers).astype(np.float32)
