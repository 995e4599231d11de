#!/usr/bin/env python3
"""Time and memory against the number of examples, from generated embeddings: float16, memory-mapped, 384 numbers each.

  python -m benchmarks.growth                                  # 10,000 to 1,000,000 rows
  python -m benchmarks.growth --sizes 1e4 1e5 1e6 1e7          # 7.7 GB in --work_dir, removed after each size

Each stage runs in a process of its own, on clusters, labels and training dynamics that are given. Memory is what a process
holds at most beside the mapped file, its other inputs included. Writes benchmarks/results/growth.json, docs/growth.png,
and the measured part of docs/growth.md.
"""

import math
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.selection import ASSIGNMENT, KMEANS, in_own_process, machine, make_data
from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.figure_style import new_figure
from utils.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
STAGES = (KMEANS, ASSIGNMENT, "diverse", "ccs", "cluster_ccs", "semdedup", "importance")
FITTED_FROM = 50_001  # rows: below, k-means is another algorithm, and starting costs more than growing
MARK = "<!-- measured by benchmarks.growth -->\n"
MANY = 1_000_000_000


def exponent(sizes, seconds) -> float | None:
    """Slope of log seconds over log n, by least squares; None where fewer than two sizes say anything."""
    import numpy as np

    points = [(math.log(n), math.log(s)) for n, s in zip(sizes, seconds, strict=True) if n >= FITTED_FROM and s > 0]
    return round(float(np.polyfit(*zip(*points, strict=True), 1)[0]), 2) if len(points) > 1 else None


def memory(row: dict) -> float:
    """GB beside the mapped file."""
    return row["inputs"] + row["peak_anonymous"]


def measure(args, n: int) -> dict:
    """Every stage at n rows."""
    args.n, folder = n, args.work_dir
    if n * args.d * 2.2 > shutil.disk_usage(folder.parent).free:
        raise InputError(f"--work_dir {folder}: too little space for {n} rows of {args.d} float16 numbers")
    try:
        make_data(args)
        return {name: in_own_process(args, name) for name in args.stages}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(found: dict) -> str:
    sizes = [int(n) for n in found["sizes"]]
    head = ["stage", *(f"{n:,} rows" for n in sizes), "grows with", "memory, largest"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, power in found["exponents"].items():
        rows = list(found["sizes"].values())
        cells = [f"{row[name]['cpu_seconds']:.2f} s" for row in rows]
        power = "" if power is None else f"n^{power:.2f}"
        lines.append(f"| {' | '.join([name, *cells, power, f'{memory(rows[-1][name]):.2f} GB'])} |")
    return "\n".join(lines)


def outlook(found: dict) -> str:
    """What a thousand million rows take, from the largest size measured."""
    n, rows = list(found["sizes"].items())[-1]
    times = MANY / int(n)
    hours = {name: row["cpu_seconds"] * times / 3600 for name, row in rows.items()}
    clusters = math.ceil(found["k"] * times)
    choosing = {name: memory(rows[name]) * times for name in ("diverse", "ccs", "cluster_ccs", "importance")}
    worst = max(choosing, key=choosing.get)
    fit = max(rows[KMEANS]["cpu_seconds"] - rows[ASSIGNMENT]["cpu_seconds"], 0.0)
    parts = [
        f"The file is {MANY * found['d'] * 2 / 1e9:,.0f} GB in float16.",
        f"Assignment to {found['k']} clusters takes {hours[ASSIGNMENT]:.1f} hours of one core, so "
        f"{math.ceil(hours[ASSIGNMENT])} shards of one core take an hour.",
        f"The fit takes {fit:.0f} s of one core at {int(n):,} rows. Its sample does not grow, but it reads the file twice: at "
        f"the speed of the disk, or {fit * times / 3600:.1f} hours if all of its time were to grow with n.",
        f"`diverse`, `ccs`, `cluster_ccs` and `importance` take {max(hours[name] for name in choosing):.1f} hours at most, in "
        f"one process that holds numbers for each row: up to {choosing[worst]:,.0f} GB (`{worst}`), so one machine with much "
        "memory.",
        f"`semdedup` takes n² / k comparisons: {hours['semdedup'] * times:,.0f} hours with {found['k']} clusters, "
        f"{hours['semdedup']:.1f} hours with {clusters:,}; then assignment takes {times:,.0f} times as long, "
        f"{hours[ASSIGNMENT] * times:,.0f} hours of one core.",
        "Texts are read whole. At about 200 bytes a pair they take 200 GB on disk and several times that in memory, so a "
        "training set of that size would have to be split.",
    ]
    return f"**1e9 rows**, at the rates of {int(n):,} rows:\n\n" + "\n".join(f"- {part}" for part in parts)


def draw(found: dict, path) -> None:
    with new_figure(path, 2.6, formats=(".png",)) as figure:
        left, right = figure.subplots(1, 2)
        sizes = [int(n) for n in found["sizes"]]
        for name, power in found["exponents"].items():
            rows = [row[name] for row in found["sizes"].values()]
            label = name if power is None else f"{name}, n^{power:.2f}"
            left.plot(sizes, [max(row["cpu_seconds"], 0.01) for row in rows], "o-", label=label)
            right.plot(sizes, [memory(row) for row in rows], "o-")
        left.set(xscale="log", yscale="log", xlabel="rows", title="processor seconds")
        right.set(xscale="log", yscale="log", xlabel="rows", title="GB beside the mapped file")
        figure.legend(loc="outside right center")


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e4, 1e5, 1e6], help="rows")
    parser.add_argument("--draw_only", action="store_true", help="measure nothing, make the page again")
    parser.add_argument("--d", type=positive_int, default=384, help="embedding width")
    parser.add_argument("--k", type=positive_int, default=512, help="clusters")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--work_dir", type=Path, default=Path(tempfile.gettempdir()) / "growth_benchmark")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "growth.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "growth.md")
    parser.set_defaults(dtype="float16", data_pct=0.1)
    args = parse_args(parser, argv)
    found = {"machine": machine(), "d": args.d, "k": args.k, "data_pct": args.data_pct, "sizes": {}}
    if args.output.exists():  # sizes that are not measured again stay, of the same width and number of clusters
        before = read_json(args.output)
        found["sizes"] = before["sizes"] if (before["d"], before["k"]) == (args.d, args.k) else {}
        found["machine"] = before["machine"] if args.draw_only else found["machine"]
    for n in () if args.draw_only else sorted(map(int, args.sizes)):
        rows = found["sizes"].setdefault(str(n), {})
        rows.update(measure(args, n))
        print(f"{n:,} rows:", {name: row.get("cpu_seconds", row) for name, row in rows.items()}, flush=True)
        found["sizes"] = dict(sorted(found["sizes"].items(), key=lambda item: int(item[0])))
        write_json(args.output, found)
    sizes = [int(n) for n in found["sizes"]]
    found["exponents"] = {
        name: exponent(sizes, [row[name]["cpu_seconds"] for row in found["sizes"].values()]) for name in STAGES
    }
    write_json(args.output, found)
    draw(found, args.page.with_suffix(".png"))
    text = f"{table(found)}\n\n{outlook(found)}\n"
    if args.page.exists():
        before, _, rest = args.page.read_text(encoding="utf-8").partition(MARK)
        write_text(args.page, f"{before}{MARK}\n{text}\n{MARK}{rest.partition(MARK)[2]}")
    print(text)


if __name__ == "__main__":
    run_script(main)
