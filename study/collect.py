"""Adds the finished runs of the study's sweeps to results.csv and timings.csv, in study/ or another folder.

  python -m study.collect SWEEP_FOLDER ...

A run that is there already is replaced, unless it was trained in another precision, as the other arms of its seed were. A run
without HANS is not finished, and left out. The model is called by its name, since the path of its folder says nothing to
others. Of chosen examples their confidence is kept too: the mean probability that the sweep's proxy run gives their labels, over
its snapshots.
"""

import csv
import functools
import sys
from pathlib import Path

import numpy as np

from hans.challenge import HANS
from utils.command_line import ArgumentParser, parse_args
from utils.errors import InputError, run_script
from utils.files import write_text
from utils.report.recorded import TIMINGS_FILE, csv_rows, csv_text, timing_rows
from utils.report.results import SUBSET
from utils.report.run_folders import load_runs
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection

CONFIDENCE = f"{SUBSET}confidence"  # a column of results.csv
PROXY_DYNAMICS = Path("selector", "proxy_run", "dynamics.npz")


def merged(*tables: list[dict]) -> list[dict]:
    """The rows of all tables, each run once, in the order of its first row; the last row of a run counts."""
    rows = {row["run"]: row for table in tables for row in table}
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name, "") for name in columns} for row in rows.values()]


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, prog="study.collect")
    parser.add_argument("folders", nargs="+", type=Path, metavar="SWEEP_FOLDER")
    parser.add_argument("--output_dir", type=Path, default=Path("study"), help="folder of the collected rows")
    args = parse_args(parser, argv)
    results, timings = [read(args.output_dir / "results.csv")], [read(args.output_dir / TIMINGS_FILE)]
    for folder in args.folders:
        if not folder.is_dir():  # a pattern of the shell that fits nothing
            continue
        try:
            runs = load_runs(folder, challenges=(HANS,))
        except InputError as error:
            print(f"{error}; left out", file=sys.stderr)
            continue
        for problem in runs.problems:
            print(f"{folder}: {problem}", file=sys.stderr)
        rows = [row for row in records(csv_rows(runs)) if row.get(HANS.headline, "") != ""]
        rows = in_same_precision(rows, results[0])
        chosen = {result.name: result.folder / "selection.npz" for result in runs.results}
        for row in rows:
            row["model"] = Path(row["model"]).name
            row[CONFIDENCE] = confidence(chosen[row["run"]], folder / PROXY_DYNAMICS)
        names = {row["run"] for row in rows}
        results.append(rows)
        timings.append([row for row in records(timing_rows(runs)) if row["run"] in names])
    for name, tables in (("results.csv", results), (TIMINGS_FILE, timings)):
        rows = merged(*tables)
        if rows:
            write_text(args.output_dir / name, csv_text([list(rows[0]), *(list(row.values()) for row in rows)]))
        print(f"{args.output_dir / name}: {len(rows)} runs")


def in_same_precision(rows: list[dict], recorded: list[dict]) -> list[dict]:
    """The rows but those of runs that are recorded in another precision, which are named."""
    before = {row["run"]: row["precision"] for row in recorded if row.get("precision")}
    unlike = [row for row in rows if before.get(row["run"], row["precision"]) != row["precision"]]
    for row in unlike:
        print(f"{row['run']}: in {row['precision']}, but recorded in {before[row['run']]}; left out", file=sys.stderr)
    return [row for row in rows if row not in unlike]


def confidence(selection: Path, dynamics: Path) -> float | str:
    """Mean confidence of the chosen examples; "" where there is no choice, or no proxy run."""
    if not (selection.exists() and dynamics.exists()):
        return ""
    return round(float(_confidence_of_all(dynamics)[Selection.load(selection).indices].mean()), 6)


@functools.cache  # all runs of a sweep ask for the same
def _confidence_of_all(dynamics: Path) -> np.ndarray:
    return Dynamics.load(dynamics).confidence()


def records(rows: list[list]) -> list[dict]:
    """Rows below a header as {column: value}."""
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def read(path: Path) -> list[dict]:
    """The rows of a CSV file, none where there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return records([*csv.reader(file)])


if __name__ == "__main__":
    run_script(main)
