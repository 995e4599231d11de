"""Records training dynamics while a model trains."""

import shutil
from pathlib import Path

import numpy as np

from utils.files import atomic_path, reserve_space
from utils.selection.dynamics import Dynamics

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
