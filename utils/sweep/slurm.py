"""A sweep as jobs of Slurm: plain scripts in `<output_dir>/slurm/<number>/`, one folder for each submission.

What is done is known from the files of the runs, what is under way from `squeue`. The name of a job and the scripts of its
submission say which run a task of an array does, so nothing is remembered elsewhere. Two commands at one time are kept
apart by making the folder of a submission, which only one of them can.
"""

import getpass
import hashlib
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.command_line import positive_int
from utils.errors import InputError, Interrupted, RunFailed, StopSignal
from utils.files import read_json, write_json, write_text
from utils.settings import flag
from utils.sweep.jobs import LOG, Job, why_failed
from utils.sweep.slurm_scripts import array_script, single_script

FOLDER = "slurm"
SUBMITTED_FILE = "submitted.json"  # of a submission, written last
LONGEST = 60.0  # seconds that a submission takes; an older one without SUBMITTED_FILE was killed
POLL = 5.0  # seconds between two looks at the queue
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED")


@dataclass(frozen=True)
class SlurmSettings:
    """Where the runs of a sweep are done."""

    title: ClassVar[str] = "cluster"
    executor: str = flag(
        "processes", "processes of this machine, or jobs of Slurm (docs/cluster.md)", choices=("processes", "slurm")
    )
    slurm_partition: str | None = flag(None, "partition of the jobs (sbatch --partition)")
    slurm_time: str | None = flag(None, "time limit of a run, for example 4:00:00; it is queued again and goes on")
    slurm_gres: str | None = flag(None, "what a run needs, for example gpu:1 (sbatch --gres)")
    slurm_array_max: int | None = flag(None, "runs at a time (default: as many as Slurm starts)", type=positive_int)
    slurm_options: str | None = flag(
        None, "further options of sbatch in one text, with a =: --slurm_options='--account=nlp --mem=16G'"
    )

    def options(self) -> list[str]:
        """The options of sbatch that every job has."""
        named = {"partition": self.slurm_partition, "time": self.slurm_time, "gres": self.slurm_gres}
        return [f"--{name}={value}" for name, value in named.items() if value] + (self.slurm_options or "").split()


@dataclass(frozen=True)
class Queued:
    """A job of this sweep that Slurm still has. task: its number in the array, None for one without."""

    submission: int
    stage: str
    job_id: str
    task: int | None
    state: str


