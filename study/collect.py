"""Adds the finished runs of the study's sweeps to study/results.csv and study/timings.csv.

  python study/collect.py SWEEP_FOLDER ...

A run that is there already is replaced. A run without HANS is not finished, and left out. The model is called by its name,
since the path of its folder says nothing to others.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).resolve().parent
TABLES = ("results.csv", "timings.csv")


def merged(*tables: list[dict]) -> list[dict]:
    """The rows of all tables, each run once, in the order of its first row; the last row of a run counts."""
    rows = {row["run"]: row for table in tables for row in table}
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name, "") for name in columns} for row in rows.values()]


def main(folders: list[str]) -> None:
    found = {name: [read(STUDY / name)] for name in TABLES}
    for folder in filter(os.path.isdir, folders):
        done = subprocess.run([sys.executable, STUDY.parent / "report.py", folder], capture_output=True, text=True)
        if done.returncode:
            print(f"{folder}: {done.stderr.strip()}; left out", file=sys.stderr)
            continue
        rows = [row for row in read(Path(folder, "report", "results.csv")) if row.get("HANS overall")]
        for row in rows:
            row["model"] = Path(row["model"]).name
        names = {row["run"] for row in rows}
        found["results.csv"].append(rows)
        found["timings.csv"].append([r for r in read(Path(folder, "report", "timings.csv")) if r["run"] in names])
    for name, tables in found.items():
        rows = merged(*tables)
        if rows:
            write(STUDY / name, rows)
        print(f"{STUDY / name}: {len(rows)} runs")


def read(path: Path) -> list[dict]:
    """The rows of a CSV file, none where there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict]) -> None:
    new = path.with_suffix(".new")
    with open(new, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(new, path)


if __name__ == "__main__":
    main(sys.argv[1:])
