"""Scripts run as `python script.py ...` runs them, but forked from a process that has imported the libraries already: a
start takes milliseconds instead of seconds, so that a test can afford to kill dozens of runs.
"""

import multiprocessing
import os
import resource
import runpy
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.tiny import ROOT

LIBRARIES = [
    "utils.training.finetune",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
]
LIBRARIES += [
    "transformers.models.albert.modeling_albert",
    "transformers.models.bert.modeling_bert",
    "matplotlib.pyplot",
]
# One thread: a forked process has none of its parent's. The server takes its environment from its first start.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(LIBRARIES)


def preload(*modules: str) -> None:
    """Import further modules before the first start; only then."""
    _context.set_forkserver_preload([*LIBRARIES, *modules])


@dataclass(frozen=True)
class Finished:
    status: int  # negative: the signal that ended it
    stdout: str
    stderr: str


class TimedOut(AssertionError):
    """A script did not end in time; it was killed."""


@dataclass(frozen=True)
class Running:
    process: multiprocessing.Process
    printed: Path  # what it prints so far lies in <printed>.out and .err

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, None where it still runs after so many seconds."""
        self.process.join(timeout)
        return self.process.exitcode

    def send(self, signal_number: int) -> None:
        os.kill(self.process.pid, signal_number)

    def finish(self, timeout: float = 120) -> Finished:
        """Wait for its end, and end it where it does not come."""
        if self.wait(timeout) is None:
            self.process.kill()
            self.process.join()
            raise TimedOut(f"still running after {timeout} s:\n{_read(self.printed, 'err')}")
        return Finished(self.process.exitcode, _read(self.printed, "out"), _read(self.printed, "err"))


def start(script, *args, printed: Path, env: dict | None = None, cwd: Path = ROOT, file_size: int = -1) -> Running:
    """Start `script` (a path, relative to the repository) with those flags. file_size: bytes that no file may exceed."""
    environment = os.environ | ENVIRONMENT | (env or {})
    target = (str(ROOT / script), list(map(str, args)), environment, str(printed), str(cwd), file_size)
    process = _context.Process(target=_run, args=target)
    with mock.patch.dict(os.environ, ENVIRONMENT):
        process.start()
    return Running(process, Path(printed))


def run(script, *args, printed: Path, env: dict | None = None, check: int | None = 0) -> Finished:
    done = start(script, *args, printed=printed, env=env).finish()
    assert check is None or done.status == check, f"{script} {args}\n{done.status}\n{done.stdout}\n{done.stderr}"
    return done


def start_group(size: int, script, *args, printed: Path) -> list[Running]:
    """Start `size` processes with the environment that torchrun and accelerate give them; their ranks in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(script, *args, printed=Path(f"{printed}_{rank}"), env={**group, "RANK": str(rank), "LOCAL_RANK": "0"})
        for rank in range(size)
    ]


def run_group(size: int, script, *args, printed: Path, check: int | None = 0) -> list[Finished]:
    done = [process.finish() for process in start_group(size, script, *args, printed=printed)]
    for rank, one in enumerate(done):
        assert check is None or one.status == check, f"{script} {args} rank {rank}: {one.status}\n{one.stderr}"
    return done


def _read(printed: Path, kind: str) -> str:
    return Path(f"{printed}.{kind}").read_text(encoding="utf-8", errors="replace")


def _run(script: str, args: list[str], environment: dict, printed: str, cwd: str, file_size: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, str(ROOT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))  # -1: no limit
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(f"{printed}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    sys.argv = [script, *args]
    runpy.run_path(script, run_name="__main__")
