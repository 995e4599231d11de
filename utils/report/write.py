"""All files of a report, from its runs. The same runs give the same files, but for timings.csv."""

import csv
import io
from pathlib import Path

from utils.files import write_text
from utils.report.figures import draw
from utils.report.latex import write_latex
from utils.report.page import page
from utils.report.recorded import SECONDS, TIMINGS_FILE, csv_rows
from utils.report.results import Runs
from utils.report.tables import every_run, tables_of


def write_report(
    runs: Runs, out: Path, *, published: bool = False, against: str = "random", latex: bool = False
) -> str:
    """Write every file of the report into `out` and return the text of results.md. published: set the published numbers
    beside ours; against: `random`, or `all` to compare every arm with the runs on everything; latex: a folder `latex` too,
    with what a paper includes."""
    title, tables = f"Results: {runs.task}", tables_of(runs, with_published=published, against=against)
    write_text(out / "results.csv", _csv(csv_rows(runs)))
    timed = [[result.name, round(result.seconds, 2)] for result in runs.results if result.seconds is not None]
    if timed:
        write_text(out / TIMINGS_FILE, _csv([["run", SECONDS], *timed]))
    text = "\n\n".join([f"# {title}", *(table.markdown() for table in tables)])
    write_text(out / "results.md", text + "\n")
    write_text(out / "report.html", page(title, [*tables, every_run(runs, out)], draw(runs, out, against=against), out))
    if latex:
        write_latex(runs, out / "latex", against=against)
    return text


def _csv(rows: list[list]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
