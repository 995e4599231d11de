"""results.csv: the recorded form of a report's runs, from which the report can be made again."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from utils.data.challenge import ChallengeColumns, grouped_sets
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.report.claims import CLAIM_COLUMNS, CLAIMS_FILE, Claim, claim_of
from utils.report.fields import cell, rounded_share
from utils.report.results import IDENTITY, SUBSET, LookPlan, Result, Runs, gather, largest_costs
from utils.report.verdict import metrics_of

TIMINGS_FILE = "timings.csv"  # beside a results.csv
SECONDS = "seconds_training"
LOOKS = "looks"  # of a sweep that stops early: `5 10 20; 1; 6`, the seeds, the smallest difference, the number of arms
# The first columns. Those of IDENTITY follow (files of earlier versions lack them), then the scores.
CSV_COLUMNS = (
    "task", "run", "strategy", "data_pct", "budget", "seed", "examples", "cost_epochs", "scoring_epochs", "failed",
)  # fmt: skip


def csv_rows(runs: Runs) -> list[list]:
    """What `read_csv` reads: the header, then a row per run, failed seeds among them."""
    columns, chosen = runs.columns, runs.subset_columns
    identity = IDENTITY if any(value for r in runs.results for value in r.identity.values()) else ()
    looks = [_looks_text(runs.looks)] if runs.looks else []
    return [[*CSV_COLUMNS, *identity, *([LOOKS] if looks else []), *columns, *chosen]] + [
        [
            *(runs.task, r.name, r.strategy, r.data_pct, r.budget, r.seed, r.m, round(r.cost, 6)),
            *(round(float(runs.scoring.get(r.strategy, 0.0)), 6), "yes" if r.collapsed else "no"),
            *(r.identity.get(name, "") for name in identity),
            *looks,
            *(r.scores.get(name, "") for name in columns),
            *(r.subset.get(name, "") for name in chosen),
        ]
        for r in runs.results
    ]


def timing_rows(runs: Runs) -> list[list]:
    """The rows of timings.csv: the header, then a row per run whose seconds are known."""
    return [["run", SECONDS], *([r.name, round(r.seconds, 2)] for r in runs.results if r.seconds is not None)]


def csv_text(rows: list[list]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def read_csv(path, *, challenges: Sequence[ChallengeColumns] = ()) -> Runs:
    """The runs of a results.csv, with their seconds where a timings.csv stands beside it, and what papers say of them where
    a claims.csv does. Raises InputError where a column is missing, a value is of the wrong kind, or there is no row."""
    path = Path(path)
    columns, rows = _rows(path, CSV_COLUMNS)
    seconds = _seconds(path.with_name(TIMINGS_FILE))
    task = rows[0][1]["task"] if rows else ""
    dev = _dev_columns(path, task, columns, challenges)
    results, scoring = [], []
    for where, row in rows:
        if row["task"] != task:
            raise InputError(f"{where}: task is {row['task']!r}, above it is {task!r}; a file holds one task only")
        result = _result(row, columns, where)
        missing = [name for name in dev if name not in result.scores]
        if missing:
            raise InputError(f"{where}: {missing[0]} is empty, expected a number")
        results.append(dataclasses.replace(result, seconds=seconds.get(result.name)))
        scoring.append((result.strategy, cell(row, "scoring_epochs", where, float)))
    looks = _read_looks(*rows[0]) if rows else None
    for where, row in rows:
        if row.get(LOOKS, "") != rows[0][1].get(LOOKS, ""):
            raise InputError(
                f"{where}: {LOOKS} is {row[LOOKS]!r}, above it is {rows[0][1][LOOKS]!r}; report them apart"
            )
    costs, problems = largest_costs(scoring)
    runs = gather(path, results, problems, scoring=costs, task=task, dev=dev, challenges=challenges, looks=looks)
    metrics = list(dict.fromkeys([*metrics_of(runs), *(name for c in challenges for name in c.compared)]))
    return dataclasses.replace(runs, claims=_claims(path.with_name(CLAIMS_FILE), metrics))


def _looks_text(looks: LookPlan) -> str:
    return f"{' '.join(map(str, looks.seeds))}; {looks.smallest:g}; {looks.arms}"


def _read_looks(where: str, row: dict[str, str]) -> LookPlan | None:
    if not row.get(LOOKS):
        return None
    try:
        seeds, smallest, arms = row[LOOKS].split(";")
        return LookPlan(tuple(int(n) for n in seeds.split()), float(smallest), int(arms))
    except ValueError:
        raise InputError(f"{where}: {LOOKS} is {row[LOOKS]!r}, expected a text like '5 10 20; 1; 6'") from None


def _seconds(path: Path) -> dict[str, float]:
    """{run: seconds} of a timings.csv, empty where there is none."""
    if not path.exists():
        return {}
    return {row["run"]: cell(row, SECONDS, where, float) for where, row in _rows(path, ("run", SECONDS))[1]}


def _claims(path: Path, metrics: list[str]) -> tuple[Claim, ...]:
    """What a claims.csv says of these metrics, nothing where there is none."""
    rows = _rows(path, CLAIM_COLUMNS)[1] if path.exists() else []
    return tuple(claim_of(row, where, metrics) for where, row in rows)


def _rows(path: Path, expected: tuple[str, ...]) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The header, and for each row how messages name it and {column: text}."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets begin a file with a byte order mark
            reader = csv.reader(file, strict=True)
            lines = [(f"{path}: line {reader.line_num}", line) for line in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not readable as CSV ({error}); it was cut short or is another kind of file"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    header = lines[0][1] if lines else []
    missing = [name for name in expected if name not in header]
    if missing:
        raise InputError(
            f"{path}: has no column {missing[0]!r}; expected are, separated by commas: {', '.join(expected)}"
        )
    doubled = [name for name in header if header.count(name) > 1]
    if doubled:
        raise InputError(f"{path}: has the column {doubled[0]!r} more than once; remove one of them")
    for where, line in lines:
        if line and len(line) != len(header):
            raise InputError(f"{where}: {len(line)} values, the header has {len(header)} columns")
    return header, [(where, dict(zip(header, line, strict=True))) for where, line in lines[1:] if line]


def _dev_columns(path: Path, task: str, columns: list[str], challenges) -> list[str]:
    """The dev accuracies: those that the task's record names; of an unknown task, all scores but those of challenge sets."""
    known = [*CSV_COLUMNS, *IDENTITY, LOOKS]
    scores = [name for name in columns if name not in known and not name.startswith(SUBSET)]
    try:
        expected = [split.short for split in get_task(task).dev.values()]
    except InputError:
        sets = [*challenges, *grouped_sets(scores)]
        expected = [name for name in scores if not any(name in challenge.columns for challenge in sets)]
    missing = [name for name in expected if name not in scores]
    if (missing or not expected) and task:
        raise InputError(
            f"{path}: has no column {missing[0] if missing else 'of dev accuracy'!r} for the task {task!r}"
        )
    return expected


def _result(row: dict[str, str], columns: list[str], where: str) -> Result:
    for name, allowed in (("budget", ("epochs", "steps")), ("failed", ("yes", "no"))):
        if row[name] not in allowed:
            raise InputError(f"{where}: {name} is {row[name]!r}, expected {' or '.join(allowed)}")
    others = [name for name in columns if name not in (*CSV_COLUMNS, *IDENTITY, LOOKS)]
    values = {name: cell(row, name, where, float) for name in others if row[name]}
    if row.get("pool"):
        cell(row, "pool", where, int)
    return Result(
        name=cell(row, "run", where),
        strategy=cell(row, "strategy", where),
        data_pct=rounded_share(cell(row, "data_pct", where, float)),
        budget=row["budget"],
        seed=cell(row, "seed", where, int),
        m=cell(row, "examples", where, int),
        cost=cell(row, "cost_epochs", where, float),
        scores={name: value for name, value in values.items() if not name.startswith(SUBSET)},
        subset={name: value for name, value in values.items() if name.startswith(SUBSET)},
        collapsed=row["failed"] == "yes",
        identity={name: row[name] for name in IDENTITY if row.get(name)},
    )
