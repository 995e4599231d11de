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

from utils.command_line import data_fraction, positive_float, positive_int, seed_number
from utils.costs import FORWARD
from utils.data.challenge import ChallengeRun
from utils.data.examples import Examples
from utils.data.grouped import read_grouped
from utils.data.sources import data_name, open_data
from utils.errors import InputError
from utils.files import file_sha256, read_json, write_json
from utils.flags import (
    OBJECTIVE_FLAGS,
    PLACES,
    DataSettings,
    DeviceSettings,
    DynamicsSettings,
    ModelSettings,
    ObjectiveSettings,
    OutputSettings,
    RunSettings,
    SourceSettings,
    StageSettings,
    TrackerSettings,
    TrainingSettings,
)  # fmt: skip
from utils.moments import MomentSettings
from utils.run_directory import RESULTS_FILE
from utils.selection.choosing import InputFiles, KnownFiles
from utils.selection.ingredients import FOLDER, ROOT, InputMaker, MakerSettings
from utils.selection.selection import budget
from utils.selection.strategies import NEEDS, get_strategy
from utils.settings import flag, words_of
from utils.sweep.grid import ALL, Run, grid, needs_everything, split_arm
from utils.sweep.jobs import Command, Job, locked, run_jobs, visible_devices
from utils.sweep.looks import look_plan
from utils.sweep.pool import make_pool
from utils.training.schemes import SCHEMES

PLAN_FILE = "sweep.json"
# Flags of run_glue.py that a sweep decides for each run.
DECIDED = (
    "output_dir", "overwrite_output_dir", "do_train", "do_eval", "do_predict", "dry_run", "selection",
    "max_train_samples", "max_steps", "seed", "selection_seed", "record_dynamics", "objective", "dfr", "run_name",
    "logging_dir",
)  # fmt: skip
TRIAL_STEPS, TRIAL_EVAL_ROWS = 2, 64  # of the run that shows the speed, and whether the flags work


