"""Training dynamics: every example's logits at several moments of training, and the measures taken from them."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from utils.data.logits import _gold_margin, _log_sum_exp, _pick, error_norm, softmax
from utils.errors import InputError
from utils.files import array_json, json_array, read_npz, write_npz

BLOCK = 65_536  # examples worked on at a time: 12 snapshots of 3 classes are 9 MB of float32
FLOAT16_MAX = 65_504.0
SAME_EPOCH = 0.005  # epochs are printed with two decimals, and a printed one must be found again


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
        if np.isinf(self.logits).any():
            raise InputError("dynamics: the logits hold infinity; the file is damaged")
        if not np.isfinite(self.epochs).all():
            raise InputError("dynamics: the epochs of the snapshots are not all finite numbers; the file is damaged")
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
        text = json_array({**about, "n_total": self.n_total})
        write_npz(path, logits=self.logits, labels=self.labels, epochs=self.epochs, about=text)

    @classmethod
    def load(cls, path) -> "Dynamics":
        """Read a file written by `save`. Raises InputError where it is missing, damaged or another kind of file."""
        arrays = read_npz(path, required=("logits", "labels", "epochs", "about"))
        try:
            about = array_json(arrays["about"])
            return cls(
                arrays["logits"], arrays["labels"], about["class_names"], arrays["epochs"], about["mode"],
                about["fingerprint"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not training dynamics ({error!r:.200})") from None

    def at_epoch(self, epoch: float) -> "Dynamics":
        """The snapshots that were taken at this epoch alone. Raises InputError where there is none."""
        taken = np.abs(self.epochs - epoch) < SAME_EPOCH
        if not taken.any():
            known = ", ".join(f"{known:.2f}" for known in self.epochs)
            raise InputError(
                f"--score_epoch {epoch:g}: no snapshot was taken then; there are snapshots of epochs {known}"
            )
        return dataclasses.replace(self, logits=self.logits[taken], epochs=self.epochs[taken])

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
        return mean_where_seen(self.gold_probability())

    def variability(self) -> np.ndarray:
        """Standard deviation (of the population) over snapshots of the gold probability. Swayamdipta et al. 2020."""
        gold = self.gold_probability()
        return np.sqrt(mean_where_seen((gold - mean_where_seen(gold)) ** 2))

    def correctness(self) -> np.ndarray:
        """Share of snapshots in which the prediction is right. Swayamdipta et al. 2020."""
        return mean_where_seen(self.correct())

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

    def right_for_good(self) -> np.ndarray:
        """The snapshot, counted from 1, from which the prediction stays right; S + 1 where it ends wrong.

        The learning time of Maini et al. 2022, arXiv 2210.15031.
        """
        return _after_the_last(self.correct(), 0)

    def wrong_for_good(self) -> np.ndarray:
        """The snapshot, counted from 1, from which the prediction stays wrong; S + 1 where it ends right.

        In a run that goes on with other examples, the forgetting time of Maini et al. 2022.
        """
        return _after_the_last(self.correct(), 1)

    def el2n(self) -> np.ndarray:
        """Mean over snapshots of the norm of p - y. Paul et al. 2021, arXiv 2107.07075 (there: over seeds)."""
        return mean_where_seen(self.el2n_per_snapshot())

    def loss(self) -> np.ndarray:
        """Mean cross-entropy over snapshots."""
        return mean_where_seen(self.loss_per_snapshot())

    def aum(self) -> np.ndarray:
        """Area under the margin: mean over snapshots of z_gold - max other z. Pleiss et al. 2020, arXiv 2001.10528."""
        return mean_where_seen(self._per_snapshot(_gold_margin))

    def probability_margin(self) -> np.ndarray:
        """Mean over snapshots of p_gold - max other p: what the code of Zheng et al. 2023 takes for the margin of AUM."""
        return mean_where_seen(self._per_snapshot(lambda z, gold: _gold_margin(softmax(z), gold)))

    def _per_snapshot(self, measure) -> np.ndarray:
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError("training-dynamics measures need classes; this task is a regression")
        out = np.empty((self.num_snapshots, self.n_total), dtype=np.float32)
        for start in range(0, self.n_total, BLOCK):
            rows = slice(start, start + BLOCK)
            z = self.logits[:, rows].astype(np.float32)
            out[:, rows] = measure(z, np.broadcast_to(self.labels[rows], z.shape[:2]))
        return out


def as_recorded(logits) -> np.ndarray:
    """float16, as dynamics are stored; what float16 does not hold becomes its largest number."""
    return np.clip(logits, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)


def _after_the_last(correct, value: int) -> np.ndarray:
    """Number of the snapshot after the last one with this value, from 1; NaN for an example that was never seen."""
    numbers = np.arange(1, len(correct) + 1)[:, None]
    after = 1 + (numbers * (correct == value)).max(0)
    return np.where(np.isnan(correct).all(0), np.nan, after).astype(np.float32)


def mean_where_seen(values):
    """Mean over the first axis (snapshots, or runs) where a value is known; NaN where there is none."""
    seen = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return (np.where(seen, values, 0).sum(0, dtype=np.float64) / seen.sum(0)).astype(np.float32)
