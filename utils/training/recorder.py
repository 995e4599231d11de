"""Records training dynamics while a model trains: when the snapshots are taken, and the file that collects them."""

import shutil
from pathlib import Path

import numpy as np

from utils.data.examples import Examples
from utils.data.tokens import Encoded
from utils.files import atomic_path, reserve_space
from utils.flags import DynamicsSettings
from utils.models.session import Session
from utils.selection.dynamics import Dynamics
from utils.training.loop import Hooks

DYNAMICS_FILE = "dynamics.npz"
FLOAT16_MAX = 65_504.0


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


class DynamicsHooks:
    """Hooks of the training loop that record every example's logits.

    By default the logits of the training passes are kept as they come, one snapshot an epoch, at no cost. With eval mode
    or several snapshots an epoch, each snapshot is a forward pass of its own over the training examples.
    """

    def __init__(
        self,
        session: Session,
        examples: Examples,
        data: Encoded,
        rows,
        batches,
        settings: DynamicsSettings,
        folder: Path,
    ):
        self.session, self.examples, self.data, self.batches = session, examples, data, batches
        self.settings, self.folder = settings, folder
        self.rows = np.unique(rows)
        self._kept: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.own_passes = settings.dynamics_eval_mode or settings.dynamics_per_epoch > 1
        self.steps = self._snapshot_steps()
        if session.processes.main:
            classes = max(len(examples.label_names), 1)
            self.recorder = DynamicsRecorder(folder / "dynamics", len(data), classes, len(self.steps))

    def _snapshot_steps(self) -> list[int]:
        """The number of steps after which each snapshot is taken. Snapshots of training passes belong to whole epochs."""
        batches, per_epoch = self.batches, self.settings.dynamics_per_epoch
        if self.own_passes:
            count = max(1, round(batches.num_steps / batches.steps_per_epoch * per_epoch))
        else:
            count = -(-batches.num_steps // batches.steps_per_epoch)
        ends = [round((i + 1) * batches.steps_per_epoch / per_epoch) for i in range(count)]
        return [min(max(step, 1), batches.num_steps) for step in ends]

    def attach(self, hooks: Hooks) -> None:
        if self.own_passes:
            hooks.on_step.append(self._take_snapshot)
        else:
            hooks.on_batch.append(self._keep_training_logits)
            hooks.on_save.append(self._hand_over)

    def _keep_training_logits(self, step, rows, logits, losses) -> None:
        snapshot, logits = self.batches.epoch(step), logits.float().cpu().numpy()
        if self.session.processes.size == 1:
            self.recorder.record(snapshot, rows, logits)
        else:  # micro-batches differ in number between processes: each keeps its own until the next checkpoint
            self._kept.append((snapshot, rows, logits))

    def _take_snapshot(self, done: int) -> None:
        for snapshot in (i for i, step in enumerate(self.steps) if step == done):
            dropout = not self.settings.dynamics_eval_mode
            for outputs in self.session.infer(self.data, self.rows, dropout=dropout, description="training dynamics"):
                if self.session.processes.main:
                    self.recorder.record(snapshot, outputs.rows, outputs.logits)

    def _hand_over(self) -> None:
        """Give the first process what was recorded since the last checkpoint. A continued run does not see it again."""
        for kept in self.session.processes.gather(self._kept):
            for snapshot, rows, logits in kept if self.session.processes.main else ():
                self.recorder.record(snapshot, rows, logits)
        self._kept = []

    def finish(self) -> None:
        """Write dynamics.npz."""
        self._hand_over()
        if self.session.processes.main:
            self.recorder.finish(
                self.folder / DYNAMICS_FILE,
                labels=self.examples.labels,
                epochs=np.asarray(self.steps) / self.batches.steps_per_epoch,
                class_names=self.examples.label_names,
                mode="eval" if self.settings.dynamics_eval_mode else "train",
                fingerprint=self.examples.fingerprint,
            )
