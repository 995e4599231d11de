"""Training dynamics: every example's logits at several moments of training, the file that holds them, and the measures
the literature takes from them. No torch: the recorder is handed numpy arrays.
"""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.runs import InputError, atomic_path, read_npz, reserve_space, write_npz

logger = logging.getLogger(__name__)

BLOCK = 65_536  # examples worked on at a time: 12 snapshots of 3 classes are 9 MB of float32
FLOAT16_MAX = 65_504.0


@dataclass(frozen=True)
class Dynamics:
    """Logits of n examples at S moments (snapshots) of one training run.

    logits: float16 (S, n, C), NaN where an example was not seen in a snapshot; labels: int64 (n,), float32 for
    regression, which has no measures; class_names: C names; epochs: float64 (S,), when each snapshot was taken; mode:
    "train" (dropout on) or "eval"; fingerprint: that of the Examples. Raises InputError where the parts do not fit.
    Measures are per example, float32 (n,) or (S, n); NaN for an example that was never seen.
    """

    logits: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    epochs: np.ndarray
    mode: str
    fingerprint: str

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "epochs", np.asarray(self.epochs, dtype=np.float64))
        if self.logits.ndim != 3 or self.logits.shape[:2] != (len(self.epochs), len(self.labels)):
            raise InputError(
                f"dynamics: logits of shape {self.logits.shape} for {len(self.epochs)} snapshots of {len(self.labels)} examples"
            )
        if self.mode not in ("train", "eval"):
            raise InputError(f"dynamics: mode {self.mode!r} is neither train nor eval")

    @property
    def n_total(self) -> int:
        return len(self.labels)

    @property
    def num_snapshots(self) -> int:
        return len(self.epochs)

    def save(self, path) -> None:
        about = {"class_names": self.class_names, "mode": self.mode, "fingerprint": self.fingerprint}
        text = np.frombuffer(json.dumps({**about, "n_total": self.n_total}).encode(), dtype=np.uint8)
        write_npz(path, logits=self.logits, labels=self.labels, epochs=self.epochs, about=text)

    @classmethod
    def load(cls, path) -> "Dynamics":
        """Read a file written by `save`. Raises InputError where it is missing, damaged or another kind of file."""
        arrays = read_npz(path, required=("logits", "labels", "epochs", "about"))
        try:
            about = json.loads(arrays["about"].tobytes())
            return cls(
                arrays["logits"], arrays["labels"], about["class_names"], arrays["epochs"], about["mode"],
                about["fingerprint"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not training dynamics ({error!r})") from None

    # -------------------------------------------------------------------------------------------------------- measures
    def gold_probability(self) -> np.ndarray:
        """(S, n): softmax(z)[gold]."""
        return self._per_snapshot(lambda z, gold: _pick(softmax(z), gold))

    def correct(self) -> np.ndarray:
        """(S, n): 1 where the highest logit is the gold one, 0 where it is not."""
        return self._per_snapshot(
            lambda z, gold: np.where(np.isnan(z[..., 0]), np.nan, np.nan_to_num(z).argmax(-1) == gold)
        )

    def el2n_per_snapshot(self) -> np.ndarray:
        """(S, n): norm of softmax(z) - y."""
        return self._per_snapshot(error_norm)

    def loss_per_snapshot(self) -> np.ndarray:
        """(S, n): cross-entropy, in nats."""
        return self._per_snapshot(lambda z, gold: _log_sum_exp(z) - _pick(z, gold))

    def confidence(self) -> np.ndarray:
        """Mean over snapshots of the gold probability. Swayamdipta et al. 2020, arXiv 2009.10795."""
        return _mean(self.gold_probability())

    def variability(self) -> np.ndarray:
        """Standard deviation (of the population) over snapshots of the gold probability. Swayamdipta et al. 2020."""
        gold = self.gold_probability()
        return np.sqrt(_mean((gold - _mean(gold)) ** 2))

    def correctness(self) -> np.ndarray:
        """Share of snapshots in which the prediction is right. Swayamdipta et al. 2020."""
        return _mean(self.correct())

    def never_learnt(self) -> np.ndarray:
        """bool (n,): seen, and right in no snapshot. Toneva et al. 2019, arXiv 1812.05159."""
        correct = self.correct()
        return ~np.isnan(correct).all(0) & ~(correct == 1).any(0)

    def forgetting_counts(self) -> np.ndarray:
        """Forgetting events: right in one snapshot, wrong in the next in which it was seen. Toneva et al. 2019.

        A never-learnt example counts S, more than any example can be forgotten in S snapshots.
        """
        correct = self.correct()
        counts = np.zeros(self.n_total, dtype=np.float32)
        was_right = np.zeros(self.n_total, dtype=bool)
        for now in correct:
            counts += was_right & (now == 0)
            was_right = np.where(np.isnan(now), was_right, now == 1)
        counts[self.never_learnt()] = self.num_snapshots
        counts[np.isnan(correct).all(0)] = np.nan
        return counts

    def el2n(self) -> np.ndarray:
        """Mean over snapshots of the norm of p - y. Paul et al. 2021, arXiv 2107.07075 (there: over seeds)."""
        return _mean(self.el2n_per_snapshot())

    def loss(self) -> np.ndarray:
        """Mean cross-entropy over snapshots."""
        return _mean(self.loss_per_snapshot())

    def aum(self) -> np.ndarray:
        """Area under the margin: mean over snapshots of z_gold - max other z. Pleiss et al. 2020, arXiv 2001.10528."""
        return _mean(self._per_snapshot(_gold_margin))

    def _per_snapshot(self, measure) -> np.ndarray:
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError("training-dynamics measures need classes; this task is a regression")
        out = np.empty((self.num_snapshots, self.n_total), dtype=np.float32)
        for start in range(0, self.n_total, BLOCK):
            rows = slice(start, start + BLOCK)
            z = self.logits[:, rows].astype(np.float32)
            out[:, rows] = measure(z, np.broadcast_to(self.labels[rows], z.shape[:2]))
        return out


# ----------------------------------------------------------------------------------------------- measures of one logits
def softmax(z) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def error_norm(z, gold) -> np.ndarray:
    """norm(softmax(z) - y), in [0, sqrt 2]: EL2N. z: (..., C); gold: (...)."""
    p = softmax(np.asarray(z, dtype=np.float32))
    np.put_along_axis(p, gold[..., None], _pick(p, gold)[..., None] - 1, -1)
    return np.linalg.norm(p, axis=-1)


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


def _mean(values):
    """Mean over the snapshots in which an example was seen; NaN where there is none."""
    seen = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return (np.where(seen, values, 0).sum(0, dtype=np.float64) / seen.sum(0)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ recording
class DynamicsRecorder:
    """Collects logits while a model trains, in `folder`/logits.npy: float16 (num_snapshots, n, num_classes),
    memory-mapped (2.4 MB a snapshot for MNLI), so a killed run loses nothing it recorded.

    A file of the same shape that is already there is continued; one of another shape is started afresh.
    """

    def __init__(self, folder, n: int, num_classes: int, num_snapshots: int):
        self.folder = Path(folder)
        path, shape = self.folder / "logits.npy", (num_snapshots, n, num_classes)
        if _shape_of(path) != shape:
            with atomic_path(path) as temporary:
                fresh = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
                reserve_space(temporary)
                fresh[:] = np.nan
                fresh.flush()
        self._logits = np.lib.format.open_memmap(path, mode="r+")

    def record(self, snapshot: int, example_index, logits) -> None:
        """Keep logits (b, C) of those rows of the full split; a row recorded twice keeps the later ones."""
        self._logits[snapshot, example_index] = np.clip(logits, -FLOAT16_MAX, FLOAT16_MAX)

    def finish(self, path, *, labels, epochs, class_names, mode: str, fingerprint: str) -> None:
        """Write everything recorded to `path` as a `Dynamics` file and remove the folder."""
        Dynamics(self._logits, np.asarray(labels), class_names, epochs, mode, fingerprint).save(path)
        del self._logits
        shutil.rmtree(self.folder)


def _shape_of(path):
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array.shape if array.dtype == np.float16 else None


# --------------------------------------------------------------------------------------------------------------- figure
def plot_data_map(dynamics: Dynamics, path, *, max_points: int = 25_000) -> None:
    """Write the data map: confidence against variability, coloured by correctness. Swayamdipta et al. 2020."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    confidence, variability, correctness = dynamics.confidence(), dynamics.variability(), dynamics.correctness()
    seen = np.flatnonzero(~np.isnan(confidence))
    shown = np.random.default_rng(0).permutation(seen)[:max_points]
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    points = axes.scatter(
        variability[shown], confidence[shown], c=correctness[shown], s=4, alpha=0.5, linewidths=0, cmap="coolwarm_r",
        vmin=0, vmax=1,
    )  # fmt: skip
    figure.colorbar(points, label="correctness (share of snapshots)").solids.set_alpha(1)
    axes.set(xlim=(0, 0.6), ylim=(0, 1), xlabel="variability", ylabel="confidence")
    axes.set_title(
        f"Data map: {len(shown):,} of {len(seen):,} examples, {dynamics.num_snapshots} snapshots, {dynamics.mode} mode"
    )
    # Outside the half circle in which every point must lie: variability^2 <= confidence (1 - confidence).
    for x, y, name in ((0.27, 0.95, "easy-to-learn"), (0.27, 0.03, "hard-to-learn"), (0.505, 0.49, "ambiguous")):
        axes.text(x, y, name, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
