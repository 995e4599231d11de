"""Reading the folders that training scripts and sweeps leave. Only their files are read; nothing of them is run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.costs import FORWARD
from utils.data.challenge import MEAN, WORST, ChallengeScores, grouped_column
from utils.data.predictions import read_predictions
from utils.data.tasks import Task, get_task
from utils.errors import InputError
from utils.files import read_json
from utils.flags import OBJECTIVE_FLAGS
from utils.report.fields import Fields, rounded_share
from utils.report.results import AGAINST, SUBSET, LookPlan, Result, Runs, gather, keep_alike, largest_costs
from utils.run_directory import CARD_FILE, RESULTS_FILE, RUN_FILE

PLAN_FILE = "sweep.json"
# Arguments that must be alike for runs to stand in one table. Model and learning rate are compared beside them.
SETTINGS = (
    "task_name", "config_name", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
    "max_seq_length", "freeze_layers", "weight_decay", "warmup_ratio", "warmup_steps",
    "lr_scheduler_type", "max_eval_samples",
)  # fmt: skip
# The same for newer flags, with the value that says what runs of earlier versions, which lack the flag, did.
NEWER_SETTINGS = {
    "optim": "adamw", "label_smoothing_factor": 0.0, "load_best_model_at_end": False, "metric_for_best_model": None,
    "early_stopping_patience": None, "max_grad_norm": 1.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
}  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """A finished run. name: its folder, relative to the one that was asked for. dev: names of its dev accuracies. data:
    fingerprint of each split that it was trained or evaluated on. choice: how its strategy and objective were set. tests: by
    challenge set, what it was evaluated on and how. max_steps: of a run of equal steps."""

    name: str
    result: Result
    task: str
    dev: tuple[str, ...]
    data: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, object], ...]
    choice: tuple[tuple[str, object], ...]
    tests: dict[str, tuple[tuple[str, object], ...]]
    max_steps: float | None


def load_runs(folder, *, challenges: Sequence[ChallengeScores] = ()) -> Runs:
    """All finished runs anywhere under `folder`. Raises InputError where there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    plans = {path.parent: _read_plan(path) for path in sorted(folder.rglob(PLAN_FILE))}
    planned = {(sweep / "runs" / name): share for sweep, plan in plans.items() for name, share in plan.shares.items()}
    problems, found = [], []
    paths = [path.parent for path in sorted(folder.rglob(RUN_FILE)) if "selector" not in path.relative_to(folder).parts]
    places = {path.resolve(): path for path in paths}
    for path in paths:
        name = str(path.relative_to(folder)) if path != folder else path.name
        try:
            found.append(_read(path, name, places, challenges, planned.get(path)))
        except InputError as error:
            problems.append(str(error))
    for path in sorted(folder.rglob(RESULTS_FILE)):
        if not path.with_name(RUN_FILE).exists() and "selector" not in path.relative_to(folder).parts:
            problems.append(f"{path.parent.relative_to(folder)}: {RESULTS_FILE} without {RUN_FILE}; left out")
    waiting = [path.name for path in planned if path not in paths]
    problems += [f"planned, not begun: {', '.join(waiting)}"] if waiting else []
    scoring, several = largest_costs(entry for plan in plans.values() for entry in plan.scoring.items())
    looks = next((plan.looks for plan in plans.values() if plan.looks), None)
    if looks and len(plans) > 1:
        raise InputError(
            f"{folder}: holds {len(plans)} sweeps, and one at least stops early (--looks): its intervals hold in that sweep "
            "alone. Report each sweep's folder by itself"
        )
    found, unlike = _alike(found)
    problems += [*unlike, *several]
    task, dev = (found[0].task, found[0].dev) if found else ("", ())
    results = [run.result for run in found]
    return gather(folder, results, problems, scoring=scoring, task=task, dev=dev, challenges=challenges, looks=looks)


def _alike(found: list[_Found]) -> tuple[list[_Found], list[str]]:
    """The runs that may stand in one table, and a line about each of the others."""
    # {how messages call the facts: facts(run)}. Runs whose facts are None are not compared.
    parts = {"data": lambda run: run.data, "settings": lambda run: run.settings}
    for share in dict.fromkeys(run.result.data_pct for run in found if run.max_steps):
        parts[f"number of steps at {100 * share:g} %"] = lambda run, share=share: (
            (("max_steps", run.max_steps),) if run.max_steps and run.result.data_pct == share else None
        )
    for arm in dict.fromkeys(run.result.arm for run in found):
        name = f"parameters of {arm[0]} at {100 * arm[1]:g} % (equal {arm[2]})"
        parts[name] = lambda run, arm=arm: run.choice if run.result.arm == arm else None
    for test in dict.fromkeys(test for run in found for test in run.tests):
        parts[f"{test} data"] = lambda run, test=test: run.tests.get(test)
    problems = []
    for what, facts in parts.items():
        alike, unlike = keep_alike([run for run in found if facts(run) is not None], facts, what, lambda run: run.name)
        found = [run for run in found if facts(run) is None or run in alike]
        problems += unlike
    return found, problems