class SlurmSweep:
    """Does the jobs of one sweep by Slurm.

    out: the sweep's folder; words: the flags of `sweep.py` that make its shared inputs. Raises InputError where there is
    no Slurm.
    """

    def __init__(self, out: Path, settings: SlurmSettings, words: list[str]):
        for program in ("sbatch", "squeue"):
            if not shutil.which(program):
                raise InputError(
                    f"--executor slurm needs {program}, which is not on PATH; run it on a cluster's login node"
                )
        self.out, self.settings, self.words = out.resolve(), settings, words
        self.folder = self.out / FOLDER
        self.prefix = f"sweep-{hashlib.sha256(str(self.out).encode()).hexdigest()[:8]}"

    def run(self, jobs: list[Job], write_plan) -> dict[str, str]:
        """Submit what is neither done nor queued, follow all of it to its end; {name: why} of what is not done then.

        write_plan: called before anything is submitted. Raises Interrupted after SIGTERM or Ctrl-C: the jobs stay.
        """
        jobs = list({one.name: one for job in jobs for one in (*job.first, job)}.values())
        with StopSignal() as stop:
            latest = self._latest()
            queued = self.queued()
            states = self._states(jobs, queued)
            print(_summary(states), flush=True)
            for job in jobs:
                if states[job.name] == "failed":
                    print(f"failed before: {job.name}: {self._why(job)}")
            todo = [job for job in jobs if states[job.name] in ("failed", "not submitted")]
            if todo:
                write_plan()
                self._submit(todo, queued, latest + 1)
            self._follow(jobs, stop)
        return {job.name: self._why(job) for job in jobs if not job.done}

    # ------------------------------------------------------------------------------------------------------------ queue
    def queued(self) -> list[Queued]:
        """The jobs of this sweep that wait or run."""
        printed = _slurm("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%j|%F|%K|%T")
        found = []
        for line in printed.splitlines():
            name, job_id, task, state = line.strip().rsplit("|", 3)
            if name.startswith(f"{self.prefix}-"):
                submission, stage = name.removeprefix(f"{self.prefix}-").split("-", 1)
                found.append(Queued(int(submission), stage, job_id, int(task) if task.isdigit() else None, state))
        return found

    def _states(self, jobs: list[Job], queued: list[Queued]) -> dict[str, str]:
        """{name of a run: finished, running, queued, failed or not submitted}."""
        active = {}
        for one in queued:
            if one.task is not None:
                names = (self.folder / str(one.submission) / f"{one.stage}.txt").read_text(encoding="utf-8").split("\n")
                active[names[one.task]] = "queued" if one.state in WAITING else "running"

        def state(job: Job) -> str:
            begun = (job.folder / LOG).exists()
            return "finished" if job.done else active.get(job.name) or ("failed" if begun else "not submitted")

        return {job.name: state(job) for job in jobs}

    def _why(self, job: Job) -> str:
        """Why a run is not done, from its log or, where it was never begun, from that of the inputs."""
        if (job.folder / LOG).exists():
            return why_failed(job, 1) + self._accounted(job)
        log = self.folder / str(self._numbers()[-1]) / "inputs.log"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        return f"not begun; the inputs ended with: {lines[-1].strip()} (log: {log})" if lines else "not begun"

    def _accounted(self, job: Job) -> str:
        """How Slurm says that the run's last job ended, where it keeps accounts."""
        for number in reversed(self._numbers()):
            record = self.folder / str(number) / SUBMITTED_FILE
            for stage, job_id in read_json(record).items() if record.exists() else ():
                names = self.folder / str(number) / f"{stage}.txt"
                known = names.read_text(encoding="utf-8").split("\n") if names.exists() else []
                if job.name in known:
                    task = f"--jobs={job_id}_{known.index(job.name)}"
                    words = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", task]
                    state = (
                        subprocess.run(words, capture_output=True, text=True).stdout if shutil.which("sacct") else ""
                    )
                    return f" [Slurm: {state.strip()}]" if state.strip() else ""
        return ""

    # ----------------------------------------------------------------------------------------------------------- submit
    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def _latest(self) -> int:
        """The number of the last submission, 0 before the first. Raises InputError while another command makes one."""
        numbers = self._numbers()
        if not numbers:
            return 0
        last = self.folder / str(numbers[-1])
        if not (last / SUBMITTED_FILE).exists() and time.time() - last.stat().st_mtime < LONGEST:
            raise InputError(
                f"{last} is not a whole submission yet: another command is making it, or was killed; "
                f"repeat this one in {LONGEST:.0f} s"
            )
        return numbers[-1]

    def _submit(self, todo: list[Job], queued: list[Queued], number: int) -> None:
        """Write the scripts and hand them to Slurm: the inputs, the runs once these are made, the report at the end."""
        folder = self.folder / str(number)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            raise InputError(f"another command is submitting {folder}; repeat this one when it is done") from None
        stages = {"runs": [job for job in todo if not job.first], "second_runs": [job for job in todo if job.first]}
        name, options = f"{self.prefix}-{number}", self.settings.options()
        singles = {
            "inputs": ("sweep", [*self.words, "--inputs_only"]),
            "report": ("report", [str(self.out)]),
        }
        for stage, command in singles.items():
            text = single_script(f"{name}-{stage}", options, folder / f"{stage}.log", *command)
            write_text(folder / f"{stage}.sh", text)
        for stage, jobs in stages.items():
            if jobs:
                write_text(folder / f"{stage}.txt", "".join(f"{job.name}\n" for job in jobs))
                script = array_script(f"{name}-{stage}", options, folder, stage, jobs, self.settings.slurm_array_max)
                write_text(folder / f"{stage}.sh", script)
        ids = self._hand_over(folder, [stage for stage, jobs in stages.items() if jobs], queued)
        numbers = ", ".join(f"{stage} {job_id}" for stage, job_id in ids.items())
        print(f"submitted {len(todo)} runs by the scripts in {folder}; jobs of Slurm: {numbers}")

    def _hand_over(self, folder: Path, stages: list[str], queued: list[Queued]) -> dict[str, str]:
        """Submit the scripts of a folder in their order; {stage: number of its job}. All or none."""

        def queued_ids(*names: str) -> list[str]:
            """Numbers of the jobs of these stages that earlier submissions left in the queue."""
            return [one.job_id for one in queued if one.stage in names]

        ids: dict[str, str] = {}
        try:
            ids["inputs"] = _sbatch(folder / "inputs.sh", any_of=queued_ids("inputs"))
            for stage in stages:
                first = [*queued_ids("runs"), *filter(None, [ids.get("runs")])] if stage == "second_runs" else []
                ids[stage] = _sbatch(folder / f"{stage}.sh", ok=[ids["inputs"]], any_of=first)
            runs = [ids[stage] for stage in stages]
            ids["report"] = _sbatch(folder / "report.sh", any_of=[*queued_ids("runs", "second_runs", "report"), *runs])
        except RunFailed:
            if ids:
                _slurm("scancel", *ids.values())
            write_json(folder / SUBMITTED_FILE, {})
            raise
        write_json(folder / SUBMITTED_FILE, ids)
        return ids

    # ----------------------------------------------------------------------------------------------------------- follow
    def _follow(self, jobs: list[Job], stop: StopSignal) -> None:
        """Print the state whenever it changes, until Slurm has no job of this sweep."""
        printed = None
        while queued := self.queued():
            ids = sorted({one.job_id for one in queued}, key=int)
            summary = _summary(self._states(jobs, queued))
            if summary != printed:
                print(f"{time.strftime('%H:%M:%S')} {summary}", flush=True)
            printed = summary
            until = time.monotonic() + POLL
            while time.monotonic() < until:
                if stop.requested:
                    raise Interrupted(
                        f"{stop.requested}; the jobs stay in Slurm. Repeat the command to follow them; cancel them with: "
                        f"scancel {' '.join(ids)}"
                    )
                time.sleep(0.1)


def _summary(states: dict[str, str]) -> str:
    count = Counter(states.values())
    kinds = ("finished", "running", "queued", "failed", "not submitted")
    return f"{len(states)} runs: " + ", ".join(f"{count[kind]} {kind}" for kind in kinds if count[kind])


def _sbatch(script: Path, *, ok=(), any_of=()) -> str:
    """Submit a script that depends on the end of these jobs, `ok` on their success; the number of its job."""
    after = [f"{kind}:{':'.join(dict.fromkeys(ids))}" for kind, ids in (("afterok", ok), ("afterany", any_of)) if ids]
    words = [f"--dependency={','.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    return _slurm("sbatch", "--parsable", *words, str(script)).strip().split(";")[0]


def _slurm(*words: str) -> str:
    """What a program of Slurm prints. Raises RunFailed where it refuses. Ctrl-C does not reach it."""
    done = subprocess.run(words, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RunFailed(f"{words[0]} says: {said} (the command was: {' '.join(words)}). Repeat the command to go on")
    return done.stdout
