"""Writes the embeddings file, in place and resumable; joins what shards wrote."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np

from utils.errors import InputError, RunFailed
from utils.files import LOCK_FILE, file_sha256, read_json, reserve_space, write_json
from utils.selection.embeddings import check_sha256
from utils.selection.shards import shard_rows, unfinished

logger = logging.getLogger(__name__)

_HASH_BYTES = hashlib.sha256().digest_size  # of a finished block, in <npy_path>.partial.done; zeros: not finished


def already_there(path, about: dict, shape, *, overwrite: bool = False) -> bool:
    """Whether `path` is finished and is what would be written. Raises InputError where it is something else."""
    described = path.with_suffix(".json")
    begun = path.with_name(f"{path.name}.partial.json").exists()  # then the file may be ours, of a killed command
    if path.exists() and not (described.exists() or begun or overwrite):
        raise InputError(
            f"{path} has no .json beside it, so it is not this script's; give another --output_dir or --overwrite_output_dir"
        )
    if overwrite or not (path.exists() and described.exists()):
        return False
    expected = json.loads(json.dumps({**about, "n": shape[0], "d": shape[1], "complete": True}))
    unsaid = {key: expected[key] for key in ("config", "tokenizer", "outputs", "gold_sha256") if key in expected}
    found = {"dtype": "float32", "shard": None, **unsaid, **read_json(described)}  # earlier versions do not say
    different = [
        f"{key}: {found.get(key)!r}, now {value!r}" for key, value in expected.items() if found.get(key) != value
    ]
    if different:
        raise InputError(
            f"{path} holds other embeddings ({'; '.join(different)}); give another --output_dir or --overwrite_output_dir"
        )
    check_sha256(path, found)
    return True


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

    def take(self, shard: tuple[int, int], folder: Path) -> None:
        """Copy the rows of a shard from its folder. Raises InputError where they are not finished, or are of something else."""
        span = shard_rows(self.about["n"], self.block_rows, shard)
        if span.start == span.stop:
            return
        path = folder / self.path.name
        if not already_there(path, {**self.about, "shard": shard}, (span.stop - span.start, self.about["d"])):
            raise unfinished(folder.parent, shard)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        for block in self.remaining_blocks():
            rows = self.positions(block)
            if span.start <= rows.start < span.stop:
                self.write(np.arange(rows.start, rows.stop), values[rows.start - span.start : rows.stop - span.start])
                self.mark_done(block)

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


def remove_joined(part: Path, names: list[str]) -> None:
    """Remove what was taken from a shard's folder, and the folder once it holds nothing else."""
    for name in names:
        for path in (part / name, (part / name).with_suffix(".json")):
            path.unlink(missing_ok=True)
    if all(path.name == LOCK_FILE for path in part.glob("*")):
        shutil.rmtree(part, ignore_errors=True)  # a shard without rows left no folder
