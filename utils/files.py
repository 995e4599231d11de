"""Files that are written completely or not at all, and files that are read with one clear line where they are damaged."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from utils.errors import InputError

NPY_HEADER = 128  # bytes before the numbers in a .npy file, at least
LOCK_FILE = ".lock"
LOCK_WAIT = 5.0  # seconds: a process whose parent was killed may still be ending


@contextlib.contextmanager
def folder_lock(folder, *, enabled: bool = True) -> Iterator[None]:
    """Keep other processes out of an output folder while the block runs. Creates the folder; removes it if it stays empty.
    Half-written files of a killed process are removed.

    The lock is `.lock` in the folder, held with flock: the system frees it when the process ends, however it ends.
    Raises InputError where another process still holds it after LOCK_WAIT seconds.
    """
    folder = Path(folder)
    if not enabled:
        yield
        return
    if str(folder) in ("", ".") or (folder.exists() and not folder.is_dir()):
        what = "the current folder" if str(folder) in ("", ".") else "a file, not a folder"
        raise InputError(f"--output_dir {str(folder)!r} is {what}; name a folder for the results")
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked_file(folder) as path:
        for unfinished in folder.glob(".*.tmp"):  # of `atomic_path` in a killed process
            if re.fullmatch(r"\..+\.\d+\.tmp", unfinished.name):
                unfinished.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if created:
                with contextlib.suppress(OSError):  # it holds results
                    folder.rmdir()


@contextlib.contextmanager
def _locked_file(folder: Path) -> Iterator[Path]:
    path = folder / LOCK_FILE
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        with open(path, "a", encoding="utf-8") as file:
            try:
                lock_file(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                raise InputError(
                    f"--output_dir {folder} is in use by another process; wait until it ends, or give another folder"
                ) from None
            # The process that held the lock may have removed the file between our opening and locking it.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield path
                return


def lock_file(file, how: int) -> None:
    """flock. Does nothing on a file system without locks, as some network file systems are: there the user, or Slurm, keeps
    two processes out of one folder."""
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise


def refuse_finished(folder, finished: str, overwrite: bool) -> None:
    """Raise InputError where the folder holds `finished`, the file that a script writes last, unless `overwrite`."""
    if (Path(folder) / finished).exists() and not overwrite:
        raise InputError(
            f"--output_dir {folder} holds finished results ({finished} exists); give another folder, or "
            "--overwrite_output_dir to replace them"
        )


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; rename it onto `path` when the block ends well, remove it otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_name(title: str) -> str:
    """A title as part of a file's name: small letters, digits, - and _."""
    return re.sub(r"[^\w-]+", "_", title.lower())


def write_text(path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def reserve_space(path) -> None:
    """Have the disk set aside the whole of a sparse file. Raises OSError where it is full.

    Without this, writing into a mapped file on a full disk ends the process by a signal, without a message.
    """
    if hasattr(os, "posix_fallocate"):  # Linux
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def write_json(path, value) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=to_json) + "\n")


