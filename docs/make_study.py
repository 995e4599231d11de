"""Copies the tables of the study's reports into the pages that show them, and draws docs/study.png: run it after
`python report.py study/results.csv`.

  python -m docs.make_study

A page says where a table comes from, and which of its rows it shows; the lines up to the end mark are replaced:

  <!-- study/results.md: At a glance; only random, poe -->
  <!-- end -->

Two tables are in no report. `<!-- study/results.csv: By proxy run -->` is the difference from random within each block of
seeds, `<!-- benchmarks/results/datamodels.json: Do scores predict retraining -->` the result of benchmarks/datamodels.py.
"""

import re
from pathlib import Path

import numpy as np

from benchmarks import datamodels
from hans.challenge import HANS
from study.collect import CONFIDENCE
from utils.errors import InputError, run_script
from utils.figure_style import ACCENT, direct_labels, new_figure
from utils.files import read_json, write_text
from utils.flags import OBJECTIVES
from utils.report.comparison import differences_from_random
from utils.report.recorded import read_csv

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(ROOT / name for name in ("README.md", "docs/study.md"))
COPIED = re.compile(
    r"(?P<head><!-- (?P<report>\S+): (?P<title>[^;>]+?)(?:; only (?P<rows>[^>]+?))? -->\n)(?:(?!<!-- ).)*?(?P<end><!-- end -->)",
    re.S,
)
FIGURE = ROOT / "docs" / "study.png"
RESULTS = ROOT / "study" / "results.csv"
SHARE = 0.1  # of the main comparison
# Seeds whose scores come from one proxy run.
BLOCKS = (range(3), range(3, 10), range(10, 13), range(13, 18), range(18, 22), range(22, 32))
RANDOM_EXAMPLES = (*OBJECTIVES, "jtt_random")  # arms that train on what random chooses
NAMES = "chosen by"  # the column whose values select rows


def main() -> None:
    for page in PAGES:
        write_text(page, filled(page.read_text(encoding="utf-8")))
        print(f"written: {page.relative_to(ROOT)}")
    draw(RESULTS, FIGURE)
    print(f"written: {FIGURE.relative_to(ROOT)}")


def filled(text: str) -> str:
    """The page with every copied table as its report has it now."""
    if len(COPIED.findall(text)) != len(re.findall(r"<!-- \S+\.(?:md|csv|json):", text)):
        raise InputError("a table is not marked as docs/make_study.py says: its first or its end mark is not complete")
    return COPIED.sub(lambda found: f"{found['head']}\n{_table(**_source(found))}\n\n{found['end']}", text)


def _source(found: re.Match) -> dict:
    rows = found["rows"]
    return {"report": found["report"], "title": found["title"], "only": rows and rows.split(", ")}


def _table(report: str, title: str, only: list[str] | None) -> str:
    """The lines of one table. Raises InputError where the report has no such table or row."""
    if ROOT / report == RESULTS:
        return by_proxy_run(RESULTS)
    if ROOT / report == datamodels.RESULT:
        return datamodels.table(read_json(datamodels.RESULT)["scores"])
    section = re.search(rf"^## {re.escape(title)}\n\n((?:\|.*\n)+)", (ROOT / report).read_text(encoding="utf-8"), re.M)
    if section is None:
        raise InputError(f"{report}: has no table {title!r}")
    header, line, *rows = section[1].splitlines()
    if only is not None:
        if NAMES not in _cells(header):
            raise InputError(f"{report}: {title} has no column {NAMES!r}, which `only` looks at")
        place = _cells(header).index(NAMES)
        names = [_cells(row)[place] for row in rows]
        missing = [name for name in only if name not in names]
        if missing:
            raise InputError(f"{report}: {title} has no row of {missing[0]}")
        rows = [row for row, name in zip(rows, names, strict=True) if name in only]
    return "\n".join([header, line, *rows])


def _cells(row: str) -> list[str]:
    return row.strip("| ").split(" | ")


def by_proxy_run(results: Path) -> str:
    """Difference from random in dev accuracy, paired by seed: its mean (and the number of seeds) in each block, for arms that
    have seeds in two blocks at least."""
    runs = read_csv(results, challenges=(HANS,))
    arms = {arm: own for arm, own in runs.arms.items() if arm[1:] == (SHARE, "epochs")}
    if lost := {r.seed for own in arms.values() for r in own} - {seed for seeds in BLOCKS for seed in seeds}:
        raise InputError(f"{results}: seed {min(lost)} is in no block of BLOCKS; say which proxy run it has")
    blocks = [
        differences_from_random(
            {arm: [r for r in own if r.seed in seeds] for arm, own in arms.items()}, {"dev": runs.dev}
        )
        for seeds in BLOCKS
    ]
    rows = [[NAMES, *(f"seeds {seeds[0]} to {seeds[-1]}" for seeds in BLOCKS)]]
    for arm in arms:
        if sum(arm in block for block in blocks) > 1:
            found = [block[arm]["dev"] if arm in block else None for block in blocks]
            rows.append([arm[0], *(f"{own.mean:+.1f} ({own.n})" if own else "-" for own in found)])
    header, *lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, "|" + "---|" * len(rows[0]), *lines])


def draw(results: Path, path: Path) -> None:
    """Dev accuracy against the confidence of the chosen examples, and HANS against dev accuracy; a mark for each arm."""
    runs = read_csv(results, challenges=(HANS,))
    arms = {strategy: own for (strategy, *place), own in runs.arms.items() if place == [SHARE, "epochs"] and own}

    def mean(own: list, columns) -> float:
        return float(np.mean([result.mean(columns) for result in own]))

    known = {
        strategy: [r for r in own if CONFIDENCE in r.subset]
        for strategy, own in arms.items()
        if strategy not in RANDOM_EXAMPLES
    }
    chosen = {
        strategy: (100 * float(np.mean([r.subset[CONFIDENCE] for r in own])), mean(own, runs.dev))
        for strategy, own in known.items()
        if own
    }
    tested = {strategy: (mean(own, runs.dev), mean(own, [HANS.headline])) for strategy, own in arms.items()}
    with new_figure(path, 3.2, formats=(".png",)) as figure:
        left, right = figure.subplots(1, 2)
        for axes, points in ((left, chosen), (right, tested)):
            axes.scatter(*zip(*points.values(), strict=True), s=14, color=ACCENT)
            axes.scatter(*points["random"], s=22, color="black", marker="s")
            axes.grid()
            axes.margins(0.12)
        left.set(xlabel="confidence of the chosen examples, %", ylabel="dev accuracy, %")
        right.set(xlabel="dev accuracy, %", ylabel="accuracy on HANS non-entailed, %")
        for axes, points in ((left, chosen), (right, tested)):
            direct_labels(axes, points)


if __name__ == "__main__":
    run_script(main)
