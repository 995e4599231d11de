"""The plan of a sweep: which runs, by which commands, on what shared inputs, at what cost; and doing it."""

import argparse
import copy
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.files import atomic_path, read_json, write_json
from utils.run_directory import RESULTS_FILE
from utils.selection.ingredients import FORWARD, ROOT, Selector
from utils.selection.selection import budget, random_ranking
from utils.selection.strategies import STRATEGIES, get_strategy
from utils.sweep.jobs import Command, Job, locked, run_jobs, visible_devices

ALL = "all"
HUB = "hub"  # --hans_dir: not a folder but the hub
ONLINE = ("grad_norm", "infobatch", "rs2")
FROM_EVERYTHING = ("grad_norm", "infobatch")  # those that draw from all of the data, with weights
PLAN_FILE = "sweep.json"
HANS_RESULTS = "hans_results.json"
PATHS = ("embedding_path", "cluster_path", "dynamics_path", "logits_path")


@dataclass(frozen=True, order=True)
class Run:
    """One training: how its examples are chosen, what share of them, what is alike between shares, which seed."""

    strategy: str
    data_pct: float
    budget: str
    seed: int

    @property
    def name(self) -> str:
        steps = "-steps" if self.budget == "steps" else ""
        return f"{self.strategy}-{100 * self.data_pct:g}pct{steps}-seed{self.seed}"


def grid(strategies: list[str], data_pcts: list[float], seeds: list[int], budget_kind: str) -> list[Run]:
    """The runs of a sweep, every one once, `all` first. Raises InputError for an unknown way of choosing.

    At 100 % a strategy is the run `all`, unless it weights the examples.
    """
    runs = {}
    for seed in seeds:
        everything = Run(ALL, 1.0, "epochs", seed)
        for pct in sorted(set(data_pcts)):
            for strategy in strategies:
                if strategy not in ONLINE:
                    get_strategy(strategy)
                if strategy in FROM_EVERYTHING and (budget_kind == "steps" or (strategy == "infobatch" and pct < 1)):
                    continue  # the share is at most a number of steps to them
                weighted = strategy in FROM_EVERYTHING or (strategy in STRATEGIES and STRATEGIES[strategy].weighted)
                runs[Run(strategy, pct, budget_kind, seed) if weighted or pct < 1 else everything] = None
        if "forgettable" in strategies:
            runs[everything] = None
    return sorted(runs, key=lambda run: (run.strategy != ALL, run.seed))


