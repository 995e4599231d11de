"""`Selection`: which training rows, how much each counts, where that came from. The exchange format of the project.

Owns the file, its checks and the importance-weight formulas; how rows are chosen is the business of `strategies`.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.examples import check_same_data
from utils.errors import InputError, quoted
from utils.files import array_json, json_array, read_npz, write_npz


@dataclass(frozen=True)
class Selection:
    """m chosen rows of a split of n_total rows.

    indices: int64 (m,), rows of the full split, repeats allowed; weights: float32 (m,), finite and >= 0, the loss is
    mean(weights * loss); fingerprint: that of the Examples the rows refer to; ordered: visit in this order (a
    curriculum), never shuffled; scores: float32 (n_total,) that the choice went by, or None: higher = kept
    first, or drawn more often; of ccs, cluster_ccs and d2 the difficulty, whose highest they do not all keep;
    provenance: method, parameters, seed, inputs. Raises InputError where the parts do not fit together.
    """

    indices: np.ndarray
    weights: np.ndarray
    n_total: int
    fingerprint: str
    ordered: bool = False
    scores: np.ndarray | None = None
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        kind = np.asarray(self.indices).dtype
        if len(self.indices) and kind.kind not in "iu":  # a mask would pass as rows 0 and 1
            raise InputError(f"selection: indices are {kind}, not row numbers (of a mask: np.flatnonzero)")
        for name in ("weights", "scores"):
            values = getattr(self, name)
            if values is not None and np.asarray(values).dtype.kind not in "fiu":
                raise InputError(f"selection: {name} are {np.asarray(values).dtype}, not numbers")
        object.__setattr__(self, "indices", np.ascontiguousarray(self.indices, dtype=np.int64))
        object.__setattr__(self, "weights", np.ascontiguousarray(self.weights, dtype=np.float32))
        if self.scores is not None:
            object.__setattr__(self, "scores", np.ascontiguousarray(self.scores, dtype=np.float32))
        if self.indices.ndim != 1 or self.indices.shape != self.weights.shape:
            raise InputError(f"selection: {self.indices.shape} indices but {self.weights.shape} weights")
        if len(self.indices) == 0:
            raise InputError("selection: it selects nothing")
        low, high = int(self.indices.min()), int(self.indices.max())
        if low < 0 or high >= self.n_total:
            raise InputError(f"selection: row {low if low < 0 else high} is outside the split of {self.n_total} rows")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or not self.weights.any():
            raise InputError("selection: weights must be finite, not negative, and not all zero")
        if self.scores is not None and self.scores.shape != (self.n_total,):
            raise InputError(f"selection: {self.scores.shape} scores for {self.n_total} rows")

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def effective_sample_size(self) -> float:
        """(sum w)^2 / sum w^2 (Kish): how many equally weighted examples carry the same variance."""
        return effective_sample_size(self.weights)

    @property
    def digest(self) -> str:
        """A hash of rows, weights and `ordered`: the same for two selections that train alike."""
        ordered = b"ordered" if self.ordered else b""
        return hashlib.sha256(self.indices.tobytes() + self.weights.tobytes() + ordered).hexdigest()[:32]

    def save(self, path) -> None:
        """Write the `.npz` that `load` reads."""
        arrays = {"indices": self.indices, "weights": self.weights}
        if self.scores is not None:
            arrays["scores"] = self.scores
        about = {
            "n_total": int(self.n_total),
            "fingerprint": self.fingerprint,
            "ordered": bool(self.ordered),
            "provenance": self.provenance,
        }
        text = json_array(about, sort_keys=True, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
        write_npz(path, **arrays, about=text)

    @classmethod
    def load(cls, path) -> "Selection":
        """Read a file written by `save`. Raises InputError where it is missing, damaged or another kind of file."""
        arrays = read_npz(path, required=("indices", "weights", "about"))
        try:
            about = array_json(arrays["about"])
            for name, kind in (("n_total", int), ("fingerprint", str), ("ordered", bool), ("provenance", dict)):
                if type(about[name]) is not kind:
                    raise InputError(
                        f"not a Selection: {name} is {quoted(about[name])}, not of the kind {kind.__name__}"
                    )
            return cls(
                arrays["indices"], arrays["weights"], about["n_total"], about["fingerprint"], about["ordered"],
                arrays.get("scores"), about["provenance"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not a Selection ({error!r})") from None

    @classmethod
    def everything(cls, n: int, fingerprint: str) -> "Selection":
        """All n rows, each with weight 1."""
        return cls(np.arange(n), np.ones(n), n, fingerprint, provenance={"method": "all"})

    def check(self, examples, *, path: str | Path = "the selection") -> None:
        """Raise InputError unless this selection was made for exactly these examples."""
        check_same_data(path, self.n_total, self.fingerprint, examples, way_out="select again from this data")

    def take(self, positions, **provenance) -> "Selection":
        """The selection of those positions of this one; weights go along."""
        return Selection(
            self.indices[positions], self.weights[positions], self.n_total, self.fingerprint, self.ordered,
            self.scores, {**self.provenance, **provenance},
        )  # fmt: skip


def budget(n: int, *, data_pct: float | None = None, num_examples: int | None = None) -> int:
    """m = round(data_pct * n), or num_examples. Raises InputError where that is 0 or above n."""
    if (data_pct is None) == (num_examples is None):
        raise InputError("give exactly one of --data_pct and --num_examples")
    if data_pct is not None and not 0 < data_pct <= 1:
        raise InputError(f"--data_pct {data_pct:g} is outside (0, 1]; it is a fraction: 0.1 means 10 %")
    m = round(data_pct * n) if data_pct is not None else num_examples
    if not 1 <= m <= n:
        asked = f"--data_pct {data_pct:g}" if data_pct is not None else f"--num_examples {num_examples}"
        raise InputError(f"{asked} is {m} of {n} examples; choose at least 1 and at most {n}")
    return m


def effective_sample_size(weights) -> float:
    """(sum w)^2 / sum w^2 of weights (m,), computed in float64."""
    weights = np.asarray(weights, dtype=np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())


def weights_without_replacement(inclusion_probability, n: int) -> np.ndarray:
    """w = (m/n) / pi for the drawn examples, m the expected sample size: sum(w * loss) / m is unbiased for the full
    mean (Horvitz-Thompson). `inclusion_probability` (n,) for all n; returns float32 (n,) weights, index them by row."""
    pi = np.asarray(inclusion_probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(pi > 0, pi.sum() / n / pi, 0).astype(np.float32)


def weights_with_replacement(sampling_probability, n: int) -> np.ndarray:
    """w = 1 / (n p) for the drawn examples: mean(w * loss) is unbiased for the full mean (Hansen-Hurwitz)."""
    p = np.asarray(sampling_probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(p > 0, 1 / (n * p), 0).astype(np.float32)


def random_ranking(n: int, seed: int) -> np.ndarray:
    """int64 (n,): a random order of n rows. Its first m are the random subset of size m, so subsets nest."""
    return np.random.default_rng(seed).permutation(n)
