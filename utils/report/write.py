"""All files of a report, from its runs. The same runs give the same files, but for timings.csv."""

from pathlib import Path

from utils.files import write_text
from utils.report.figures import draw
from utils.report.latex import write_latex
from utils.report.page import page
from utils.report.recorded import TIMINGS_FILE, csv_rows, csv_text, timing_rows
from utils.report.results import Runs
from utils.report.tables import every_run, tables_of


def write_report(
    runs: Runs, out: Path, *, published: bool = False, against: str = "random", latex: bool = False
) -> str:
    """Write every file of the report into `out` and return the text of results.md. published: set the published numbers
    beside ours; against: `random`, or `all` to compare every arm with the runs on everything; latex: a folder `latex` too,
    with what a paper includes."""
    title, tables = f"Results: {runs.task}", tables_of(runs, with_published=published, against=against)
    write_text(out / "results.csv", csv_text(csv_rows(runs)))
    if len(timings := timing_rows(runs)) > 1:
        write_text(out / TIMINGS_FILE, csv_text(timings))
    text = "\n\n".join([f"# {title}", *(table.markdown() for table in tables)])
    write_text(out / "results.md", text + "\n")
    write_text(out / "report.html", page(title, [*tables, every_run(runs, out)], draw(runs, out, against=against), out))
    if latex:
        write_latex(runs, out / "latex", against=against)
    return text
