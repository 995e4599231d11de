"""Copies the tables of the study's reports into the pages that show them: run it after `python report.py study/results.csv`.

  python -m docs.make_study

A page says where a table comes from, and which of its rows it shows; the lines up to the end mark are replaced:

  <!-- study/results.md: At a glance; only random, poe -->
  <!-- end -->
"""

import re
from pathlib import Path

from utils.errors import InputError, run_script
from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(ROOT / name for name in ("README.md", "docs/study.md"))
COPIED = re.compile(
    r"(?P<head><!-- (?P<report>\S+): (?P<title>[^;>]+?)(?:; only (?P<rows>[^>]+?))? -->\n).*?(?P<end><!-- end -->)",
    re.S,
)
NAMES = "chosen by"  # the column whose values select rows


def main() -> None:
    for page in PAGES:
        write_text(page, filled(page.read_text(encoding="utf-8")))
        print(f"written: {page.relative_to(ROOT)}")


def filled(text: str) -> str:
    """The page with every copied table as its report has it now."""
    return COPIED.sub(lambda found: f"{found['head']}\n{_table(**_source(found))}\n\n{found['end']}", text)


def _source(found: re.Match) -> dict:
    rows = found["rows"]
    return {"report": found["report"], "title": found["title"], "only": rows and rows.split(", ")}


def _table(report: str, title: str, only: list[str] | None) -> str:
    """The lines of one table. Raises InputError where the report has no such table or row."""
    section = re.search(rf"^## {re.escape(title)}\n\n((?:\|.*\n)+)", (ROOT / report).read_text(encoding="utf-8"), re.M)
    if section is None:
        raise InputError(f"{report}: has no table {title!r}")
    header, line, *rows = section[1].splitlines()
    if only is not None:
        place = _cells(header).index(NAMES)
        names = [_cells(row)[place] for row in rows]
        missing = [name for name in only if name not in names]
        if missing:
            raise InputError(f"{report}: {title} has no row of {missing[0]}")
        rows = [row for row, name in zip(rows, names, strict=True) if name in only]
    return "\n".join([header, line, *rows])


def _cells(row: str) -> list[str]:
    return row.strip("| ").split(" | ")


if __name__ == "__main__":
    run_script(main)
