"""The text of the scripts that Slurm gets. They stand in the sweep's folder, to be read and edited."""

import os
import shlex
import sys
from pathlib import Path

from utils.errors import EXIT_INTERRUPTED
from utils.selection.ingredients import ROOT
from utils.sweep.jobs import LOG, Job

WIDTH = 100
_HEAD = f"""\
python={shlex.quote(sys.executable)}
code={shlex.quote(str(ROOT))}
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}}

# Slurm sends SIGTERM 120 s before the time limit. It is passed on; the script saves and ends with status {EXIT_INTERRUPTED};
# the job is queued again, and the same command goes on. A job that is pre-empted or cancelled is no longer RUNNING
# then: Slurm itself queues it again, or does not.
stopped= pid=
trap 'stopped=1; [ -n "$pid" ] && kill -TERM "$pid"' TERM
again() {{
  [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ] && scontrol requeue "$SLURM_JOB_ID"
  exit {EXIT_INTERRUPTED}
}}
unless() {{  # unless FILE COMMAND...: do the command, unless the file that it writes last is there
  [ -n "$1" ] && [ -e "$1" ] && return
  [ -n "$stopped" ] && again
  "${{@:2}}" &
  pid=$!
  wait "$pid"; status=$?
  if [ -n "$stopped" ]; then wait "$pid"; status=$?; fi  # the signal ended the first `wait`, not the command
  pid=
  [ "$status" = 0 ] && return
  [ "$status" = {EXIT_INTERRUPTED} ] || [ -n "$stopped" ] && again
  exit "$status"
}}
"""


def single_script(name: str, options: list[str], log: Path, script: str, words: list[str]) -> str:
    """One command as a job."""
    return f"{_options(name, options, log)}\n{_HEAD}\nunless '' {_command(script, words)}\n"


def array_script(name: str, options: list[str], folder: Path, stage: str, jobs: list[Job], at_once: int | None) -> str:
    """A job array: task i does the i-th of these jobs."""
    array = f"--array=0-{len(jobs) - 1}" + (f"%{at_once}" if at_once else "")
    cases = "".join(f"{i})  # {job.name}\n{_steps(job)}  ;;\n" for i, job in enumerate(jobs))
    log = folder / f"{stage}-%a.log"
    return f"{_options(name, [array, *options], log)}\n{_HEAD}\ncase $SLURM_ARRAY_TASK_ID in\n{cases}esac\n"


def _options(name: str, options: list[str], log: Path) -> str:
    words = [f"--job-name={name}", *options, f'--output="{log}"', "--open-mode=append"]
    words += [f'--chdir="{os.getcwd()}"', "--requeue", "--signal=B:TERM@120"]
    return "#!/bin/bash\n" + "".join(f"#SBATCH {word}\n" for word in words)


def _steps(job: Job) -> str:
    """The commands of a job, its output going to the log of its folder."""
    folder = job.folder.resolve()
    lines = [f"run={shlex.quote(str(folder))}", f'mkdir -p "$run" && exec >> "$run"/{LOG} 2>&1']
    for command in job.commands:
        done = command.done.resolve().relative_to(folder)
        lines.append(f'unless "$run"/{shlex.quote(str(done))} {_command(command.script, command.flags)}')
    lines += [f'rm -f "$run"/{shlex.quote(str(path.resolve().relative_to(folder)))}' for path in job.remove]
    return "".join(f"  {line}\n" for line in lines)


def _command(script: str, words) -> str:
    """The command as the shell reads it, on lines of bearable length; a flag stays with its values."""
    flags: list[str] = []
    for word in words:
        if word.startswith("--") or not flags:
            flags.append(shlex.quote(word))
        else:
            flags[-1] += f" {shlex.quote(word)}"
    lines = [f'"$python" "$code"/{script}.py']
    for text in flags:
        if len(lines) == 1 or len(lines[-1]) + len(text) > WIDTH:
            lines.append(text)
        else:
            lines[-1] += f" {text}"
    return " \\\n      ".join(lines)