@dataclass(frozen=True)
class _Plan:
    """shares: by name, the share of the data of each run that a sweep planned. scoring: what scoring cost per strategy."""

    shares: dict[str, float | None]
    scoring: dict[str, float]
    looks: LookPlan | None


def _read_plan(path: Path) -> _Plan:
    plan = Fields(read_json(path), str(path))
    looks = plan.part("settings", optional=True).part("looks", optional=True)
    found = None
    if looks.names:
        found = LookPlan(tuple(looks.listed("seeds", int)), looks.positive("smallest"), len(looks.listed("arms", str)))
    shares = {run.text("name"): run.positive("data_pct", optional=True) for run in plan.entries("runs")}
    return _Plan(shares, plan.part("scoring_epochs").numbers(), found)


def _read(path: Path, name: str, places: dict[Path, Path], challenges, planned: float | None) -> _Found:
    """One run. places: {resolved path: path} of all runs. planned: the share of the data that a sweep planned for it.

    Raises InputError where the run is unfinished or a file of it is damaged."""
    if not (path / RESULTS_FILE).exists():
        log = path / "run.log"
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise InputError(f"{name}: unfinished or failed" + (f" ({last[0].strip()})" if last else ""))
    run = Fields(read_json(path / RUN_FILE), f"{name}/{RUN_FILE}")
    found = Fields(read_json(path / RESULTS_FILE), f"{name}/{RESULTS_FILE}")
    arguments, train, selection = run.part("arguments"), found.part("train"), found.part("selection")
    given = arguments.text("task_name", optional=True)
    dev = _dev_scores(found, get_task(given) if given else None)
    n, m = selection.count("n", least=1), selection.count("m", least=1)
    objective = found.part("objective", optional=True)
    strategy, share, budget = _arm(arguments, train, selection)
    strategy, version = _with_objective(strategy, str(selection.plain("version") or 1), objective)
    model, gone_through = _origin(path, name, places)
    used = ("train", *found.part("eval").names)
    splits = run.part("data").parts().items()
    data = tuple((split, facts.text("fingerprint")) for split, facts in splits if split in used)
    settings = {key: arguments.plain(key) for key in SETTINGS} | {"model_name_or_path": model}
    if (batch := train.plain("batch_size")) == 0:  # only the last layer was fitted
        batch = arguments.count("per_device_train_batch_size") * arguments.count("gradient_accumulation_steps")
    settings["batch"] = batch
    settings |= {
        key: before if arguments.plain(key) is None else arguments.plain(key) for key, before in NEWER_SETTINGS.items()
    }
    identity = {
        "model": model or settings["config_name"],
        "data": dict(data).get("train"),
        "pool": n,
        "learning_rate": arguments.plain("learning_rate"),
        "precision": found.text("precision", optional=True),
        "version": version,
    }
    tested, tests = _challenge_scores(path, challenges)
    same_name = sum(other.name == path.name for other in places.values()) > 1
    result = Result(
        name=name if same_name else path.name,
        folder=path,
        strategy=strategy,
        data_pct=rounded_share(planned or share),
        budget=budget,
        seed=arguments.count("seed"),
        m=m,
        scores=dev | _group_scores(found) | tested,
        cost=sum(map(_cost, [found, *gone_through])),
        seconds=train.number("seconds"),
        subset=_subset(path / CARD_FILE, name),
        collapsed=_is_constant(path / f"predictions_{found.part('eval').names[0]}.tsv"),
        identity={key: str(value) for key, value in identity.items() if value is not None},
    )
    choice = selection.part("parameters", optional=True).plain_values()
    choice |= {key: selection.plain(key) for key in ("class_balanced", "started_from")}
    choice["replacement"] = arguments.plain("replacement")
    if objective.names:
        read = [key for key, readers in OBJECTIVE_FLAGS.items() if objective.text("name") in readers]
        choice |= {key: arguments.plain(key) for key in read if not key.endswith("_path")}
    fingerprints = run.part("challenge sets", optional=True).plain_values()
    own_tests = {test: (("fingerprint", fingerprint),) for test, fingerprint in fingerprints.items()}
    return _Found(
        name, result, given or found.text("task"), tuple(dev), data, tuple(settings.items()),
        tuple((key, value) for key, value in choice.items() if value not in (None, False)), own_tests | tests,
        arguments.number("max_steps", optional=True) if budget == "steps" else None,
    )  # fmt: skip


def _arm(arguments: Fields, train: Fields, selection: Fields) -> tuple[str, float, str]:
    """Strategy, share of the data, and what all shares have alike."""
    n, online = selection.count("n", least=1), arguments.text("online", optional=True)
    limited = arguments.number("max_steps", optional=True) is not None
    given = arguments.positive("data_pct", optional=True)
    share = given or selection.count("m") / n
    if not online or given:  # of the schemes, those that choose a subset in each epoch read data_pct
        strategy = online or arguments.text("strategy", optional=True) or selection.text("method")
        return strategy, share, "steps" if limited else "epochs"
    if limited:  # the share is a share of the steps
        share = train.count("examples") / (n * arguments.positive("num_train_epochs"))
    return online, share, "epochs"


