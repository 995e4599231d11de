"""How a script ends: errors that the user sees as one line, exit statuses, and stop signals.

`run_script` is the one boundary. Whatever a file, a model or a number can raise becomes one line there; only a defect of
this project keeps its traceback.
"""

import contextlib
import errno
import json
import os
import re
import signal
import sys
from pathlib import Path

EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the state is saved, the same command continues
EXIT_CTRL_C = 130  # 128 + the number of SIGINT, as shells count

# The disk takes nothing more. The input is not wrong, but the run cannot go on.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
MAX_MESSAGE = 1500  # characters: a message that quotes a damaged file is cut


class InputError(ValueError):
    """Something the user gave cannot be used. The message names the file, row or flag, what was found and what to do."""


class Interrupted(Exception):
    """A stop signal arrived and the state is saved. The message says how to continue."""


class RunFailed(RuntimeError):
    """The run cannot go on (non-finite loss, out of memory at the smallest size). The message says where and why."""


def quoted(found, most: int = 80) -> str:
    """What was found in a file, as a message shows it: cut where it is long."""
    text = repr(found[: most + 1]) if isinstance(found, str) else repr(found)
    return text if len(text) <= most + 2 else f"{text[:most]}...{text[0]}"


def same_command() -> str:
    """What to run to go on after a stop, for a message. --overwrite_output_dir, on the command line or in the JSON file that
    stands in for it, would begin afresh."""
    overwrites = "--overwrite_output_dir" in sys.argv
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        with contextlib.suppress(OSError, ValueError):
            flags = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
            overwrites = isinstance(flags, dict) and flags.get("overwrite_output_dir") is True
    return "the same command again" + (" without --overwrite_output_dir" if overwrites else "")


def run_script(main) -> None:
    """Call `main()`; turn every foreseen failure into one line on stderr and its exit status.

    2: unusable input. 75: stopped by a signal with the state saved. 130: Ctrl-C where there was nothing to save.
    1: failed (full disk, NaN loss, out of memory). A defect of this project keeps its traceback and exits with 1.
    """
    try:
        main()
        return
    except BrokenPipeError:  # `script | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        found = _explain(error)
        if found is None:
            _say("this is a defect of the program, not of your input; please report it with the traceback below")
            raise
        message, status = found
    _say(message)
    sys.exit(status)


def _explain(error: BaseException) -> tuple[str, int] | None:
    """The line for the user and the exit status; None for a defect."""
    if isinstance(error, InputError):
        return f"error: {error}", EXIT_BAD_INPUT
    if isinstance(error, Interrupted):
        return f"stopped: {error}", EXIT_INTERRUPTED
    if isinstance(error, RunFailed):
        return f"failed: {error}", EXIT_FAILED
    if isinstance(error, KeyboardInterrupt):
        return (
            f"stopped by Ctrl-C; finished files and checkpoints are kept. Run {same_command()} to continue",
            EXIT_CTRL_C,
        )
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        found = error.object[max(0, error.start - 30) : error.end + 10]
        return f"error: {quoted(found)}: this name is not UTF-8; rename the file or folder", EXIT_BAD_INPUT
    if isinstance(error, MemoryError):
        return "failed: out of memory; use a smaller model, fewer examples or a larger machine", EXIT_FAILED
    number = _errno(error)
    if number in _DISK_ERRORS or (number is None and "requested and" in str(error) and "written" in str(error)):
        # numpy reports a short write on a full disk as "N requested and M written", without a number.
        why = os.strerror(number or errno.ENOSPC)
        where = f" ({error.filename})" if getattr(error, "filename", None) else ""
        way_out = f"Free space or choose another --output_dir, then run {same_command()}"
        return f"failed: {why}{where}; files already finished are untouched. {way_out}", EXIT_FAILED
    if number is not None:
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        return f"error: {where}{os.strerror(number)}; check this path", EXIT_BAD_INPUT
    return None


def _errno(error: BaseException) -> int | None:
    """The system's error number. safetensors and tokenizers, written in Rust, have it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _say(message: str) -> None:
    """One line on stderr, where there still is one; names that are not UTF-8 are shown escaped."""
    line = f"{Path(sys.argv[0]).name}: {' '.join(message.split())}"
    line = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is closed
        print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


class StopSignal:
    """Notes SIGTERM and Ctrl-C while a block runs, so that the program can stop at the next safe place.

    `requested` is the name of the signal, None before one arrives. A second Ctrl-C interrupts at once.
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
