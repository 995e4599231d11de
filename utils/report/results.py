"""Finished runs as rows of numbers: reading run folders or their recorded results.csv, and saying by name which ones
cannot be used."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utils.data.tasks import get_task
from utils.errors import InputError
from utils.files import read_json
from utils.run_directory import CARD_FILE, RESULTS_FILE, RUN_FILE
from utils.selection.ingredients import FORWARD

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
# What must be alike for runs to stand in one table.
SETTINGS = (
    "task_name", "config_name", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "num_train_epochs", "max_seq_length", "freeze_layers", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "max_eval_samples",
)  # fmt: skip


SUBSET = "chosen: "  # begins the columns of what is in a subset: shares of labels,
AGAINST = f"{SUBSET}against "  # and numbers of pairs that contradict a heuristic
# Of results.csv, before the scores.
CSV_COLUMNS = (
    "task", "run", "strategy", "data_pct", "budget", "seed", "examples", "cost_epochs", "scoring_epochs", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One finished run. scores: {column: fraction}; cost: training epochs on all of the data that it took, forward
    passes counted as a third; seconds: of the training loop, as measured (None where not recorded); subset: what its card
    says of the chosen examples, shares of labels and pairs against each heuristic, empty where nothing was chosen once;
    collapsed: it gives every dev example the same answer, a failed seed, which is counted and named but not averaged in.
    """

    name: str
    strategy: str
    data_pct: float
    budget: str
    seed: int
    m: int
    scores: dict[str, float]
    cost: float
    seconds: float | None
    subset: dict[str, float]
    collapsed: bool

    @property
    def arm(self) -> tuple[str, float, str]:
        return self.strategy, self.data_pct, self.budget


@dataclass(frozen=True)
class Runs:
    """Every finished run under a folder that fits the others, what is wrong with the rest, and what scoring cost per
    strategy (epochs)."""

    results: list[Result]
    problems: list[str]
    scoring: dict[str, float]
    task: str

    @property
    def columns(self) -> list[str]:
        """Names of all scores."""
        return list(dict.fromkeys(name for result in self.results for name in result.scores))

    @property
    def subset_columns(self) -> list[str]:
        """Names of all facts about chosen subsets."""
        return list(dict.fromkeys(name for result in self.results for name in result.subset))


