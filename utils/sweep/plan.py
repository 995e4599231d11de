"""The plan of a sweep: which runs, by which commands, on what shared inputs, at what cost; and doing it."""

import dataclasses
import functools
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from utils.command_line import data_fraction, positive_int, seed_number
from utils.costs import FORWARD
from utils.data.challenge import ChallengeRun
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.files import file_sha256, read_json, write_json
from utils.flags import (
    DataSettings,
    DeviceSettings,
    DynamicsSettings,
    ModelSettings,
    OutputSettings,
    RunSettings,
    StageSettings,
    TrainingSettings,
    flag,
    words_of,
)  # fmt: skip
from utils.run_directory import RESULTS_FILE
from utils.selection.choosing import InputFiles
from utils.selection.ingredients import FOLDER, ROOT, InputMaker, MakerSettings
from utils.selection.selection import budget
from utils.selection.strategies import NEEDS, STRATEGIES, get_strategy
from utils.sweep.grid import ALL, Run, grid
from utils.sweep.jobs import Command, Job, locked, run_jobs, visible_devices
from utils.sweep.pool import make_pool
from utils.training.schemes import SCHEMES

PLAN_FILE = "sweep.json"
# Flags of run_glue.py that a sweep decides for each run.
DECIDED = (
    "output_dir", "data_dir", "overwrite_output_dir", "do_train", "do_eval", "do_predict", "dry_run", "selection",
    "max_train_samples", "max_steps", "seed", "selection_seed", "record_dynamics",
)  # fmt: skip
TRIAL_STEPS, TRIAL_EVAL_ROWS = 2, 64  # of the run that shows the speed, and whether the flags work


@dataclass(frozen=True)
class SweepSettings:
    """Which runs a sweep consists of, and how many at a time."""

    title: ClassVar[str] = "sweep"
    strategies: list[str] | None = flag(
        None, "strategies and online schemes, random among them", nargs="+", metavar="NAME"
    )
    data_pcts: list[float] | None = flag(None, "0.1 = 10 %%", nargs="+", type=data_fraction, metavar="FRACTION")
    seeds: tuple[int, ...] = flag((0, 1, 2), "one run of everything each", nargs="+", type=seed_number)
    hans_dir: str | None = flag(None, "HANS evaluation set, a folder or file, or `hub`; not given: no HANS columns")
    hans_per_subcase: int | None = flag(None, "evaluate on so many pairs of each HANS subcase", type=positive_int)
    budget: str = flag(
        "epochs",
        "what all shares have alike: epochs, or the optimizer steps of a run on everything",
        choices=("epochs", "steps"),
    )
    pool_size: int | None = flag(
        None, "a seeded sample of so many training examples stands for 100 %%", type=positive_int
    )
    jobs: int | None = flag(None, "runs at a time (default: the number of GPUs, 1 on a CPU)", type=positive_int)
    keep_models: bool = flag(False, "keep every model.safetensors, not only those of `all`")


