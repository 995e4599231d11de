"""The embeddings file: a float32 or float16 `.npy` whose row i is row i of the split, and a `.json` beside it that says
which examples and which model they are of.

Owns names, writing in place (resumable), reading and checking; how embeddings are computed is the extractor's business.
numpy only, so that clustering and selection run without torch.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.examples import check_same_data
from utils.errors import InputError, RunFailed
from utils.files import file_sha256, read_json, read_npy, reserve_space, write_json

logger = logging.getLogger(__name__)

# What the json must hold; `complete` is written last of all.
ABOUT_FIELDS = ("model", "task", "split", "n", "d", "fingerprint", "pooling", "layer", "complete")
_HASH_BYTES = hashlib.sha256().digest_size  # of a finished block, in <npy_path>.partial.done; zeros: not finished
BLOCK_BYTES = 64 << 20  # rows are read and checked in blocks of about this size


def embedding_paths(output_dir, task: str, split: str, kind: str = "cls_embeddings") -> tuple[Path, Path]:
    """`<output_dir>/<kind>_<task>_<split>.npy` and the `.json` beside it."""
    npy = Path(output_dir) / f"{kind}_{task}_{split}.npy"
    return npy, npy.with_suffix(".json")


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Slices that cover n float32 rows of width d, each about 64 MB."""
    step = max(1, BLOCK_BYTES // (4 * max(1, d)))
    return (slice(start, min(n, start + step)) for start in range(0, n, step))


def scatter_matrix(array, mean=None) -> np.ndarray:
    """float64 (d, d): the sum of x x^T over the rows x of array float (n, d), less `mean` (d,) where there is one."""
    found = np.zeros((array.shape[1],) * 2)
    for block in row_blocks(*array.shape):
        rows = array[block] if mean is None else array[block] - mean
        found += rows.T @ rows
    return found


class EmbeddingWriter:
    """Fills `npy_path` block by block, in place and resumable: memory does not grow with n.

    The numbers are of about["dtype"], float32 where that is not said. A block is `block_rows` consecutive rows. Until
    `finish`, everything lies under `<npy_path>.partial`, with the hash of each finished block in `.partial.done` and the
    identity `about` (model, task, split, fingerprint, pooling, layer) in `.partial.json`. A partial
    file of another identity or shape, or a damaged one, is started afresh; of a whole one, blocks that do not match their
    hash are computed again.
    """

    def __init__(self, npy_path, about: dict, n: int, d: int, block_rows: int):
        self.path = Path(npy_path)
        self.about = {**about, "n": int(n), "d": int(d)}
        self.block_rows = int(block_rows)
        self._dtype = np.dtype(about.get("dtype", "float32"))
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._done_path = self.path.with_name(self.path.name + ".partial.done")
        self._identity_path = self.path.with_name(self.path.name + ".partial.json")
        self._num_blocks = -(-n // self.block_rows)
        if not self._resumable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The identity is removed first and written last: a kill in between leaves nothing that looks resumable.
            self._identity_path.unlink(missing_ok=True)
            np.lib.format.open_memmap(self._partial, mode="w+", dtype=self._dtype, shape=(n, d)).flush()
            reserve_space(self._partial)
            self._done_path.write_bytes(bytes(self._num_blocks * _HASH_BYTES))
            write_json(self._identity_path, self._identity())
        self._values = np.lib.format.open_memmap(self._partial, mode="r+")
        self._done = np.memmap(self._done_path, dtype=np.uint8, mode="r+", shape=(self._num_blocks, _HASH_BYTES))
        for block in set(range(self._num_blocks)) - set(self.remaining_blocks()):
            if self._done[block].tobytes() != self._hash(block):
                logger.warning("%s: block %d does not match its checksum; it is computed again", self._partial, block)
                self._done[block] = 0

    def _identity(self) -> dict:
        return json.loads(json.dumps({**self.about, "block_rows": self.block_rows}))

    def _resumable(self) -> bool:
        """Whether the partial files are whole and of this identity; says so where they are damaged."""
        if not self._identity_path.exists():
            return False
        try:
            if read_json(self._identity_path) != self._identity():
                return False
            values = np.load(self._partial, mmap_mode="r", allow_pickle=False)
            whole = values.shape == (self.about["n"], self.about["d"]) and values.dtype == self._dtype
            whole = whole and self._done_path.stat().st_size == self._num_blocks * _HASH_BYTES
        except Exception:  # numpy raises a dozen unrelated types on damaged bytes
            whole = False
        if not whole:
            logger.warning("%s is damaged: starting again", self._partial)
        return whole

    def _hash(self, block: int) -> bytes:
        return hashlib.sha256(self._values[self.positions(block)].tobytes()).digest()

    def remaining_blocks(self) -> list[int]:
        """Numbers of the blocks not marked done; block b is rows b * block_rows to (b + 1) * block_rows."""
        return np.flatnonzero(~self._done.any(axis=1)).tolist()

    def positions(self, block: int) -> slice:
        """The row numbers of a block."""
        return slice(block * self.block_rows, min(self.about["n"], (block + 1) * self.block_rows))

    def write(self, rows, values) -> None:
        """Put `values` float (m, d) at row numbers `rows` int (m,). Raises RunFailed at NaN or infinity, also where only
        the file's dtype makes it one."""
        whole = np.isfinite(values).all()
        with np.errstate(over="ignore"):
            values = np.asarray(values, dtype=self._dtype)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad) and whole:
            raise RunFailed(
                f"the embedding of row {int(np.asarray(rows)[bad[0]])} holds numbers beyond {np.finfo(self._dtype).max:g}, the "
                f"largest of {self._dtype}: write float32"
            )
        if len(bad):
            raise RunFailed(
                f"the embedding of row {int(np.asarray(rows)[bad[0]])} is not finite; the checkpoint "
                f"{self.about.get('model')} is damaged or overflows in half precision: try without --fp16"
            )
        self._values[rows] = values

    def mark_done(self, block: int) -> None:
        """Count a block as finished; its values reach the disk before its mark does."""
        self._values.flush()
        self._done[block] = np.frombuffer(self._hash(block), dtype=np.uint8)
        self._done.flush()

    def finish(self) -> Path:
        """Give the file its final name, then write its json: json there means embeddings whole. Returns the path."""
        if remaining := self.remaining_blocks():
            raise RunFailed(
                f"{self._partial}: {len(remaining)} blocks are not written yet, the first is {remaining[0]}"
            )
        self._values.flush()
        sha256 = file_sha256(self._partial)  # about a second per gigabyte
        json_path = self.path.with_suffix(".json")
        json_path.unlink(missing_ok=True)  # of an earlier file: it must never describe this one
        os.replace(self._partial, self.path)
        write_json(json_path, {**self.about, "sha256": sha256, "complete": True})
        self._done_path.unlink()
        self._identity_path.unlink()
        return self.path


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