def _with_objective(strategy: str, version: str, objective: Fields) -> tuple[str, str]:
    """Name and version of an arm: those of the objective alone where the examples are all of the data or a random part."""
    name, own = objective.text("name", optional=True), str(objective.plain("version") or 1)
    if name is None:
        return strategy, version
    return (name, own) if strategy in ("all", "random") else (f"{strategy}+{name}", f"{version}+{own}")


def _cost(results: Fields) -> float:
    """What a run took, with what it made before it trained, in training epochs on everything."""
    train, selection = results.part("train"), results.part("selection")
    examples = train.count("examples") + FORWARD * train.count("probed")
    before = [
        results.part("objective", optional=True).number("teacher_epochs", optional=True),
        selection.number("making_epochs", optional=True),
    ]
    return examples / selection.count("n", least=1) + sum(epochs or 0.0 for epochs in before)


def _origin(path: Path, name: str, places: dict[Path, Path]) -> tuple[str | None, list[Fields]]:
    """The checkpoint that a run started from, and the results of the other runs here that it goes on from: then the
    checkpoint is that of the first of them.

    Where no run lies at its path, a sweep's folder may have been moved since: then it is the run of that name beside this
    one, or the only one here whose path ends so.
    """
    seen: set[Path] = set()
    gone_through = []
    while True:
        seen.add(path)
        model = Fields(read_json(path / RUN_FILE), f"{name}/{RUN_FILE}").part("arguments").text(
            "model_name_or_path", optional=True
        )  # fmt: skip
        before = _run_at(Path(model), path, places) if model else None
        if before is None or before in seen:
            return model, gone_through
        path, name = before, before.name
        if (path / RESULTS_FILE).exists():
            gone_through.append(Fields(read_json(path / RESULTS_FILE), f"{name}/{RESULTS_FILE}"))


def _run_at(model: Path, path: Path, places: dict[Path, Path]) -> Path | None:
    """The run among `places` that a run at `path` names as its checkpoint."""
    if (exact := places.get(model.resolve())) is not None:
        return exact
    ends = [other for place, other in places.items() if len(model.parts) > 1 and place.parts[-2:] == model.parts[-2:]]
    beside = [other for other in ends if other.parent == path.parent]
    return (beside or (ends if len(ends) == 1 else [None]))[0]


def _dev_scores(found: Fields, task: Task | None) -> dict[str, float]:
    """The headline metric on each dev split: of a task with a record, under the names of the record; else the metric that
    stands first, under the names of the splits."""
    splits = found.part("eval")
    if not splits.names:
        raise InputError(f"{found.file}: eval is empty; it is not a training run with --do_eval")
    if task is None:
        return {name: facts.number(facts.names[0]) for name, facts in splits.parts().items() if facts.names}
    return {split.short: splits.part(name).number(f"eval_{task.metrics[0]}") for name, split in task.dev.items()}


def _group_scores(found: Fields) -> dict[str, float]:
    """Accuracies on the challenge sets that the run evaluated itself."""
    scores = {}
    for name, facts in found.part("challenge", optional=True).parts().items():
        if ":" in name or SUBSET.startswith(f"{name}:"):
            raise InputError(f"{found.file}: challenge.{name}: a challenge set needs another name, without a colon")
        groups = facts.part("groups").fractions()
        scores |= {grouped_column(name, group): value for group, value in groups.items()}
        scores[grouped_column(name, WORST)] = facts.fraction("worst_group")
        scores[grouped_column(name, MEAN)] = facts.fraction("mean_over_groups")
    return scores


def _challenge_scores(path: Path, challenges) -> tuple[dict[str, float], dict[str, tuple]]:
    """Accuracies on the challenge sets that a script of their own evaluated, where it did; and by set, what it was evaluated on
    and how. Older files say less."""
    scores, tests = {}, {}
    for challenge in challenges:
        file = path / challenge.results_file
        if not file.exists():
            continue
        try:
            own = challenge.read(content := read_json(file))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{file}: not the results of {challenge.name}: {error} is missing or of another kind; evaluate the run again"
            ) from None
        scores |= Fields(own, str(file)).fractions()
        facts = Fields(content, str(file))
        tests[challenge.name] = (
            ("fingerprint", facts.part("data", optional=True).plain("fingerprint")),
            ("pairs", facts.plain("n")),
            ("collapse", facts.plain("collapse")),
        )
    return scores, tests


def _subset(path: Path, name: str) -> dict[str, float]:
    """What `selection.json` says of the chosen examples; nothing where there is none."""
    if not path.exists():
        return {}
    card = Fields(read_json(path), f"{name}/{CARD_FILE}")
    labels, contradicts = (card.part(key, optional=True).parts() for key in ("labels", "contradicts"))
    facts = {f"{SUBSET}{label}": shares.number("subset") for label, shares in labels.items()}
    facts |= {f"{AGAINST}{heuristic}": count.number("subset") for heuristic, count in contradicts.items()}
    return {name: round(float(value), 6) for name, value in facts.items()}


def _is_constant(path: Path) -> bool:
    """Whether a run gives every dev example the same answer. False where it wrote no predictions."""
    return path.exists() and read_predictions(path).one_answer
