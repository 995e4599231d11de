#!/usr/bin/env python3
"""Tables and curves from a folder of finished runs: what beats random, at which share of the data, and on HANS.

  python report.py $OUT/sweep [--output_dir DIR] [--published] [--latex]

Writes results.csv (a row per run), timings.csv, results.md (a verdict; means and standard deviations over seeds;
differences from `random`, paired by seed, with what could have been detected; cost), figures, and report.html, one page
that holds them all and needs no network. --latex adds a folder `latex`: tables for a paper, figures of a column's width.
Runs that cannot be used are named. Without HANS results those columns are absent. A results.csv that was kept stands for
its runs: `python report.py study/results.csv`. A claims.csv beside it holds what papers say, and the report then says
what was replicated.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, parse_args
from utils.errors import run_script
from utils.files import folder_lock


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", metavar="FOLDER", help="folder of runs, at any depth (a sweep's output, for example), or a results.csv"
    )
    parser.add_argument(
        "--output_dir", help="where the report goes (default: FOLDER/report, or the folder of results.csv)"
    )
    parser.add_argument(
        "--published", action="store_true", help="set the numbers published for ALBERT-base-v1 beside ours"
    )
    parser.add_argument(
        "--latex", action="store_true", help="tables and figures for a paper too, in the folder `latex`"
    )
    parser.add_argument(
        "--against",
        choices=("random", "all"),
        default="random",
        help="what differences are from: random at the same share, or the runs on everything",
    )
    parser.add_argument("--brief", action="store_true", help="print the overview alone")
    args = parse_args(parser, argv)

    from hans.challenge import HANS
    from utils.report.recorded import read_csv
    from utils.report.run_folders import load_runs
    from utils.report.tables import overview
    from utils.report.write import write_report

    source = Path(args.runs)
    recorded = source.suffix == ".csv"
    runs = (read_csv if recorded else load_runs)(source, challenges=(HANS,))
    if runs.looks and args.against != "random":
        parser.error(
            f"--against {args.against}: a sweep that stops early (--looks) compared its arms with random, and only so"
        )
    for problem in runs.problems:
        print(f"note: {problem}")
    out = Path(args.output_dir or (source.parent if recorded else source / "report"))
    with folder_lock(out):
        text = write_report(runs, out, published=args.published, against=args.against, latex=args.latex)
    print(overview(runs).markdown() if args.brief else text)
    print(f"the page to open: {out / 'report.html'}")


if __name__ == "__main__":
    run_script(main)