def load_runs(folder) -> Runs:
    """All finished runs anywhere under `folder`. Raises InputError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    problems, read = [], []
    paths = [path.parent for path in sorted(folder.rglob(RUN_FILE)) if "selector" not in path.relative_to(folder).parts]
    for path in paths:
        name = str(path.relative_to(folder)) if path != folder else path.name
        try:
            read.append((name, *_read(path, name)))
        except InputError as error:
            problems.append(str(error))
    plan = read_json(folder / "sweep.json") if (folder / "sweep.json").exists() else {"runs": [], "scoring_epochs": {}}
    begun = {path.name for path in paths}
    waiting = [entry["name"] for entry in plan["runs"] if entry["name"] not in begun]
    problems += [f"planned, not begun: {', '.join(waiting)}"] if waiting else []
    for what in ("data", "settings"):
        common = Counter(facts[what] for _, _, facts in read).most_common(1)
        for name, _, facts in read:
            if facts[what] != common[0][0]:
                problems.append(
                    f"{name}: other {what} than most runs ({_differences(facts[what], common[0][0])}); left out"
                )
        read = [entry for entry in read if entry[2][what] == common[0][0]]
    task = read[0][2]["settings"][0][1] if read else ""
    return _gathered(folder, [result for _, result, _ in read], problems, plan["scoring_epochs"], task)


def read_csv(path) -> Runs:
    """The same from a report's `results.csv`, the recorded form of its runs; seconds are not in it. Raises InputError
    where a column is missing, a value is no number, or there is no row."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    missing = [name for name in CSV_COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{path}: has no column {missing[0]!r}; a report writes results.csv with {', '.join(CSV_COLUMNS)}"
        )
    results, scoring = [], {}
    for number, row in enumerate(rows, 2):
        try:
            values = {name: float(row[name]) for name in columns if name not in CSV_COLUMNS and row[name] != ""}
            subset = {name: value for name, value in values.items() if name.startswith(SUBSET)}
            results.append(Result(
                name=row["run"], strategy=row["strategy"], data_pct=float(row["data_pct"]), budget=row["budget"],
                seed=int(row["seed"]), m=int(row["examples"]), cost=float(row["cost_epochs"]), seconds=None,
                scores={name: value for name, value in values.items() if name not in subset}, subset=subset,
                collapsed=row["failed"] == "yes",
            ))  # fmt: skip
            scoring[row["strategy"]] = float(row["scoring_epochs"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    return _gathered(path, results, [], scoring, rows[0]["task"] if rows else "")


def csv_rows(runs: Runs) -> list[list]:
    """What `read_csv` reads: the header, then a row per run, failed seeds among them."""
    columns, chosen = runs.columns, runs.subset_columns
    return [[*CSV_COLUMNS, *columns, *chosen]] + [
        [
            *(runs.task, r.name, r.strategy, r.data_pct, r.budget, r.seed, r.m, round(r.cost, 6)),
            *(round(float(runs.scoring.get(r.strategy, 0.0)), 6), "yes" if r.collapsed else "no"),
            *(r.scores.get(name, "") for name in columns),
            *(r.subset.get(name, "") for name in chosen),
        ]
        for r in runs.results
    ]


def _gathered(source, results: list[Result], problems: list[str], scoring: dict[str, float], task: str) -> Runs:
    """Name the failed and the missing seeds; order the rest. Raises InputError where no seed is left to average over."""
    results = sorted(results, key=_order)
    failed = ", ".join(result.name for result in results if result.collapsed)
    problems = problems + (
        [f"failed seeds, the same answer to every dev example, counted, not averaged in: {failed}"] if failed else []
    )
    if all(result.collapsed for result in results):
        raise InputError(f"{source}: no finished run to report" + (f"; {problems[0]}" if problems else ""))
    seeds = {result.seed for result in results}
    arms: dict[tuple, set[int]] = {}
    for result in results:
        arms.setdefault(result.arm, set()).add(result.seed)
    for (strategy, pct, kind), have in arms.items():
        if seeds - have:
            missing = ", ".join(map(str, sorted(seeds - have)))
            problems.append(f"{strategy} at {100 * pct:g} % (equal {kind}): seed {missing} missing")
    return Runs(results, problems, scoring, task)


def _order(result: Result):
    return result.budget, result.data_pct, {"all": 0, "random": 1}.get(result.strategy, 2), result.strategy, result.seed


def _read(path: Path, name: str) -> tuple[Result, dict]:
    if not (path / RESULTS_FILE).exists():
        log = path / "run.log"
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise InputError(f"{name}: unfinished or failed" + (f" ({last[0].strip()})" if last else ""))
    run, found = read_json(path / RUN_FILE), read_json(path / RESULTS_FILE)
    try:
        arguments, train, task = run["arguments"], found["train"], get_task(run["arguments"]["task_name"])
        scores = {task.dev[split].short: values[f"eval_{task.metrics[0]}"] for split, values in found["eval"].items()}
        selection, n = found["selection"], found["selection"]["n"]
    except KeyError as error:
        raise InputError(f"{name}: {RESULTS_FILE} has no {error}; it is not a training run with --do_eval") from None
    hans = path / "hans" / "hans_results.json"
    if hans.exists():
        hans = read_json(hans)
        for label, short in (("entailment", "entailed"), ("non-entailment", "non-entailed")):
            scores |= {f"{short} {h}": hans["by_heuristic"][h][label] for h in HEURISTICS}
            scores[f"HANS {short}"] = sum(scores[f"{short} {h}"] for h in HEURISTICS) / len(HEURISTICS)
        scores["HANS overall"] = (scores["HANS entailed"] + scores["HANS non-entailed"]) / 2
    strategy, online = arguments.get("strategy") or selection["method"], arguments.get("online")
    limited = arguments.get("max_steps") is not None
    share = arguments.get("data_pct") or selection["m"] / n
    if online:
        strategy = online
        if limited:
            share = train["examples"] / (n * arguments["num_train_epochs"])
    result = Result(
        name=path.name,
        strategy=strategy,
        data_pct=round(share, 3),
        budget="steps" if limited and not online else "epochs",
        seed=arguments["seed"],
        m=selection["m"],
        scores=scores,
        cost=(train["examples"] + FORWARD * train["probed"]) / n,
        seconds=train["seconds"],
        subset=_subset(path / CARD_FILE),
        collapsed=_is_constant(path / f"predictions_{next(iter(task.dev))}.tsv"),
    )
    given = {key: arguments.get(key) for key in SETTINGS}
    return result, {
        "data": tuple((split, facts["fingerprint"]) for split, facts in run["data"].items()),
        "settings": tuple(given.items()),
    }


def _subset(path: Path) -> dict[str, float]:
    """What `selection.json` says of the chosen examples; nothing where there is none."""
    if not path.exists():
        return {}
    card = read_json(path)
    facts = {f"{SUBSET}{label}": shares["subset"] for label, shares in card.get("labels", {}).items()}
    facts |= {f"{AGAINST}{name}": count["subset"] for name, count in card.get("contradicts", {}).items()}
    return {name: round(float(value), 6) for name, value in facts.items()}


def _differences(one: tuple, other: tuple) -> str:
    return (
        ", ".join(f"{a[0]} {a[1]} instead of {b[1]}" for a, b in zip(one, other, strict=False) if a != b)
        or "more splits"
    )


def _is_constant(path: Path) -> bool:
    """Whether a predictions file of several rows holds one answer only."""
    if not path.exists():
        return False
    answers = [line.split("\t")[2] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return len(answers) > 1 and len(set(answers)) == 1
