"""Many runs, each in a process and a folder of its own: locks, logs, one after another on every device.

A job's process is forked from one that has the heavy libraries loaded, so it starts at once; a `run.lock` in its folder
keeps two processes from doing one job, also on several machines; a process whose parent is gone saves and ends.
"""

import contextlib
import fcntl
import importlib
import multiprocessing
import multiprocessing.connection
import os
import shlex
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from utils.command_line import setup_logging
from utils.errors import EXIT_INTERRUPTED, Interrupted, StopSignal, run_script
from utils.files import lock_file
from utils.selection.ingredients import ROOT

LOG = "run.log"
# Loaded once; without the model families, which transformers loads when asked, each run would take 2 s more.
PRELOADED = [
    "torch", "matplotlib.pyplot", "utils.training.finetune", "utils.training.checkpoint", "utils.selection.strategies",
    *(f"transformers.models.{family}.modeling_{family}" for family in ("albert", "bert", "distilbert", "roberta")),
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One script with its flags, and the file whose existence says that it is done."""

    script: str
    flags: tuple[str, ...]
    done: Path

    def __str__(self):
        return f"python {self.script}.py {shlex.join(self.flags)}"


@dataclass(frozen=True)
class Job:
    """Commands one after the other in one folder.

    cost: any unit, for the progress display; first: jobs whose results the commands read; remove: files that are deleted
    once all commands are done.
    """

    name: str
    folder: Path
    commands: tuple[Command, ...]
    cost: float
    first: tuple["Job", ...] = ()
    remove: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        return all(command.done.exists() for command in self.commands)


@contextlib.contextmanager
def locked(folder: Path):
    """Hold the folder's lock; wait for it where another process has it. A dead process holds none."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "run.lock", "a", encoding="utf-8") as file:
        lock_file(file, fcntl.LOCK_EX)
        yield


def run_job(job: Job) -> None:
    """Do in this process what of the job is not done yet; a failing command ends the process with its exit status."""
    with locked(job.folder):
        if job.done:
            return
        for other in job.first:
            run_job(other)
        for command in job.commands:
            if command.done.exists():
                continue
            print(f"$ {command}", flush=True)
            sys.argv = [f"{command.script}.py", *command.flags]
            run_script(importlib.import_module(command.script).main)
        for path in job.remove:
            path.unlink(missing_ok=True)


def _child(job: Job, device: str | None, threads: int, parent_pipe) -> None:
    """What the process of a job does. parent_pipe: it ends when the parent process does."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which asks for an orderly end
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    job.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(job.folder / LOG, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with_parent, args=(parent_pipe,), daemon=True).start()
    import torch
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # tqdm's own is shared between processes: one that is killed would keep it
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for processes that the run starts, for example a teacher's
    setup_logging()
    run_job(job)


def _end_with_parent(parent_pipe) -> None:
    """Wait until the parent process is gone, then ask this process for an orderly end."""
    with contextlib.suppress(EOFError, OSError):
        parent_pipe.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def run_jobs(jobs: list[Job], *, devices: list[str | None], threads: int, on_end, preload=()) -> dict[str, str]:
    """Run the jobs, one at a time on each device; {name: last line of its log} of those that failed.

    `devices`: values for CUDA_VISIBLE_DEVICES, None for the CPU. on_end(job, failed) is called as each ends;
    preload: further modules that are loaded once for all runs. Raises
    Interrupted after SIGTERM or Ctrl-C, once every running job has saved and ended.
    """
    # The fork server imports from the current folder first, which may hold another folder `hans`, and not from this project.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *preload])
    parent_pipe, write_end = context.Pipe(duplex=False)  # never written to: it closes when this process is gone
    waiting, running, free, failed = list(jobs), {}, list(devices), {}
    with StopSignal() as stop:
        while waiting or running:
            while waiting and free and not stop.requested:
                job, device = waiting.pop(0), free.pop(0)
                process = context.Process(target=_child, args=(job, device, threads, parent_pipe), name=job.name)
                process.start()
                running[process.sentinel] = process, job, device
            if stop.requested:
                for process, _, _ in running.values():
                    process.terminate()
                for process, _, _ in running.values():
                    process.join()
                raise Interrupted(
                    f"{stop.requested}; finished runs are kept, running ones saved. Run the same command again to continue"
                )
            for sentinel in multiprocessing.connection.wait(list(running), timeout=0.5):
                process, job, device = running.pop(sentinel)
                process.join()
                free.append(device)
                if process.exitcode:
                    failed[job.name] = why_failed(job, process.exitcode)
                on_end(job, process.exitcode != 0)
    write_end.close()
    return failed


def why_failed(job: Job, status: int) -> str:
    """The last line of the job's log, or the signal that killed it."""
    log = job.folder / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; its log is {log}"
    if status == EXIT_INTERRUPTED:
        return f"stopped from outside; its log is {log}"
    return f"{lines[-1].strip() if lines else f'exit status {status}'} (log: {log})"


def visible_devices(*, use_cpu: bool) -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, or that nvidia-smi lists; none without a driver."""
    if use_cpu:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device for device in given.split(",") if device.strip() and device.strip() != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    import subprocess

    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
