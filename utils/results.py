"""Finished runs as rows of numbers: reading run folders, and saying by name which ones cannot be used."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utils.runs import RESULTS_FILE, RUN_FILE, InputError, read_json
from utils.selector import FORWARD
from utils.tasks import get_task

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
# What must be alike for runs to stand in one table.
SETTINGS = (
    "task_name", "config_name", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "num_train_epochs", "max_seq_length", "freeze_layers", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "max_eval_samples",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One finished run. scores: {column: fraction}; cost: training epochs on all of the data that it took, forward
    passes counted as a third; seconds: of the training loop, as measured; collapsed: it gives every dev example the same
    answer, a failed seed, which is counted and named but not averaged in."""

    name: str
    strategy: str
    data_pct: float
    budget: str
    seed: int
    m: int
    scores: dict[str, float]
    cost: float
    seconds: float
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
    results = [result for _, result, _ in read]
    problems += [
        f"{name}: failed seed, it gives every dev example the same answer; counted, not averaged in"
        for name, result, _ in read
        if result.collapsed
    ]
    if all(result.collapsed for result in results):
        raise InputError(f"{folder}: no finished run to report" + (f"; {problems[0]}" if problems else ""))
    seeds = {result.seed for result in results}
    arms: dict[tuple, set[int]] = {}
    for result in results:
        arms.setdefault(result.arm, set()).add(result.seed)
    for (strategy, pct, kind), have in arms.items():
        if seeds - have:
            missing = ", ".join(map(str, sorted(seeds - have)))
            problems.append(f"{strategy} at {100 * pct:g} % (equal {kind}): seed {missing} missing")
    return Runs(sorted(results, key=_order), problems, plan["scoring_epochs"], read[0][2]["settings"][0][1])


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
        collapsed=_is_constant(path / f"predictions_{next(iter(task.dev))}.tsv"),
    )
    given = {key: arguments.get(key) for key in SETTINGS}
    return result, {
        "data": tuple((split, facts["fingerprint"]) for split, facts in run["data"].items()),
        "settings": tuple(given.items()),
    }


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