@dataclass(frozen=True)
class SweepSettings:
    """Which runs a sweep consists of, and how many at a time."""

    title: ClassVar[str] = "sweep"
    strategies: list[str] | None = flag(
        None,
        "strategies and online schemes, random among them; objectives (poe) and dfr, on everything or a random share; both "
        "(hard+poe)",
        nargs="+",
        metavar="NAME",
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
    looks: list[int] | None = flag(
        None,
        "stop early: after so many seeds each, compare with random; only undecided arms get more (instead of --seeds)",
        nargs="+",
        type=positive_int,
        metavar="SEEDS",
    )
    smallest: float = flag(
        1.0,
        "with --looks: the smallest difference of interest, in points of dev accuracy (or of the task's first metric)",
        type=positive_float,
    )


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
        if settings.looks:
            settings = dataclasses.replace(settings, seeds=tuple(range(settings.looks[-1])))
        self.settings, self.files, self.making = settings, files, making
        self.challenges, self.plugin = challenges, plugin
        self.out = Path(run.output_dir)
        data = open_data(run, cache_dir=run.cache_dir)
        self.runs = grid(settings.strategies, settings.data_pcts, list(settings.seeds), settings.budget)
        self.shared_words = words_of(
            run, ModelSettings, SourceSettings, DataSettings, DeviceSettings, StageSettings, MomentSettings, TrainingSettings,
            DynamicsSettings, OutputSettings, TrackerSettings, leave_out=(*DECIDED, *PLACES),
        )  # fmt: skip
        self.grouped = read_grouped(run.challenge, data.task)
        self.identity = self._check_folder(data.load("train"), run)
        changed: set[str] = set()
        if settings.pool_size:
            pooled = make_pool(data, run, settings.pool_size, self.out / "pool")
            changed = {name for name, value in vars(pooled).items() if value != getattr(run, name)}
            run, data = pooled, open_data(pooled, cache_dir=run.cache_dir)
        self.run_settings, self.data = run, data
        self.place_words = words_of(run, SourceSettings, StageSettings, only=(*PLACES, *changed))
        train = data.load("train")
        self.n, self.fingerprint = len(train), train.fingerprint
        self.full_steps = max(1, round(run.num_train_epochs * math.ceil(self.n / run.examples_per_step)))

    # ------------------------------------------------------------------------------------------------------------- plan
    def _check_folder(self, source: Examples, run: RunSettings) -> dict:
        """What all runs of one folder must have in common; source: all training examples. Strategies, shares and seeds may
        be added to it. Raises InputError where the folder's sweep.json says otherwise."""
        identity = {
            "flags": [*self.shared_words, *words_of(run, ObjectiveSettings, leave_out=DECIDED)],
            "data": {"n": len(source), "fingerprint": source.fingerprint},
            "pool_size": self.settings.pool_size,
            "challenge sets": [challenge.identity for challenge in self.challenges]
            + [{"name": grouped.name, "fingerprint": grouped.fingerprint} for grouped in self.grouped],
            "selector": dataclasses.asdict(self.making),
            "inputs": {name: _hashes(paths) for name, paths in self.files.paths().items() if paths},
            "looks": look_plan(self.runs, self.settings.looks, self.settings.smallest),
            "plugin": file_sha256(self.plugin) if self.plugin else None,
        }
        path = self.out / PLAN_FILE
        if path.exists():
            before = read_json(path).get("settings", {})
            before["plugin"] = before.get("plugin") or identity["plugin"]  # a plugin may be added later
            identity["plugin"] = identity["plugin"] or before["plugin"]
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
            seed=self._input_seed,
            n=self.n,
            fingerprint=self.fingerprint,
            given=self.files.paths(),
            make=make,
        )
        needs = [NEEDS[name] for name in get_strategy(strategy).needs]
        filled = maker.fill_in(needs)
        wanted = {name for need in needs for name in need.flags}
        return {name: path for name, path in filled.items() if name in wanted}, sum(maker.epochs.values())

    @functools.cached_property
    def _input_seed(self) -> int:
        """The seed of the shared inputs: the smallest seed that the sweep began with, also where smaller ones are added."""
        path = self.out / PLAN_FILE
        before = read_json(path) if path.exists() else {}
        seeds = [entry["seed"] for entry in before.get("runs", [])] or self.settings.seeds
        return before.get("input_seed", min(seeds))

    def job(self, run: Run) -> Job:
        settings, folder = self.run_settings, self.out / "runs" / run.name
        words = ["--do_train", "--do_eval", *self.shared_words, "--seed", str(run.seed), "--output_dir", str(folder)]
        words += self.place_words
        trained = budget(self.n, data_pct=run.data_pct) * settings.num_train_epochs
        if run.budget == "steps":
            words += ["--max_steps", str(self.full_steps)]
            trained = self.n * settings.num_train_epochs
        first: tuple[Job, ...] = ()
        if needs_everything(run.strategy):
            first = (self.job(Run(ALL, 1.0, "epochs", run.seed)),)
            words += ["--model_name_or_path", str(first[0].folder)]
        words += self._objective_words(run.objective)
        trained = self.n * FORWARD if run.objective == "dfr" else trained
        script = "run_glue" if run.chosen_by == ALL else "importance_sampling_mnli"
        commands = [Command(script, (*words, *self._choice_words(run)), folder / RESULTS_FILE)]
        commands += [
            Command(challenge.script, tuple(challenge.flags(folder)), folder / challenge.scores.results_file)
            for challenge in self.challenges
        ]
        keep = self.settings.keep_models or run.strategy == ALL
        cost = trained + FORWARD * self._eval_rows
        return Job(
            run.name,
            folder,
            tuple(commands),
            cost,
            first,
            () if keep else (folder / "model.safetensors", *_stage_files(folder, data_name(settings))),
        )

    def _choice_words(self, run: Run) -> list[str]:
        """The flags that say how the examples of a run are chosen."""
        if run.chosen_by == ALL:
            return []
        if run.chosen_by in SCHEMES:
            words = ["--online", run.chosen_by]
            if SCHEMES[run.chosen_by].subset:
                words += ["--data_pct", str(run.data_pct)]
            elif run.data_pct < 1:  # of a scheme that draws from everything, a share is its share of the steps
                words += ["--max_steps", str(max(1, round(self.full_steps * run.data_pct)))]
            return words + (
                words_of(self.making, MakerSettings) if SCHEMES[run.chosen_by].needs_irreducible_loss else []
            )
        words = ["--strategy", run.chosen_by, "--data_pct", str(run.data_pct)]
        words += ["--plugin", self.plugin] if self.plugin else []
        return words + _flags(self._inputs(run.chosen_by, make=False)[0])

    def explorer_words(self) -> list[str]:
        """The flags of explore.py for this sweep: its shared inputs, and each strategy's first choice of the smallest
        share."""
        found = self.files.paths()
        for arm in self._chosen:
            found |= self._inputs(split_arm(arm)[0], make=False)[0]
        found = {field.name: found[field.name] for field in dataclasses.fields(KnownFiles)}
        found["cache_dir"] = self.run_settings.cache_dir
        first: dict[str, str] = {}
        for chosen in sorted(self.runs, key=lambda chosen: (chosen.data_pct, chosen.seed)):
            path = self.out / "runs" / chosen.name / "selection.npz"
            if path.exists():
                first.setdefault(chosen.strategy, str(path))
        found |= {"selection": [*first.values()], "output_dir": str(self.out / "report")}
        return words_of(self.run_settings, SourceSettings) + _flags(
            {name: value for name, value in found.items() if value}
        )

    def _objective_words(self, objective: str) -> list[str]:
        """The flags that say what a run minimises, or that it is dfr, with those of the sweep that it reads."""
        if objective == "erm":
            return []
        others = [name for name, readers in OBJECTIVE_FLAGS.items() if objective not in readers]
        words = ["--dfr"] if objective == "dfr" else ["--objective", objective]
        return words + words_of(self.run_settings, ObjectiveSettings, leave_out=(*DECIDED, *others))

    @functools.cached_property
    def _eval_rows(self) -> int:
        """Examples that each run is evaluated on."""
        most = self.run_settings.max_eval_samples
        lengths = [len(self.data.load(name)) for name in self.data.task.dev]
        lengths = [min(n, most or n) for n in lengths] + [len(grouped.examples) for grouped in self.grouped]
        return sum(lengths) + sum(challenge.num_examples for challenge in self.challenges)

    def jobs(self, shard: tuple[int, int] | None = None) -> list[Job]:
        """The jobs in the order in which they are done; shard: (i, k), the i-th of k parts."""
        jobs = [self.job(run) for run in self.runs]
        return jobs[shard[0] - 1 :: shard[1]] if shard else jobs

    @property
    def finished(self) -> bool:
        return all(self.job(run).done for run in self.runs)

    # --------------------------------------------------------------------------------------------------------------- do
    def run(self, jobs: list[Job], *, inputs_only: bool = False) -> dict[str, str]:
        """Make the shared inputs, then, unless inputs_only, do every job that is not done; {name: why} of those that failed."""
        devices = visible_devices(use_cpu=self.run_settings.use_cpu) or [None]
        if self.settings.jobs:
            devices = [devices[i % len(devices)] for i in range(self.settings.jobs)]
        todo = [job for job in jobs if not job.done]
        self._say_what(jobs, todo, len(devices))
        if not inputs_only:
            with locked(self.out):
                self.write_plan()
        if todo:
            with locked(self.out / FOLDER):
                for name in self._chosen:
                    self._inputs(split_arm(name)[0], make=True)
        if inputs_only:
            return {}
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

    @property
    def _chosen(self) -> list[str]:
        return [name for name in self.settings.strategies if split_arm(name)[0] not in SCHEMES]

    def _scoring_cost(self, arm: str) -> float:
        """What a strategy needs once, before the first training on its choice, in epochs."""
        return self._inputs(split_arm(arm)[0], make=False)[1]

    def _say_what(self, jobs, todo, at_once: int) -> None:
        settings = self.settings
        shares = ", ".join(f"{100 * pct:g} %" for pct in settings.data_pcts)
        print(
            f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished: {', '.join(settings.strategies)} x {shares} x "
            f"seeds {', '.join(map(str, sorted({run.seed for run in self.runs})))}"
        )
        if todo:
            speed = self._speed()
            seconds = sum(job.cost for job in todo) / speed / at_once
            print(
                f"about {_duration(seconds)} at {speed:.0f} training examples/s and run, {at_once} at a time",
                flush=True,
            )

    def write_plan(self) -> None:
        path = self.out / PLAN_FILE
        scoring = {name: self._scoring_cost(name) for name in self._chosen}
        before = read_json(path) if path.exists() else {"runs": [], "scoring_epochs": {}}
        planned = {entry["name"]: entry for entry in before["runs"]}
        planned |= {run.name: {"name": run.name, **vars(run)} for run in self.runs}
        write_json(
            path,
            {
                "settings": self.identity,
                "input_seed": self._input_seed,
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
        words += self.place_words
        tried = subprocess.run([sys.executable, str(ROOT / "run_glue.py"), *words], capture_output=True, text=True)
        if tried.returncode:
            lines = tried.stderr.strip().splitlines() or ["no message"]
            raise InputError(f"two steps tried out with these flags failed: {lines[-1]}")
        speed = _examples_per_second(folder / RESULTS_FILE)
        shutil.rmtree(folder)
        return speed


def _stage_files(folder: Path, task: str) -> list[Path]:
    """What a run with a teacher, or one that makes its irreducible losses, leaves that is large and of no more use. The kind
    of the model decides the pooling."""
    made = folder / FOLDER
    features = [made / "teacher_features" / f"{pooling}_embeddings_{task}_train.npy" for pooling in ("cls", "last")]
    return [*(made / name / "model.safetensors" for name in ("teacher", "half_0", "half_1")), *features]


def _flags(values: dict) -> list[str]:
    words = []
    for name, value in values.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return words


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
