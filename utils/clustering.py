"""k-means on embeddings and what it found: the `Clusters` file, preprocessing in blocks, quality, make-up of clusters.

Owns numbers; text and figures are `utils/cluster_report.py`'s. No torch: runs on any laptop.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.embeddings import Embeddings, row_blocks
from utils.runs import InputError, read_npz, write_npz

logger = logging.getLogger(__name__)

# Relative spread (root mean squared distance to the mean / norm of the mean) under which an encoder has collapsed to a
# constant. Trained and pretrained encoders lie above 0.1; float32 noise alone is about 1e-6.
COLLAPSED_SPREAD = 1e-3
FULL_KMEANS_ROWS = 50_000  # up to here `auto` runs full k-means
# Mini-batch k-means fits on a seeded sample of this many rows per centroid (the cap that faiss uses as well) and never
# fewer than the floor; all rows are then assigned. More rows move the centroids less than a change of seed does.
ROWS_PER_CENTROID = 256
MIN_FIT_ROWS = 65_536
# Full Lloyd passes after the mini-batches: with far outliers they bring the inertia from 1.22 times that of full k-means
# to 1.005, on Gaussian noise from 1.012 to 1.008; ten passes gain nothing more.
REFINING_PASSES = 5
SILHOUETTE_ROWS = 5_000  # pairwise distances of these: 100 MB


# ---------------------------------------------------------------------------------------------------------------- file
@dataclass(frozen=True)
class Clusters:
    """A k-means partition of n_total examples; row i is row i of the split.

    labels: int32 (n,), cluster numbers in [0, k), largest cluster first; centers: float32 (k, d') and distances:
    float32 (n,) to the own centroid, both in the prepared space (`about["preparation"]`; with the defaults the embedding
    space shifted to its mean); fingerprint: that of the Examples; about: metric, preparation, seed, identity of the
    embeddings. Raises InputError where the parts do not fit together.
    """

    labels: np.ndarray
    centers: np.ndarray
    distances: np.ndarray
    fingerprint: str
    n_total: int
    about: dict = field(default_factory=dict)

    def __post_init__(self):
        for name, dtype in (("labels", np.int32), ("centers", np.float32), ("distances", np.float32)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if self.labels.shape != (self.n_total,) or self.distances.shape != (self.n_total,):
            raise InputError(
                f"clusters: {self.labels.shape} labels and {self.distances.shape} distances for {self.n_total} rows"
            )
        if self.centers.ndim != 2 or not self.n_total or not (0 <= self.labels.min() <= self.labels.max() < self.k):
            raise InputError(f"clusters: the labels do not fit centers of shape {self.centers.shape}")
        if not np.isfinite(self.distances).all() or not np.isfinite(self.centers).all():
            raise InputError("clusters: NaN or infinity among centers or distances")

    def __len__(self) -> int:
        return self.n_total

    @property
    def k(self) -> int:
        return len(self.centers)

    @property
    def sizes(self) -> np.ndarray:
        """int64 (k,)"""
        return np.bincount(self.labels, minlength=self.k)

    @property
    def inertia(self) -> float:
        """Sum over all examples of the squared distance to the own centroid."""
        return float((self.distances.astype(np.float64) ** 2).sum())

    def save(self, path) -> None:
        about = {"fingerprint": self.fingerprint, "n_total": int(self.n_total), "about": self.about}
        write_npz(
            path,
            labels=self.labels,
            centers=self.centers,
            distances=self.distances,
            about=np.frombuffer(json.dumps(about, sort_keys=True).encode(), dtype=np.uint8),
        )

    @classmethod
    def load(cls, path) -> "Clusters":
        """Read a file written by `save`. Raises InputError where it is missing, damaged or another kind of file."""
        arrays = read_npz(path, required=("labels", "centers", "distances", "about"))
        try:
            about = json.loads(arrays["about"].tobytes())
            return cls(
                arrays["labels"], arrays["centers"], arrays["distances"],
                about["fingerprint"], about["n_total"], about["about"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a clusters file ({error!r})") from None

    def check(self, other, path: str | Path = "the clusters") -> None:
        """Raise InputError unless these are clusters of exactly `other`, Examples or Embeddings."""
        source = other.path if isinstance(other, Embeddings) else other.source
        if self.n_total != len(other) or self.fingerprint != other.fingerprint:
            raise InputError(
                f"{path}: made from other data: {self.n_total} rows with fingerprint {self.fingerprint[:12]}, but "
                f"{source} has {len(other)} rows with fingerprint {other.fingerprint[:12]}; run cluster_embeddings.py "
                "on embeddings of this data"
            )
        if isinstance(other, Embeddings) and self.about.get("embeddings", {}).get("digest") != other.digest:
            raise InputError(
                f"{path}: clusters of other embeddings of the same data than {source} (another checkpoint or "
                "pooling); run cluster_embeddings.py on this file"
            )


# --------------------------------------------------------------------------------------------------------- preparation
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

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        for block in row_blocks(*self.array.shape):
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
        covariance = np.zeros((d, d))
        for block in row_blocks(n, d):
            centred = array[block] - mean
            covariance += centred.T @ centred
        covariance /= n
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


# ------------------------------------------------------------------------------------------------------------- k-means
def kmeans(
    prepared: Prepared,
    k: int,
    *,
    seed: int = 0,
    algorithm: str = "auto",
    fingerprint: str = "",
    about: dict | None = None,
) -> Clusters:
    """k-means++ and Lloyd ("full") or mini-batch k-means (Sculley 2010, "minibatch") refined by a few Lloyd passes
    over all rows, then one exact assignment in blocks. Clusters are numbered from the largest to the smallest.

    "auto" is full up to 50,000 rows. Full holds all prepared rows in memory (4 n d' bytes), mini-batch a seeded sample
    of at most max(65,536, 256 k). The same seed gives the same result. Raises InputError for k < 2 or k > n.
    """
    n = len(prepared)
    if not 2 <= k <= n:
        raise InputError(f"--num_clusters {k}: {n} rows can be split into 2 to {n} clusters")
    if algorithm == "auto":
        algorithm = "full" if n <= FULL_KMEANS_ROWS else "minibatch"
    centers = _fit(prepared, k, seed, algorithm)
    if algorithm == "minibatch":
        for _ in range(REFINING_PASSES):
            centers = _lloyd_pass(prepared, centers)
    labels, distances = assign(prepared, centers)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k)
    facts = {**(about or {}), "k": k, "algorithm": algorithm, "random_state": seed, "preparation": prepared.description}
    return Clusters(rank[labels], centers[order], distances, fingerprint, n, facts)


def _fit(prepared: Prepared, k: int, seed: int, algorithm: str) -> np.ndarray:
    """Centroids float32 (k, d')."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    n = len(prepared)
    if algorithm == "full":
        rows = prepared.rows(slice(None))
        model = KMeans(k, n_init=1, max_iter=100, random_state=seed, copy_x=False)  # the rows are ours
    else:
        size = min(n, max(MIN_FIT_ROWS, ROWS_PER_CENTROID * k))
        chosen = np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
        rows = prepared.rows(chosen)
        batch = max(2048, 4 * k)
        model = MiniBatchKMeans(k, n_init=3, batch_size=batch, init_size=3 * batch, max_iter=20, random_state=seed)
    # Two OpenMP threads: partial sums of three or more depend on who comes first, a + b does not, and a second run
    # must give the same bits.
    with threadpool_limits(2, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than k: reported as empty clusters
        return np.ascontiguousarray(model.fit(rows).cluster_centers_, dtype=np.float32)


def assign(prepared: Prepared, centers) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid int32 (n,) and the distance to it float32 (n,), in blocks."""
    labels = np.empty(len(prepared), dtype=np.int32)
    distances = np.empty(len(prepared), dtype=np.float32)
    for block, values in prepared.blocks():
        labels[block] = nearest = _nearest(values, centers)
        # The difference itself, not the expanded square: no cancellation for rows near their centroid.
        distances[block] = np.linalg.norm(values - centers[nearest], axis=1)
    return labels, distances


def _nearest(values, centers) -> np.ndarray:
    """argmin of |x - c|^2 = argmax of x.c - |c|^2 / 2: one matrix product."""
    return (values @ centers.T - (centers**2).sum(axis=1) / 2).argmax(axis=1)


def _lloyd_pass(prepared: Prepared, centers) -> np.ndarray:
    """The mean of all rows nearest to each centroid, float32 (k, d'); an empty cluster keeps its centroid."""
    from scipy.sparse import csr_array

    sums, counts = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for _, values in prepared.blocks():
        nearest, rows = _nearest(values, centers), np.arange(len(values))
        members = csr_array((np.ones(len(values), np.float32), (nearest, rows)), shape=(len(centers), len(values)))
        sums += members @ values
        counts += np.bincount(nearest, minlength=len(centers))
    filled = counts[:, None] > 0
    return np.where(filled, sums / np.maximum(1, counts)[:, None], centers).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- quality
def silhouette(prepared: Prepared, labels, *, seed: int = 0, max_rows: int = SILHOUETTE_ROWS) -> float | None:
    """Mean of (b - a) / max(a, b), a = mean distance to the own cluster, b = to the nearest other (Rousseeuw 1987).

    Exact up to `max_rows`, above on a seeded sample of that many rows. None where the rows fall into one cluster, or
    each into its own: the measure is undefined.
    """
    from sklearn.metrics import silhouette_score

    chosen = sample_rows(len(prepared), max_rows, seed)
    labels = labels[chosen]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return None
    return float(silhouette_score(prepared.rows(chosen), labels))


def sample_rows(n: int, size: int, seed: int) -> np.ndarray:
    """All row numbers, or `size` of them drawn without replacement; ascending."""
    return np.arange(n) if n <= size else np.sort(np.random.default_rng(seed).choice(n, size, replace=False))


def contingency(labels, classes, k: int, num_classes: int) -> np.ndarray:
    """Counts int64 (k, num_classes) of class c in cluster j."""
    flat = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(classes, dtype=np.int64)
    return np.bincount(flat, minlength=k * num_classes).reshape(k, num_classes)


def purity(labels, classes) -> float:
    """Share of examples that carry the commonest class of their cluster; at least the share of the commonest class."""
    _, labels = np.unique(labels, return_inverse=True)
    _, classes = np.unique(classes, return_inverse=True)
    counts = contingency(labels, classes, labels.max() + 1, classes.max() + 1)
    return float(counts.max(axis=1).sum() / len(labels))


def normalized_mutual_information(labels, classes) -> float:
    """I(labels; classes) / mean of their entropies, in [0, 1]; 0 = independent."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes, labels))


def agreement(partitions) -> float | None:
    """Mean adjusted Rand index (Hubert & Arabie 1985) over all pairs of partitions; 1 = the same, 0 = chance."""
    from itertools import combinations

    from sklearn.metrics import adjusted_rand_score

    scores = [adjusted_rand_score(a, b) for a, b in combinations(partitions, 2)]
    return float(np.mean(scores)) if scores else None


def variance_explained(values, labels, k: int) -> float:
    """R^2 of `values` (n,) given the cluster: 1 - within / total sum of squares, adjusted for k as a regression's is,
    so that clusters that say nothing give about 0 at any k. 0 where the values do not vary."""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    total = ((values - values.mean()) ** 2).sum()
    used = int((np.bincount(labels, minlength=k) > 0).sum())
    if total == 0 or n <= used:
        return 0.0
    within = ((values - cluster_means(values, labels, k)[labels]) ** 2).sum()
    return float(max(0.0, 1 - within / total * (n - 1) / (n - used)))


def cluster_means(values, labels, k: int) -> np.ndarray:
    """Mean of `values` (n,) in each cluster, float64 (k,); NaN for an empty one."""
    counts = np.bincount(labels, minlength=k)
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, weights=np.asarray(values, dtype=np.float64), minlength=k) / counts


def extremes(clusters: Clusters, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Row numbers of the `count` examples nearest to and farthest from each centroid, nearest / farthest first."""
    order = np.lexsort((clusters.distances, clusters.labels))
    members = np.split(order, np.cumsum(clusters.sizes)[:-1])
    return [rows[:count] for rows in members], [rows[::-1][:count] for rows in members]


# --------------------------------------------------------------------------------------------------------------- facts
@dataclass(frozen=True)
class PairFacts:
    """What is known of each example beside its embedding; every array has n rows, None / {} where unknown.

    classes: int64 gold labels; genres: int64 numbers into genre_names; lengths: int64 words of all texts together;
    overlap: float32, share of the hypothesis's words that occur in the premise; supports: heuristic -> bool, whether it
    predicts entailment for the pair.
    """

    label_names: tuple[str, ...]
    classes: np.ndarray | None
    genre_names: tuple[str, ...]
    genres: np.ndarray | None
    lengths: np.ndarray
    overlap: np.ndarray | None
    supports: dict[str, np.ndarray]


def pair_facts(examples) -> PairFacts:
    """The facts of a split, from its texts, labels and genres."""
    classes = None if examples.task.regression else examples.labels
    genre_names, genres = (), None
    if examples.genres is not None:
        names, genres = np.unique(np.array(examples.genres), return_inverse=True)
        genre_names = tuple(names.tolist())
    lengths = np.array([sum(len(text.split()) for text in pair) for pair in zip(*examples.texts, strict=True)])
    overlap, supports = None, {}
    if len(examples.texts) == 2:
        from utils.overlap import overlap_share, supports_heuristics

        overlap, supports = overlap_share(*examples.texts), supports_heuristics(*examples.texts)
    return PairFacts(examples.label_names, classes, genre_names, genres, lengths, overlap, supports)


def quality(clusters: Clusters, prepared: Prepared, facts: PairFacts | None, others=(), *, seed: int = 0) -> dict:
    """Numbers for the whole partition: k, inertia, silhouette, sizes, agreement with the partitions `others` of other
    seeds and, with `facts`, purity, NMI with labels and genres, R^2 of (log) pair length and of word overlap."""
    sizes = clusters.sizes
    found = {
        "k": clusters.k,
        "inertia": clusters.inertia,
        "silhouette": silhouette(prepared, clusters.labels, seed=seed),
        "agreement_over_seeds": agreement([clusters.labels, *others]),
        "smallest": int(sizes.min()),
        "median_size": float(np.median(sizes)),
        "largest": int(sizes.max()),
        "empty": int((sizes == 0).sum()),
    }
    if facts is None:
        return found
    if facts.classes is not None:
        found["purity"] = purity(clusters.labels, facts.classes)
        found["majority_share"] = float(np.bincount(facts.classes).max() / len(facts.classes))
        found["label_nmi"] = normalized_mutual_information(clusters.labels, facts.classes)
    if facts.genres is not None:
        found["genre_nmi"] = normalized_mutual_information(clusters.labels, facts.genres)
    # Of the logarithm: one document of 15,000 words among sentences would be all the variance there is.
    found["length_r2"] = variance_explained(np.log1p(facts.lengths), clusters.labels, clusters.k)
    if facts.overlap is not None:
        found["overlap_r2"] = variance_explained(facts.overlap, clusters.labels, clusters.k)
    return found


def analyse(
    prepared: Prepared,
    ks,
    facts: PairFacts | None,
    *,
    algorithm: str = "auto",
    seed: int = 0,
    num_seeds: int = 3,
    fingerprint: str = "",
    about: dict | None = None,
) -> tuple[list[Clusters], list[dict]]:
    """k-means for every k, and its `quality`, in the order of `ks`. Each k is run with `num_seeds` seeds from `seed` on:
    the run of lowest inertia is returned, the others measure the agreement."""
    from tqdm import tqdm

    partitions, rows = [], []
    with tqdm(total=len(ks) * num_seeds, desc="k-means runs", disable=None) as progress:
        for k in ks:
            runs = []
            for run_seed in range(seed, seed + num_seeds):
                progress.set_postfix(k=k, seed=run_seed)
                runs.append(
                    kmeans(prepared, k, seed=run_seed, algorithm=algorithm, fingerprint=fingerprint, about=about)
                )
                progress.update()
            best = min(runs, key=lambda run: run.inertia)
            partitions.append(best)
            rows.append(quality(best, prepared, facts, [run.labels for run in runs if run is not best], seed=seed))
    return partitions, rows


def make_up(clusters: Clusters, facts: PairFacts | None, *, num_texts: int = 3) -> list[dict]:
    """One dict per cluster: size, mean distance, row numbers nearest and farthest; with `facts` label and genre counts,
    mean length, mean word overlap and share of pairs that support each heuristic."""
    k, labels = clusters.k, clusters.labels
    nearest, farthest = extremes(clusters, num_texts)
    columns = {"mean_distance": cluster_means(clusters.distances, labels, k)}
    tables = {}
    if facts is not None:
        columns["mean_words"] = cluster_means(facts.lengths, labels, k)
        if facts.overlap is not None:
            columns["mean_overlap"] = cluster_means(facts.overlap, labels, k)
        for name, supports in facts.supports.items():
            columns[f"supports_{name}"] = cluster_means(supports, labels, k)
        if facts.classes is not None:
            tables["labels"] = facts.label_names, contingency(labels, facts.classes, k, len(facts.label_names))
        if facts.genres is not None:
            tables["genres"] = facts.genre_names, contingency(labels, facts.genres, k, len(facts.genre_names))
    return [
        {
            "cluster": j,
            "size": size,
            **{name: float(values[j]) if size else None for name, values in columns.items()},
            **{name: dict(zip(names, counts[j].tolist(), strict=True)) for name, (names, counts) in tables.items()},
            "nearest": nearest[j].tolist(),
            "farthest": farthest[j].tolist(),
        }
        for j, size in enumerate(clusters.sizes.tolist())
    ]
