"""Records training dynamics while a model trains: when the snapshots are taken, and the file that collects them."""

import shutil
from pathlib import Path

import numpy as np

from utils.data.examples import Examples
from utils.data.tokens import Encoded
from utils.errors import InputError, RunFailed
from utils.files import atomic_path, file_sha256, mismatch, read_json, reserve_space, save_array, write_json
from utils.flags import DynamicsSettings
from utils.models.session import Session
from utils.selection.dynamics import Dynamics, as_recorded
from utils.training.loop import Hooks

DYNAMICS_FILE = "dynamics.npz"
RECORD_FILE = "record.json"  # in the recorder's folder: which files hold what, and their hashes
FEW_SNAPSHOTS = 16  # so many may be asked for, also of a run with fewer steps


class DynamicsRecorder:
    """Collects logits while a model trains: float16 (n, num_classes) for each of num_snapshots, NaN where a row was not
    seen. `save` keeps everything in `folder` (2.4 MB a snapshot for MNLI), with a hash of each file; `resume` reads it back.
    """

    def __init__(self, folder, n: int, num_classes: int, num_snapshots: int):
        self.folder = Path(folder)
        self.shape = (num_snapshots, n, num_classes)
        self._open: dict[int, np.ndarray] = {}  # changed since the last `save`
        self._files: dict[str, list[str]] = {}  # snapshot -> name and hash of its file

    def resume(self, steps_done: int) -> None:
        """Go on after so many steps with what was saved then or later.

        Raises InputError where that is lost or damaged: the steps before are not trained again, so their logits are gone.
        """
        if not steps_done:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif problem := self._damage(steps_done):
            raise InputError(
                f"{self.folder}: the training dynamics of the first {steps_done} steps are damaged ({problem}) and cannot be "
                "recorded again; start the run afresh with --overwrite_output_dir"
            )

    def _damage(self, steps_done: int) -> str | None:
        """Read the record of what was saved; what is wrong with it or with the files, None where nothing is."""
        try:
            record = read_json(self.folder / RECORD_FILE)
            if record["shape"] != list(self.shape) or record["steps_done"] < steps_done:
                return f"{RECORD_FILE} is of other or earlier steps"
            problem = mismatch(self.folder, dict(record["files"].values()))
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return str(error)
        self._files = record["files"]
        return problem

    def record(self, snapshot: int, example_index, logits) -> None:
        """Keep logits (b, C) of those rows of the full split; a row recorded twice keeps the later ones.

        Raises RunFailed at NaN, which would count as a row that was not seen.
        """
        bad = np.flatnonzero(np.isnan(logits).any(axis=1))
        if len(bad):
            raise RunFailed(
                f"training dynamics: the logits of row {np.asarray(example_index)[bad[0]]} are NaN: the training has "
                "diverged, or overflows in half precision"
            )
        if snapshot not in self._open:
            self._open[snapshot] = self._values(snapshot)
        self._open[snapshot][example_index] = as_recorded(logits)

    def _values(self, snapshot: int) -> np.ndarray:
        if snapshot in self._open:
            return self._open[snapshot]
        if str(snapshot) in self._files:
            return np.load(self.folder / self._files[str(snapshot)][0], allow_pickle=False)
        return np.full(self.shape[1:], np.nan, dtype=np.float16)

    def save(self, steps_done: int) -> None:
        """Write what was recorded up to this step. A crash in between leaves what was saved before."""
        for snapshot, values in self._open.items():
            path = self.folder / f"snapshot_{snapshot}_step_{steps_done}.npy"
            with atomic_path(path) as temporary:
                save_array(temporary, values)
            self._files[str(snapshot)] = [path.name, file_sha256(path)]
        write_json(
            self.folder / RECORD_FILE, {"steps_done": steps_done, "shape": list(self.shape), "files": self._files}
        )
        self._open.clear()
        kept = {name for name, _ in self._files.values()}
        for path in self.folder.glob("snapshot_*.npy"):
            if path.name not in kept:
                path.unlink()

    def finish(self, path, *, labels, epochs, class_names, mode: str, fingerprint: str) -> None:
        """Write everything recorded to `path` as a `Dynamics` file and remove the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        together = self.folder / "logits.npy"
        logits = np.lib.format.open_memmap(together, mode="w+", dtype=np.float16, shape=self.shape)
        reserve_space(together)
        for snapshot in range(len(logits)):
            logits[snapshot] = self._values(snapshot)
        Dynamics(logits, np.asarray(labels), class_names, epochs, mode, fingerprint).save(path)
        del logits
        shutil.rmtree(self.folder)


class DynamicsHooks:
    """Hooks of the training loop that record every example's logits.

    By default the logits of the training passes are kept as they come, one snapshot an epoch, at no cost. With eval mode,
    several snapshots an epoch, or all rows, each snapshot is a forward pass of its own.
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
        self.rows = np.arange(len(data)) if settings.dynamics_all_rows else np.unique(rows)
        self._kept: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.own_passes = settings.dynamics_eval_mode or settings.dynamics_all_rows or settings.dynamics_per_epoch > 1
        self.steps = self._snapshot_steps()
        self._steps_done: int | None = None  # None before the first step of this process
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
        if count > max(batches.num_steps, FEW_SNAPSHOTS):
            raise InputError(
                f"--dynamics_per_epoch {per_epoch}: an epoch has {batches.steps_per_epoch} steps; ask for at most as many "
                "snapshots"
            )
        ends = [round((i + 1) * batches.steps_per_epoch / per_epoch) for i in range(count)]
        return [min(max(step, 1), batches.num_steps) for step in ends]

    def attach(self, hooks: Hooks) -> None:
        if self.own_passes:
            hooks.on_step.append(self._take_snapshot)
        else:
            hooks.on_batch.append(self._keep_training_logits)
        hooks.on_step.append(self._count)
        hooks.on_save.append(self._save)

    def _count(self, done: int) -> None:
        self._begin(done - 1)
        self._steps_done = done

    def _begin(self, steps_done: int) -> None:
        """Once, before the first step of this process: load what an earlier process recorded in `steps_done` steps."""
        if self._steps_done is not None:
            return
        if self.session.processes.main:
            self.recorder.resume(steps_done)
        self._steps_done = steps_done

    def _save(self) -> None:
        self._hand_over()
        if self.session.processes.main:
            self.recorder.save(self._steps_done)

    def _keep_training_logits(self, step, rows, logits, losses) -> None:
        self._begin(step)
        snapshot, logits = self.batches.epoch(step), logits.float().cpu().numpy()
        if self.session.processes.size == 1:
            self.recorder.record(snapshot, rows, logits)
        else:  # micro-batches differ in number between processes: each keeps its own until the next checkpoint
            self._kept.append((snapshot, rows, logits))

    def _take_snapshot(self, done: int) -> None:
        self._begin(done - 1)
        for snapshot in (i for i, step in enumerate(self.steps) if step == done):
            dropout = not self.settings.dynamics_eval_mode
            for outputs in self.session.infer(self.data, self.rows, dropout=dropout, description="training dynamics"):
                if self.session.processes.main:
                    self.recorder.record(snapshot, outputs.rows, outputs.logits)

    def _hand_over(self) -> None:
        """Give the first process what was recorded since the last checkpoint: a run that continues does not compute it again."""
        for kept in self.session.processes.gather(self._kept):
            for snapshot, rows, logits in kept if self.session.processes.main else ():
                self.recorder.record(snapshot, rows, logits)
        self._kept = []

    def finish(self) -> None:
        """Write dynamics.npz."""
        self._begin(self.steps[-1])  # where no step was left to train
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