class Sweep:
    """One `--output_dir` of runs. args: the sweep's flags; forwarded: run_glue.py's, as the user wrote them."""

    def __init__(self, args: argparse.Namespace, forwarded: list[str]):
        self.args, self.forwarded = args, ["--task_name", args.task_name, *forwarded]
        self.out = Path(args.output_dir)
        self.task = get_task(args.task_name)
        self.runs = grid(args.strategies, args.data_pcts, args.seeds, args.budget)
        self._check_folder()
        if args.pool_size:
            args.data_dir = str(self._pool())
        self.n = len(load_split(self.task, "train", data_dir=args.data_dir, cache_dir=args.cache_dir))
        self.full_steps = math.ceil(
            args.num_train_epochs
            * math.ceil(self.n / (args.per_device_train_batch_size * args.gradient_accumulation_steps))
        )

    # ------------------------------------------------------------------------------------------------------------ plan
    def _check_folder(self) -> None:
        """A folder holds one sweep's settings; strategies, shares and seeds may be added to it."""
        args = self.args
        self.settings = {
            "flags": self.forwarded,
            "hans_per_subcase": args.hans_per_subcase,
            "pool_size": args.pool_size,
            "selector": {name: getattr(args, name) for name in ("selector_model", "proxy_epochs", "proxy_snapshots", "num_clusters")},
        }  # fmt: skip
        path = self.out / PLAN_FILE
        if not path.exists():
            return
        before = read_json(path)["settings"]
        changed = [name for name, value in self.settings.items() if before.get(name) != value]
        if changed:
            raise InputError(
                f"--output_dir {self.out} holds a sweep with other {changed[0]} ({before.get(changed[0])}, now "
                f"{self.settings[changed[0]]}); repeat them or give another folder"
            )

    def _pool(self) -> Path:
        """A data folder whose train.tsv is a random sample, drawn with seed 0, of the real one's lines."""
        args = self.args
        if not args.data_dir:
            raise InputError("--pool_size samples a TSV file: give --data_dir")
        folder, source = self.out / "pool", Path(args.data_dir)
        if (folder / "train.tsv").exists():
            return folder
        n = len(load_split(self.task, "train", data_dir=args.data_dir))
        if args.pool_size > n:
            raise InputError(f"--pool_size {args.pool_size}: {source / 'train.tsv'} has {n} examples")
        lines = (source / "train.tsv").read_bytes().splitlines(keepends=True)
        header = len(lines) - n
        if header not in (0, 1):
            raise InputError(f"{source / 'train.tsv'}: blank or doubled lines; --pool_size needs one line per example")
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.glob("dev*.tsv"):
            with atomic_path(folder / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())
        kept = sorted(random_ranking(n, 0)[: args.pool_size].tolist())
        with atomic_path(folder / "train.tsv") as temporary:
            temporary.write_bytes(b"".join(lines[:header] + [lines[header + i] for i in kept]))
        return folder

    def _inputs(self, strategy: str, *, make: bool) -> tuple[list[str], float]:
        """The flags that give a strategy what it needs, made first where asked; and what that cost, in epochs."""
        args = copy.copy(self.args)
        args.score = None  # every strategy with its defaults
        selector = Selector(args, min(self.args.seeds), make=make)
        needs = get_strategy(strategy).needs
        if needs:
            selector.fill_in(needs)
        wanted = {
            "embedding_path": {"embeddings", "pooler"}, "cluster_path": {"clusters"},
            "dynamics_path": {"dynamics", "two snapshots", "difficulty", "score"}, "logits_path": {"logits"},
        }  # fmt: skip
        flags = []
        for name, kinds in wanted.items():
            if kinds & set(needs) and getattr(args, name):
                flags += [f"--{name}", str(getattr(args, name))]
        return flags, sum(selector.epochs.values())

    def job(self, run: Run) -> Job:
        args, folder = self.args, self.out / "runs" / run.name
        flags = ["--do_train", "--do_eval", *self.forwarded, "--seed", str(run.seed), "--output_dir", str(folder)]
        if args.data_dir:
            flags += ["--data_dir", str(args.data_dir)]
        first: tuple[Job, ...] = ()
        m, epochs = budget(self.n, data_pct=run.data_pct), args.num_train_epochs
        trained = m * epochs
        if run.budget == "steps":
            flags += ["--max_steps", str(self.full_steps)]
            trained = self.n * epochs
        if run.strategy == ALL:
            script = "run_glue"
        elif run.strategy in ONLINE:
            script = "importance_sampling_mnli"
            flags += ["--online", run.strategy]
            if run.strategy == "rs2":
                flags += ["--data_pct", str(run.data_pct)]
            elif run.strategy == "grad_norm" and run.data_pct < 1:
                flags += ["--max_steps", str(max(1, round(self.full_steps * run.data_pct)))]
        else:
            script = "importance_sampling_mnli"
            flags += [
                "--strategy",
                run.strategy,
                "--data_pct",
                str(run.data_pct),
                *self._inputs(run.strategy, make=False)[0],
            ]
            if run.strategy == "forgettable":
                first = (self.job(Run(ALL, 1.0, "epochs", run.seed)),)
                flags += ["--model_name_or_path", str(first[0].folder)]
        commands = [Command(script, tuple(flags), folder / RESULTS_FILE)]
        cost = trained + FORWARD * self._eval_rows()
        if args.hans_dir:
            commands.append(Command("test_hans", tuple(self._hans_flags(folder)), folder / "hans" / HANS_RESULTS))
        remove = () if args.keep_models or run.strategy == ALL else (folder / "model.safetensors",)
        return Job(run.name, folder, tuple(commands), cost, first, remove)

    def _hans_flags(self, folder: Path) -> list[str]:
        args = self.args
        flags = ["--model_name_or_path", str(folder), "--output_dir", str(folder / "hans")]
        if args.hans_dir != HUB:
            flags += ["--data_dir", str(args.hans_dir)]
        flags += ["--max_seq_length", str(args.max_seq_length), "--quiet", "--overwrite_output_dir"]
        if args.hans_per_subcase:
            flags += ["--max_per_subcase", str(args.hans_per_subcase)]
        if args.cache_dir:
            flags += ["--cache_dir", args.cache_dir]
        return flags + [f"--{name}" for name in ("fp16", "bf16", "use_cpu") if getattr(args, name)]

    def _eval_rows(self) -> int:
        args = self.args
        if not hasattr(self, "_rows"):
            splits = [
                load_split(self.task, name, data_dir=args.data_dir, cache_dir=args.cache_dir) for name in self.task.dev
            ]
            self._rows = sum(min(len(split), args.max_eval_samples or len(split)) for split in splits)
            if args.hans_dir:
                from hans.data import load_hans

                hans = load_hans(None if args.hans_dir == HUB else args.hans_dir, cache_dir=args.cache_dir)
                self._rows += len(hans.sample(args.hans_per_subcase) if args.hans_per_subcase else hans)
        return self._rows

    def jobs(self) -> list[Job]:
        """The jobs of this shard, in the order in which they are done."""
        jobs = [self.job(run) for run in self.runs]
        if self.args.shard:
            i, k = self.args.shard
            jobs = jobs[i - 1 :: k]
        return jobs

    @property
    def finished(self) -> bool:
        return all(self.job(run).done for run in self.runs)

    # ------------------------------------------------------------------------------------------------------------- do
    def run(self, jobs: list[Job]) -> dict[str, str]:
        """Make the shared inputs, then do every job that is not done; {name: why} of those that failed."""
        args = self.args
        devices = visible_devices(use_cpu=args.use_cpu) or [None]
        if args.jobs:
            devices = [devices[i % len(devices)] for i in range(args.jobs)]
        todo = [job for job in jobs if not job.done]
        chosen = [name for name in args.strategies if name not in ONLINE]
        scoring = {name: self._inputs(name, make=False)[1] for name in chosen}
        if "forgettable" in scoring:
            scoring["forgettable"] += args.num_train_epochs  # the first fine-tuning
        print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished: {', '.join(args.strategies)} x "
              f"{', '.join(f'{100 * pct:g} %' for pct in args.data_pcts)} x seeds {', '.join(map(str, args.seeds))}")  # fmt: skip
        if todo:
            speed = self._speed()
            seconds = sum(job.cost for job in todo) / speed / len(devices)
            print(
                f"about {_duration(seconds)} at {speed:.0f} training examples/s and run, {len(devices)} at a time",
                flush=True,
            )
        with locked(self.out):
            self._write_plan(scoring)
        if todo:
            with locked(self.out / "selector"):
                for name in chosen:
                    self._inputs(name, make=True)
        threads = max(1, _cores() // len(devices))
        total = sum(job.cost for job in todo)
        failed_now = 0
        with tqdm(total=round(total), desc=f"0 of {len(todo)} runs", unit=" ex", disable=not todo) as bar:
            ended = 0

            def on_end(job, failed):
                nonlocal ended, failed_now
                ended += 1
                failed_now += failed
                bar.set_description(f"{ended} of {len(todo)} runs" + (f", {failed_now} failed" if failed_now else ""))
                bar.update(round(job.cost))

            return run_jobs(todo, devices=devices, threads=threads, on_end=on_end)

    def _write_plan(self, scoring: dict[str, float]) -> None:
        path = self.out / PLAN_FILE
        before = read_json(path) if path.exists() else {"runs": [], "scoring_epochs": {}}
        planned = {entry["name"]: entry for entry in before["runs"]}
        planned |= {run.name: {"name": run.name, **vars(run)} for run in self.runs}
        write_json(
            path,
            {
                "settings": self.settings,
                "runs": sorted(planned.values(), key=lambda entry: entry["name"]),
                "scoring_epochs": before["scoring_epochs"] | scoring,
            },
        )

    def _speed(self) -> float:
        """Training examples per second: of the finished runs, else of two steps tried out, which also shows at once
        whether the flags work."""
        speeds = []
        for path in (self.out / "runs").glob(f"*/{RESULTS_FILE}"):
            train = read_json(path)["train"]
            if train["seconds"]:
                speeds.append(train["examples"] / train["seconds"])
        if speeds:
            return sorted(speeds)[len(speeds) // 2]
        self.out.mkdir(parents=True, exist_ok=True)
        flags = [*self.forwarded, "--do_train", "--do_eval", "--dry_run", "--output_dir", str(self.out / "trial")]
        flags += ["--data_dir", str(self.args.data_dir)] if self.args.data_dir else []
        words = [sys.executable, str(ROOT / "run_glue.py"), *flags]
        tried = subprocess.run(words, capture_output=True, text=True)
        if tried.returncode:
            lines = tried.stderr.strip().splitlines() or ["no message"]
            raise InputError(f"two steps tried out with these flags failed: {lines[-1]}")
        return float(re.search(r"\((\d+) examples/s", tried.stdout).group(1)) or 1.0


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
