"""Errors that the user sees as one line, exit statuses, and stop signals."""

import contextlib
import errno
import os
import re
import signal
import sys
from pathlib import Path

EXIT_BAD_INPUT = 2


EXIT_FAILED = 1


EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: saved, run the same command again


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
