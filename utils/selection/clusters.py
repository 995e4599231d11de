"""The clusters file: a k-means partition of a split."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.examples import check_same_data
from utils.errors import InputError
from utils.files import array_json, json_array, read_npz, write_npz
from utils.selection.embeddings import Embeddings


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
        kinds = {name: np.asarray(getattr(self, name)).dtype for name in ("labels", "centers", "distances")}
        if kinds["labels"].kind not in "iu" or kinds["centers"].kind != "f" or kinds["distances"].kind != "f":
            raise InputError(
                f"clusters: the arrays are of other kinds ({kinds}) than whole numbers as labels and floats elsewhere"
            )
        if np.asarray(self.labels).size and np.max(self.labels) > np.iinfo(np.int32).max:
            raise InputError(f"clusters: {np.max(self.labels)} is no number of a cluster")
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
        """int64 (k,): number of examples in each cluster."""
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
            about=json_array(about, sort_keys=True),
        )

    @classmethod
    def load(cls, path) -> "Clusters":
        """Read a file written by `save`. Raises InputError where it is missing, damaged or another kind of file."""
        arrays = read_npz(path, required=("labels", "centers", "distances", "about"))
        try:
            about = array_json(arrays["about"])
            return cls(
                arrays["labels"], arrays["centers"], arrays["distances"],
                about["fingerprint"], about["n_total"], about["about"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not a clusters file ({error!r})") from None

    def check(self, other, path: str | Path = "the clusters") -> None:
        """Raise InputError unless these are clusters of exactly `other`, Examples or Embeddings."""
        way_out = "run cluster_embeddings.py on embeddings of this data"
        check_same_data(path, self.n_total, self.fingerprint, other, way_out=way_out)
        if isinstance(other, Embeddings) and self.about.get("embeddings", {}).get("digest") != other.digest:
            raise InputError(
                f"{path}: clusters of other embeddings of the same data than {other.source} (another checkpoint or "
                "pooling); run cluster_embeddings.py on this file"
            )
