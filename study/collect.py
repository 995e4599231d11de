"""Adds the finished runs of the study's sweeps to results.csv and timings.csv, in study/ or another folder.

  python -m study.collect SWEEP_FOLDER ...

A run that is there already is replaced. A run of the same name with other settings (data, learning rate, precision, version of the
method, ...) is named and left out. A run without HANS is not finished, and left out. The model is called by its name, since the
path of its folder says nothing to others. Of chosen examples their confidence is kept too: the mean probability that the sweep's
proxy run gives their labels, over its snapshots; where the proxy run is gone, the confidence that was recorded.
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
from utils.report.results import IDENTITY, SUBSET
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
    recorded = {row["run"]: row for row in results[0]}
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
        rows = of_same_settings([row | {"model": Path(row["model"]).name} for row in rows], recorded)
        chosen = {result.name: result.folder / "selection.npz" for result in runs.results}
        for row in rows:
            before = recorded.get(row["run"], {}).get(CONFIDENCE, "")
            row[CONFIDENCE] = confidence(chosen[row["run"]], folder / PROXY_DYNAMICS) or before
        names = {row["run"] for row in rows}
        results.append(rows)
        timings.append([row for row in records(timing_rows(runs)) if row["run"] in names])
    for name, tables in (("results.csv", results), (TIMINGS_FILE, timings)):
        rows = merged(*tables)
        if rows:
            write_text(args.output_dir / name, csv_text([list(rows[0]), *(list(row.values()) for row in rows)]))
        print(f"{args.output_dir / name}: {len(rows)} runs")


def of_same_settings(rows: list[dict], recorded: dict[str, dict]) -> list[dict]:
    """The rows but those of runs that are recorded with other settings, which are named."""
    kept = []
    for row in rows:
        known = recorded.get(row["run"], {})
        unlike = [name for name in IDENTITY if known.get(name, "") not in ("", str(row.get(name, "")))]
        for name in unlike:
            print(f"{row['run']}: {name} is {row[name]}, recorded is {known[name]}; left out", file=sys.stderr)
        kept += [] if unlike else [row]
    return kept


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
