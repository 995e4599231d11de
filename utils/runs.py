"""A run's outside: errors that reach the user as one line, files that are whole or absent, logging, JSON arguments,
the run directory. Knows nothing of tasks, models or data; imports the standard library only, so every script's
`--help` stays fast.
"""

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

logger = logging.getLogger(__name__)

EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: saved, run the same command again
RESULTS_FILE = "results.json"  # written last: it exists means the run is finished
RUN_FILE = "run.json"  # written first
CARD_FILE = "selection.json"  # what is in the chosen examples


class InputError(ValueError):
    """Something the user gave cannot be used. The message names the file, row or flag, what was found and what to do."""


class Interrupted(Exception):
    """A stop signal arrived and the state is saved; the message says how to go on."""


class RunFailed(RuntimeError):
    """The run cannot go on (non-finite loss, out of memory at the smallest size); the message says where and why."""


def run_script(main):
    """Call `main()` and turn every foreseen failure into one line on stderr and its own exit status.

    2 bad input, 75 stopped by a signal with the state saved, 130 Ctrl-C outside training,
    1 failed (full disk, NaN loss). Anything else is a defect of ours and keeps its traceback.
    """
    prog = Path(sys.argv[0]).name
    try:
        main()
        return
    except InputError as error:
        message, status = f"error: {error}", EXIT_BAD_INPUT
    except Interrupted as stop:
        message, status = f"stopped: {stop}", EXIT_INTERRUPTED
    except RunFailed as error:
        message, status = f"failed: {error}", EXIT_FAILED
    except KeyboardInterrupt:
        message, status = (
            "stopped by Ctrl-C; finished files and checkpoints are kept. Run the same command again to continue",
            130,
        )
    except BrokenPipeError:  # `script | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        number = _errno(error)
        if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        where = f" while writing {error.filename}" if getattr(error, "filename", None) else ""
        message = f"failed: {os.strerror(number)}{where}; files already finished are untouched. Free space or choose another --output_dir, then run the same command again"
        status = EXIT_FAILED
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(status)