def read_json(path, kind: type = dict):
    """The JSON in `path`, an object or of another `kind`. Raises InputError where it is missing, not JSON or not that."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also text that is not UTF-8, and numbers of 5,000 digits
        raise InputError(
            f"{path}: not readable as JSON ({str(error)[:200]}); it was cut short or is another kind of file"
        ) from None
    if not isinstance(found, kind):
        raise InputError(
            f"{path}: expected JSON of the kind {kind.__name__}, found {type(found).__name__}: another file"
        )
    return found


def save_array(path, array) -> None:
    """Write a plain .npy and look whether all of it is there. Raises OSError where the disk took less.

    numpy hands small arrays to a buffer whose last write can fail unseen.
    """
    import numpy as np

    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
    if os.stat(path).st_size < NPY_HEADER + array.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_npz(path, **arrays) -> None:
    """Write plain arrays; nothing is pickled."""
    import numpy as np

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def json_array(value, **options):
    """JSON as uint8, to stand among the arrays of an `.npz`; options: of json.dumps. `array_json` reads it back."""
    import numpy as np

    return np.frombuffer(json.dumps(value, **options).encode(), dtype=np.uint8)


def array_json(array):
    """What `json_array` was given. Raises ValueError where the bytes are not JSON."""
    return json.loads(array.tobytes())


def read_npy(path, *, name: str = "", way_out: str = "", mmap_mode: str | None = None):
    """The array of an `.npy`. Raises InputError where it cannot be read.

    name: what the message calls the file, by default its path; way_out: what the message says at its end.
    """
    import numpy as np

    name = name or str(path)
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except Exception as error:  # as in read_npz
        end = f"; {way_out}" if way_out else ""
        raise InputError(f"{name}: not a readable .npy file ({str(error)[:200]}){end}") from None


def read_npz(path, *, required: tuple[str, ...] = ()) -> dict:
    """All arrays of an `.npz`. Raises InputError where it is missing, damaged, or lacks a required array."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is one bare array, a .npy file")
        with loaded as archive:
            _check_sizes(archive)
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # zipfile, zlib, numpy and Python's parser raise a dozen unrelated types on damaged bytes.
    except Exception as error:
        raise InputError(
            f"{path}: not a readable .npz file ({str(error)[:200]}); it was cut short or is another kind of file"
        ) from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(f"{path}: holds {sorted(arrays)} but not {missing}; is it another kind of file?")
    return arrays


def _check_sizes(archive) -> None:
    """Raise ValueError where the header of an array claims more bytes than the archive holds for it: numpy would set aside
    the memory before it reads."""
    import math

    from numpy.lib import format as npy

    for member in archive.zip.infolist():
        with archive.zip.open(member) as file:
            version = npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} claims {math.prod(shape)} entries, more than the file holds")


def file_sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mismatch(folder, hashes: dict[str, str]) -> str | None:
    """What to say of the first file in the folder that is not what its sha256 says; None where all are."""
    for name, expected in hashes.items():
        if file_sha256(Path(folder) / name) != expected:
            return f"{name} does not match its checksum"
    return None


@contextlib.contextmanager
def cache_entry(folder, **about) -> Iterator[Path]:
    """Yield an empty folder to be filled with `.npy` files. It becomes `folder` when the block ends well, with `about` and
    the files' hashes in about.json: readers see a whole entry or none. A whole entry that another process made meanwhile
    stays."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        hashes = {path.name: file_sha256(path) for path in sorted(temporary.glob("*.npy"))}
        write_json(temporary / "about.json", {**about, "sha256": hashes})
        try:
            os.rename(temporary, folder)
        except OSError:
            # Another process was faster with the same content, or the folder is a half-removed entry.
            if not folder.is_dir() or entry_damage(folder):
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def entry_damage(folder) -> str | None:
    """What is wrong with an entry of a cache; None where it is whole or not there."""
    folder = Path(folder)
    if not folder.exists():
        return None
    try:
        hashes = read_json(folder / "about.json")["sha256"]
        if {path.name for path in folder.glob("*.npy")} != set(hashes):
            return "a file is missing"
        return mismatch(folder, hashes)
    except (InputError, OSError, KeyError, AttributeError, TypeError) as error:
        return str(error)


def cache_home() -> Path:
    """Where caches live unless told otherwise: $TIS_CACHE, else ~/.cache/transformers-importance-sampling."""
    return Path(os.environ.get("TIS_CACHE") or Path.home() / ".cache" / "transformers-importance-sampling")


def to_json(value):
    """JSON for numpy scalars and arrays, paths and dataclasses."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


@contextlib.contextmanager
def scratch_directory(beside):
    """A temporary folder on the same disk as `beside`, removed at the end: where a `--dry_run` writes."""
    parent = Path(beside).resolve().parent
    while not parent.exists():
        parent = parent.parent
    with tempfile.TemporaryDirectory(prefix=".dry_run_", dir=parent) as folder:
        yield Path(folder)