class Sweep:
    """One `--output_dir` of runs.

    settings: the sweep's own; run: what every run has in common; files: inputs of strategies that the user gave; making:
    how the other inputs are made; challenges: what each run is evaluated on beside the dev splits; plugin: the user's file
    of strategies. Raises InputError where the folder holds another sweep.
    """

    def __init__(
        self,
        settings: SweepSettings,
        run: RunSettings,
        files: InputFiles,
        making: MakerSettings,
        *,
        challenges: tuple[ChallengeRun, ...] = (),
        plugin: str | None = None,
    ):
        self.settings, self.files, self.making = settings, files, making
        self.challenges, self.plugin = challenges, plugin
        self.out = Path(run.output_dir)
        self.task = get_task(run.task_name)
        self.runs = grid(settings.strategies, settings.data_pcts, list(settings.seeds), settings.budget)
        self.shared_words = words_of(
            run, ModelSettings, DataSettings, DeviceSettings, StageSettings, TrainingSettings, DynamicsSettings,
            OutputSettings, leave_out=DECIDED,
        )  # fmt: skip
        self.identity = self._check_folder(run)
        if settings.pool_size:
            if not run.data_dir:
                raise InputError("--pool_size samples a TSV file: give --data_dir")
            pool = make_pool(self.task, Path(run.data_dir), settings.pool_size, self.out / "pool")
            run = dataclasses.replace(run, data_dir=str(pool))
        self.run_settings = run
        train = self._load("train")
        self.n, self.fingerprint = len(train), train.fingerprint
        self.full_steps = math.ceil(run.num_train_epochs * math.ceil(self.n / run.examples_per_step))

    # ------------------------------------------------------------------------------------------------------------- plan
    def _load(self, split: str):
        run = self.run_settings
        return load_split(self.task, split, data_dir=run.data_dir, cache_dir=run.cache_dir)

    def _check_folder(self, run: RunSettings) -> dict:
        """What all runs of one folder must have in common. Strategies, shares and seeds may be added to it."""
        source = load_split(self.task, "train", data_dir=run.data_dir, cache_dir=run.cache_dir)
        identity = {
            "flags": self.shared_words,
            "data": {"n": len(source), "fingerprint": source.fingerprint},
            "pool_size": self.settings.pool_size,
            "challenge sets": [challenge.identity for challenge in self.challenges],
            "selector": dataclasses.asdict(self.making),
            "inputs": {name: _hashes(paths) for name, paths in self.files.items().items() if paths},
        }
        path = self.out / PLAN_FILE
        if path.exists():
            before = read_json(path).get("settings", {})
            for name, value in identity.items():
                if before.get(name) != value:
                    raise InputError(
                        f"--output_dir {self.out} holds a sweep with other {name} ({before.get(name)}, now {value}); "
                        "repeat them or give another folder"
                    )
        return identity

    @functools.cache  # noqa: B019 (a sweep lives as long as its process)
    def _inputs(self, strategy: str, *, make: bool) -> tuple[dict, float]:
        """The files that give a strategy what it needs, computed first where `make` says so; what that costs, in epochs.

        Every strategy runs with its default parameters.
        """
        maker = InputMaker(
            self.run_settings,
            self.making,
            seed=min(self.settings.seeds),
            n=self.n,
            fingerprint=self.fingerprint,
            given=self.files.items(),
            make=make,
        )
        needs = [NEEDS[name] for name in get_strategy(strategy).needs]
        filled = maker.fill_in(needs)
        wanted = {name for need in needs for name in need.flags}
        return {name: path for name, path in filled.items() if name in wanted}, sum(maker.epochs.values())

    def job(self, run: Run) -> Job:
        settings, folder = self.run_settings, self.out / "runs" / run.name
        words = ["--do_train", "--do_eval", *self.shared_words, "--seed", str(run.seed), "--output_dir", str(folder)]
        if settings.data_dir:
            words += ["--data_dir", str(settings.data_dir)]
        trained = budget(self.n, data_pct=run.data_pct) * settings.num_train_epochs
        if run.budget == "steps":
            words += ["--max_steps", str(self.full_steps)]
            trained = self.n * settings.num_train_epochs
        first: tuple[Job, ...] = ()
        if run.strategy in STRATEGIES and STRATEGIES[run.strategy].second_pass:
            first = (self.job(Run(ALL, 1.0, "epochs", run.seed)),)
            words += ["--model_name_or_path", str(first[0].folder)]
        script = "run_glue" if run.strategy == ALL else "importance_sampling_mnli"
        commands = [Command(script, (*words, *self._choice_words(run)), folder / RESULTS_FILE)]
        commands += [
            Command(challenge.script, tuple(challenge.flags(folder)), folder / challenge.scores.results_file)
            for challenge in self.challenges
        ]
        keep = self.settings.keep_models or run.strategy == ALL
        cost = trained + FORWARD * self._eval_rows
        return Job(run.name, folder, tuple(commands), cost, first, () if keep else (folder / "model.safetensors",))

    def _choice_words(self, run: Run) -> list[str]:
        """The flags that say how the examples of a run are chosen."""
        if run.strategy == ALL:
            return []
        if run.strategy in SCHEMES:
            words = ["--online", run.strategy]
            if SCHEMES[run.strategy].subset:
                words += ["--data_pct", str(run.data_pct)]
            elif run.data_pct < 1:  # of a scheme that draws from everything, a share is its share of the steps
                words += ["--max_steps", str(max(1, round(self.full_steps * run.data_pct)))]
            return words
        words = ["--strategy", run.strategy, "--data_pct", str(run.data_pct)]
        words += ["--plugin", self.plugin] if self.plugin else []
        for name, path in self._inputs(run.strategy, make=False)[0].items():
            words += [f"--{name}", *(path if isinstance(path, list) else [path])]
        return words

    @functools.cached_property
    def _eval_rows(self) -> int:
        """Examples that each run is evaluated on."""
        most = self.run_settings.max_eval_samples
        lengths = [len(self._load(name)) for name in self.task.dev]
        return sum(min(n, most or n) for n in lengths) + sum(challenge.num_examples for challenge in self.challenges)

    def jobs(self, shard: tuple[int, int] | None = None) -> list[Job]:
        """The jobs in the order in which they are done; shard: (i, k), the i-th of k parts."""
        jobs = [self.job(run) for run in self.runs]
        return jobs[shard[0] - 1 :: shard[1]] if shard else jobs

    @property
    def finished(self) -> bool:
        return all(self.job(run).done for run in self.runs)

    # --------------------------------------------------------------------------------------------------------------- do
    def run(self, jobs: list[Job]) -> dict[str, str]:
        """Make the shared inputs, then do every job that is not done; {name: why} of those that failed."""
        devices = visible_devices(use_cpu=self.run_settings.use_cpu) or [None]
        if self.settings.jobs:
            devices = [devices[i % len(devices)] for i in range(self.settings.jobs)]
        todo = [job for job in jobs if not job.done]
        chosen = [name for name in self.settings.strategies if name not in SCHEMES]
        self._say_what(jobs, todo, len(devices))
        with locked(self.out):
            self._write_plan({name: self._scoring_cost(name) for name in chosen})
        if todo:
            with locked(self.out / FOLDER):
                for name in chosen:
                    self._inputs(name, make=True)
        threads = max(1, _cores() // len(devices))
        ended = {"runs": 0, "failed": 0}
        with tqdm(
            total=round(sum(job.cost for job in todo)), desc=f"0 of {len(todo)} runs", unit=" ex", disable=not todo
        ) as bar:

            def on_end(job, failed):
                ended["runs"] += 1
                ended["failed"] += failed
                failures = f", {ended['failed']} failed" if ended["failed"] else ""
                bar.set_description(f"{ended['runs']} of {len(todo)} runs{failures}")
                bar.update(round(job.cost))

            preload = [name for challenge in self.challenges for name in challenge.preload]
            return run_jobs(todo, devices=devices, threads=threads, on_end=on_end, preload=preload)

    def _scoring_cost(self, strategy: str) -> float:
        """What a strategy needs before the first training on its choice, in epochs."""
        first = self.run_settings.num_train_epochs if get_strategy(strategy).second_pass else 0.0
        return self._inputs(strategy, make=False)[1] + first

    def _say_what(self, jobs, todo, at_once: int) -> None:
        settings = self.settings
        shares = ", ".join(f"{100 * pct:g} %" for pct in settings.data_pcts)
        print(
            f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished: {', '.join(settings.strategies)} x {shares} x "
            f"seeds {', '.join(map(str, settings.seeds))}"
        )
        if todo:
            speed = self._speed()
            seconds = sum(job.cost for job in todo) / speed / at_once
            print(
                f"about {_duration(seconds)} at {speed:.0f} training examples/s and run, {at_once} at a time",
                flush=True,
            )

    def _write_plan(self, scoring: dict[str, float]) -> None:
        path = self.out / PLAN_FILE
        before = read_json(path) if path.exists() else {"runs": [], "scoring_epochs": {}}
        planned = {entry["name"]: entry for entry in before["runs"]}
        planned |= {run.name: {"name": run.name, **vars(run)} for run in self.runs}
        write_json(
            path,
            {
                "settings": self.identity,
                "runs": sorted(planned.values(), key=lambda entry: entry["name"]),
                "scoring_epochs": before["scoring_epochs"] | scoring,
            },
        )

    def _speed(self) -> float:
        """Training examples per second: of the finished runs, else of a run of two steps, which also shows at once
        whether the flags work."""
        paths = sorted((self.out / "runs").glob(f"*/{RESULTS_FILE}"))
        speeds = [_examples_per_second(path) for path in paths] or [self._trial_speed()]
        return sorted(speeds)[len(speeds) // 2]

    def _trial_speed(self) -> float:
        folder = self.out / FOLDER / "trial"
        words = ["--do_train", "--do_eval", *self.shared_words, "--output_dir", str(folder), "--overwrite_output_dir"]
        words += ["--max_steps", str(TRIAL_STEPS), "--max_eval_samples", str(TRIAL_EVAL_ROWS)]
        words += ["--data_dir", str(self.run_settings.data_dir)] if self.run_settings.data_dir else []
        tried = subprocess.run([sys.executable, str(ROOT / "run_glue.py"), *words], capture_output=True, text=True)
        if tried.returncode:
            lines = tried.stderr.strip().splitlines() or ["no message"]
            raise InputError(f"two steps tried out with these flags failed: {lines[-1]}")
        speed = _examples_per_second(folder / RESULTS_FILE)
        shutil.rmtree(folder)
        return speed


def _examples_per_second(path: Path) -> float:
    train = read_json(path)["train"]
    return max(train["examples"] / max(train["seconds"], 1e-3), 1.0)


def _hashes(paths) -> list[str]:
    """What the files hold that a flag names; of a folder, its path."""
    paths = [paths] if isinstance(paths, str) else paths
    return [file_sha256(path) if Path(path).is_file() else str(path) for path in paths]


def _cores() -> int:
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
