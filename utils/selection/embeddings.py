"""The embeddings file: a float32 or float16 `.npy` whose row i is row i of the split, and a `.json` beside it that says
which examples and which model they are of.

Owns names, reading and checking; `embedding_writer` writes the file. numpy only, so that clustering and selection run without
torch.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.examples import check_same_data
from utils.errors import InputError
from utils.files import file_sha256, read_json, read_npy
from utils.selection.blocks import row_blocks

logger = logging.getLogger(__name__)

# What the json must hold; `complete` is written last of all.
ABOUT_FIELDS = ("model", "task", "split", "n", "d", "fingerprint", "pooling", "layer", "complete")


def embedding_paths(output_dir, task: str, split: str, kind: str = "cls_embeddings") -> tuple[Path, Path]:
    """`<output_dir>/<kind>_<task>_<split>.npy` and the `.json` beside it."""
    npy = Path(output_dir) / f"{kind}_{task}_{split}.npy"
    return npy, npy.with_suffix(".json")


class AsFloat32:
    """A mapped array (n, d) of another precision whose rows are float32 as soon as they are read."""

    dtype = np.dtype(np.float32)

    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index) -> np.ndarray:
        return self._array[index].astype(self.dtype)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self._array.astype(dtype or self.dtype)


@dataclass(frozen=True)
class Embeddings:
    """A loaded file: `array` float32 (n, d), mapped from disk, row i = row i of the split; `about` its json; `path`."""

    array: np.ndarray
    about: dict
    path: Path

    def __len__(self) -> int:
        return len(self.array)

    @property
    def fingerprint(self) -> str:
        """That of the Examples these rows were computed from."""
        return self.about["fingerprint"]

    @property
    def source(self) -> Path:
        """How messages name these embeddings; `Examples` has the same property."""
        return self.path

    @property
    def digest(self) -> str:
        """A hash of the json and of up to 1,024 evenly spaced rows: tells embeddings of two checkpoints apart."""
        digest = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode())
        for row in np.unique(np.linspace(0, len(self) - 1, 1024, dtype=np.int64)):
            digest.update(self.array[row].tobytes())
        return digest.hexdigest()[:32]

    def check(self, examples, path=None) -> None:
        """Raise InputError unless row i of this file is row i of `examples`."""
        file = f"{path or self.path} ({self.about['task']} {self.about['split']})"
        way_out = "run get_embeddings.py on this --data_dir and split"
        check_same_data(file, len(self), self.fingerprint, examples, way_out=way_out)


def load_embeddings(path, *, trusted_for=None, values: bool = True) -> Embeddings:
    """Map the embeddings at `path`, an `.npy` file or a folder that holds exactly one embeddings file.

    trusted_for: Examples; an `.npy` file without a json is then taken to hold their embeddings, in their order. Every value
    is looked at once, in blocks, and the file is checked by the hash in its json, where there is one (about two seconds per
    gigabyte in all), unless `values` is False. Raises InputError where the file or its json is missing, unfinished,
    damaged, of another kind, or holds NaN or infinity.
    """
    path = _find(Path(path))
    bare = trusted_for is not None and not path.with_suffix(".json").exists()
    about = {} if bare else _read_about(path)
    way_out = "save it again with numpy.save" if bare else "run get_embeddings.py again"
    array = read_npy(path, way_out=way_out, mmap_mode="r")
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        found = getattr(array, "dtype", "several arrays")
        raise InputError(f"{path}: holds {found}, embeddings are float32 or float16; is it another kind of file?")
    if bare:
        about = _trust(path, array, trusted_for)
    if array.shape != (about["n"], about["d"]):
        raise InputError(
            f"{path}: has shape {array.shape}, but its json says ({about['n']}, {about['d']}); the two files do not "
            "belong together, run get_embeddings.py again"
        )
    for block in row_blocks(*array.shape) if values else ():
        finite = np.isfinite(array[block])
        if not finite.all():
            row = block.start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise InputError(f"{path}: row {row} holds NaN or infinity; run get_embeddings.py again, without --fp16")
    if values:
        check_sha256(path, about)
    return Embeddings(AsFloat32(array) if array.dtype == np.float16 else array, about, path)


def _trust(path: Path, array, examples) -> dict:
    """What a json would say of an array that has none. Raises InputError unless it has one row for each example."""
    if array.ndim != 2 or len(array) != len(examples):
        raise InputError(
            f"{path}: has shape {array.shape}, but {examples.source} has {len(examples)} rows; an .npy without a .json "
            f"beside it must have the shape ({len(examples)}, d)"
        )
    logger.warning("%s has no .json beside it: its rows are trusted to be in the order of %s", path, examples.source)
    return {
        "model": "unknown", "task": examples.task.name, "split": examples.split, "n": len(examples),
        "d": array.shape[1], "fingerprint": examples.fingerprint, "pooling": "unknown", "layer": None, "complete": True,
    }  # fmt: skip


def check_sha256(path: Path, about: dict) -> None:
    """Raise InputError where the file is not what its json says. Files of earlier versions have no hash there."""
    if "sha256" in about and file_sha256(path) != about["sha256"]:
        raise InputError(
            f"{path}: does not match the checksum in its json: it was damaged or changed; run get_embeddings.py again, with "
            "--overwrite_output_dir"
        )


def _find(path: Path) -> Path:
    if path.is_dir():
        found = sorted(path.glob("*embeddings_*.npy"))
        if not found:
            raise InputError(f"{path}: holds no embeddings (*embeddings_*.npy); get_embeddings.py makes them")
        if len(found) > 1:
            raise InputError(f"{path}: holds several embeddings; name one: {', '.join(p.name for p in found)}")
        return found[0]
    if not path.exists():
        partial = path.with_name(path.name + ".partial").exists()
        way_out = "it is unfinished: repeat the get_embeddings.py command" if partial else "get_embeddings.py makes it"
        raise InputError(f"{path}: no such file; {way_out}")
    return path


def _read_about(path: Path) -> dict:
    json_path = path.with_suffix(".json")
    if not json_path.exists():
        raise InputError(f"{path}: no {json_path.name} beside it, so what it holds is unknown; run get_embeddings.py")
    about = read_json(json_path)
    missing = [name for name in ABOUT_FIELDS if name not in about]
    if missing:
        raise InputError(f"{json_path}: lacks {', '.join(missing)}; is it another kind of file?")
    if about["complete"] is not True:
        raise InputError(f"{path}: unfinished (its json says complete = false); repeat the get_embeddings.py command")
    return about
