"""How good a clustering is, and what is in its clusters."""

from dataclasses import dataclass

import numpy as np

from utils.selection.clusters import Clusters
from utils.selection.kmeans import Prepared, kmeans

SILHOUETTE_ROWS = 5_000  # pairwise distances of these: 100 MB


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
        from utils.data.overlap import overlap_share, supports_heuristics

        pair = examples.premise_first
        overlap, supports = overlap_share(*pair), supports_heuristics(*pair)
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
    found=None,
) -> tuple[list[Clusters], list[dict]]:
    """k-means for every k, and its `quality`, in the order of `ks`. Each k is run with `num_seeds` seeds from `seed` on:
    the run of lowest inertia is returned, the others measure the agreement. found(k, seed): centroids, labels and
    distances that shards have computed already."""
    from tqdm import tqdm

    partitions, rows = [], []
    with tqdm(total=len(ks) * num_seeds, desc="k-means runs", disable=None) as progress:
        for k in ks:
            runs = []
            for run_seed in range(seed, seed + num_seeds):
                progress.set_postfix(k=k, seed=run_seed)
                known = found and found(k, run_seed)
                runs.append(
                    kmeans(
                        prepared,
                        k,
                        seed=run_seed,
                        algorithm=algorithm,
                        fingerprint=fingerprint,
                        about=about,
                        found=known,
                    )
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