def _errno(error: Exception) -> int | None:
    """The system's error number. safetensors and tokenizers, written in Rust, have it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def setup_logging(*, main_process: bool = True) -> None:
    """Log to stderr; only warnings from processes other than the first, and from noisy libraries."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if main_process else logging.ERROR,
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("transformers", "datasets", "accelerate", "matplotlib", "fsspec", "urllib3", "filelock", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


# --------------------------------------------------------------------------------------------------------------- files
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


def write_text(path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def reserve_space(path) -> None:
    """Have the disk set the whole of a sparse file aside. Writing into a mapped file on a full disk is no error but a
    signal that ends the process without a word; here it is an OSError."""
    if hasattr(os, "posix_fallocate"):  # Linux
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def write_json(path, value) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def read_json(path, kind: type = dict):
    """The JSON in `path`, an object or of another `kind`. Raises InputError where it is missing, not JSON or not that."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not readable as JSON ({error}); it was cut short or is another kind of file"
        ) from None
    if not isinstance(found, kind):
        raise InputError(
            f"{path}: expected JSON of the kind {kind.__name__}, found {type(found).__name__}: another file"
        )
    return found


def write_npz(path, **arrays) -> None:
    """Write plain arrays; nothing is pickled."""
    import numpy as np

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_npz(path, *, required: tuple[str, ...] = ()) -> dict:
    """All arrays of an `.npz`. Raises InputError where it is missing, damaged, or lacks a required array."""
    import zipfile
    import zlib

    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is one bare array, a .npy file")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # zipfile answers damaged flags with RuntimeError, as if the file were encrypted or of a newer zip version.
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not a readable .npz file ({error}); it was cut short or is another kind of file"
        ) from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(f"{path}: holds {sorted(arrays)} but not {missing}; is it another kind of file?")
    return arrays


def file_sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_home() -> Path:
    """Where caches live unless told otherwise: $TIS_CACHE, else ~/.cache/transformers-importance-sampling."""
    return Path(os.environ.get("TIS_CACHE") or Path.home() / ".cache" / "transformers-importance-sampling")


def _plain(value):
    """JSON for numpy scalars and arrays, paths and dataclasses."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# ----------------------------------------------------------------------------------------------------------- arguments
def parse_args(parser: argparse.ArgumentParser, argv=None) -> argparse.Namespace:
    """Parse the command line, or the one JSON file that stands in for it, as in the Hugging Face scripts."""
    return parser.parse_args(command_line(parser, argv))


def command_line(parser: argparse.ArgumentParser, argv=None) -> list[str]:
    """The words of the command line; of the JSON file, where one is all there is.

    In the file `true` sets a flag, `false` and `null` leave it alone, a list gives several values.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if len(argv) != 1 or not argv[0].endswith(".json"):
        return argv
    try:
        options = read_json(argv[0])
    except InputError as error:
        parser.error(str(error))
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.extend(str(item) for item in (value if isinstance(value, list) else [value]))
    return words


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations (a mistyped flag is an error, not a guess) and with errors on one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)

    def error(self, message):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Docstrings as written, defaults where there is one to show."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def positive_int(text: str) -> int:
    value = _number(text, int)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def non_negative_int(text: str) -> int:
    value = _number(text, int)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive_float(text: str) -> float:
    value = _number(text, float)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def non_negative_float(text: str) -> float:
    value = _number(text, float)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def data_fraction(text: str) -> float:
    """A share of the data in (0, 1]. 10 is refused rather than guessed at."""
    value = _number(text, float)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than everything; it is a fraction: 0.1 means 10 %")
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} selects nothing; it is a fraction above 0: 0.1 means 10 %")
    return value


def _number(text, kind):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None


# ------------------------------------------------------------------------------------------------------- run directory
# Arguments that do not change what a run computes: an interrupted run may be continued with other values.
FREE_ARGUMENTS = frozenset(
    "output_dir overwrite_output_dir overwrite_cache cache_dir data_dir selection logging_steps save_steps "
    "save_total_limit report_to dry_run tokens_per_micro_batch".split()
)


class RunDirectory:
    """`--output_dir` of one run: `run.json` first, `results.json` last.

    A finished directory is refused, an unfinished one of the same arguments is continued, one of other arguments is
    refused; `overwrite` starts afresh. Construction changes nothing on disk; `begin` does.
    """

    def __init__(self, path, *, script: str, arguments: dict, overwrite: bool = False, main_process: bool = True):
        self.path = Path(path)
        self.script = script
        self.arguments = arguments
        self.overwrite = overwrite
        self.main_process = main_process
        self.started = time.time()
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--output_dir {path} is a file, not a folder")
        if (self.path / RESULTS_FILE).exists() and not overwrite:
            raise InputError(
                f"--output_dir {path} holds a finished run ({RESULTS_FILE} exists); give another folder, or "
                "--overwrite_output_dir to replace it"
            )
        self.resuming = (self.path / RUN_FILE).exists() and not overwrite
        if self.resuming:
            self._check_same_run()

    def _check_same_run(self):
        before = read_json(self.path / RUN_FILE)
        if before.get("script") != self.script:
            raise InputError(
                f"--output_dir {self.path} holds an unfinished run of {before.get('script')}; give another folder, or "
                "--overwrite_output_dir to replace it"
            )
        old, new = before.get("arguments", {}), json.loads(json.dumps(self.arguments, default=_plain))
        changed = [
            f"--{name} was {old.get(name)!r}, now {new.get(name)!r}"
            for name in sorted(old.keys() | new.keys())
            if name not in FREE_ARGUMENTS and old.get(name) != new.get(name)
        ]
        if changed:
            raise InputError(
                f"--output_dir {self.path} holds an unfinished run with other arguments ({'; '.join(changed)}); repeat "
                "them to continue it, give another folder, or --overwrite_output_dir to replace it"
            )

    def begin(self, **facts) -> None:
        """Create the folder and write `run.json` with `facts` (what data, what selection); a continued run must have
        the same ones. With `overwrite`, remove what an earlier run of ours left there."""
        facts = json.loads(json.dumps(facts, default=_plain))
        if self.resuming:
            before = read_json(self.path / RUN_FILE)
            for name, value in facts.items():
                if before.get(name) != value:
                    raise InputError(
                        f"--output_dir {self.path} holds an unfinished run on other {name} ({before.get(name)}, now "
                        f"{value}); give another folder, or --overwrite_output_dir to replace it"
                    )
        if not self.main_process:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if self.overwrite:
            # results.json goes first: a crash in between must not leave a folder that looks finished.
            for name in (
                RESULTS_FILE,
                RUN_FILE,
                "log.jsonl",
                "eval_log.json",
                "dynamics.npz",
                "data_map.png",
                "selection.npz",
            ):
                (self.path / name).unlink(missing_ok=True)
            for name in ("checkpoints", "dynamics"):
                shutil.rmtree(self.path / name, ignore_errors=True)
        for unfinished in self.path.glob(".*.tmp"):  # of a killed run
            unfinished.unlink(missing_ok=True)
        if not self.resuming:
            write_json(
                self.path / RUN_FILE,
                {"script": self.script, "arguments": self.arguments, "versions": versions(), **facts},
            )

    def finish(self, results: dict) -> None:
        """Write `results.json`: from here on the run counts as done."""
        if self.main_process:
            write_json(self.path / RESULTS_FILE, results)


def versions() -> dict:
    """Versions of Python, of the libraries that decide a result, and of this code (git commit where known)."""
    from importlib import metadata

    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "scikit-learn", "scipy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    found["code"] = code_version()
    return found


def code_version() -> str | None:
    """The git commit of this code, with `+` where the working tree differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        git = ["git", "-C", str(root)]
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        if top.returncode or Path(top.stdout.strip()).resolve() != root:
            return None
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=10
        )
        return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        return None


class StopSignal:
    """SIGTERM and Ctrl-C asked for, answered at the next safe place: `stop.requested` becomes the signal's name.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self):
        self.requested: str | None = None
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: the caller has its own handling
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


@contextlib.contextmanager
def scratch_directory(beside):
    """A temporary folder on the same disk as `beside`, removed at the end: where a `--dry_run` writes."""
    parent = Path(beside).resolve().parent
    while not parent.exists():
        parent = parent.parent
    with tempfile.TemporaryDirectory(prefix=".dry_run_", dir=parent) as folder:
        yield Path(folder)
