"""The report of a sweep: numbers into tables, curves and one HTML page. Reading runs is `utils/results`, statistics are
`utils/comparison`; the same runs give the same files, but for timings.csv.
"""

import base64
import csv
import html
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np

from utils.files import atomic_path, write_text
from utils.report.comparison import ALPHA, Difference, holm, mean_and_std, paired_difference
from utils.report.published import PUBLISHED
from utils.report.results import AGAINST, HEURISTICS, SUBSET, Result, Runs, csv_rows

# Beside the dev accuracies. Overall, both sides weigh the same: answering one class more often gains nothing there.
COMPARED = ("HANS non-entailed", "HANS entailed", "HANS overall")
COLOURS = 20  # of the map that lines are drawn in; `random` and `all` are black
MARKERS = "osD^v<>PX*"


def write_report(runs: Runs, out: Path, *, published: bool = False) -> str:
    """Write every file of the report and return results.md's text."""
    arms: dict[tuple, list[Result]] = {result.arm: [] for result in runs.results}  # without the failed seeds
    for result in runs.results:
        if not result.collapsed:
            arms[result.arm].append(result)
    failed = Counter(result.arm for result in runs.results if result.collapsed)
    columns = runs.columns
    dev = [name for name in columns if not name.startswith(("HANS", "entailed", "non-entailed"))]
    tables = [overview_table(arms, failed, dev, columns), main_table(arms, failed, dev, columns)]
    if any(strategy not in ("all", "random") for strategy, _, _ in arms):
        tables.append(comparison_table(arms, dev, columns))
        tables.append(cost_table(arms, runs.scoring))
    if runs.subset_columns:
        tables.append(subset_table(runs))
    if published:
        tables.append(published_table(arms, dev, columns))
    notes = [f"- {problem}" for problem in runs.problems]
    if notes:
        tables.append(("Left out, or missing", [], "\n".join(notes)))
    write_text(out / "results.csv", _csv(csv_rows(runs)))
    timed = [[result.name, round(result.seconds, 2)] for result in runs.results if result.seconds is not None]
    if timed:
        write_text(out / "timings.csv", _csv([["run", "seconds_training"], *timed]))
    figures = draw(arms, runs.scoring, dev, columns, out)
    text = f"# Results: {runs.task}\n\n" + "\n\n".join(
        f"## {title}\n\n{_markdown(rows)}{words}".rstrip() for title, rows, words in tables
    )
    write_text(out / "results.md", text + "\n")
    write_text(out / "report.html", _page(f"Results: {runs.task}", tables, figures, out))
    return text


# -------------------------------------------------------------------------------------------------------------- tables
def overview_table(arms, failed, dev, columns) -> tuple[str, list, str]:
    """A row per way of choosing, a column per share: (title, rows with the header first, words below)."""
    shares = sorted({pct for _, pct, _ in arms})
    hans = "HANS non-entailed" in columns
    rows = [["chosen by", *(f"{100 * pct:g} %" for pct in shares)]]
    for strategy, kind in dict.fromkeys((s, k) for s, _, k in arms):
        row = [strategy if kind == "epochs" else f"{strategy}, equal {kind}"]
        for pct in shares:
            results = arms.get((strategy, pct, kind), [])
            cell = _spread([sum(r.scores[d] for d in dev) / len(dev) for r in results], 100, 1)
            if results and hans:
                cell += f" ; {_spread(_known(results, 'HANS non-entailed'), 100, 1)}"
            row.append(cell + _failed(failed[strategy, pct, kind]))
        rows.append(row)
    words = f"Mean accuracy on {' and '.join(dev)}, %" + (
        " ; mean accuracy on HANS's non-entailed pairs, %." if hans else "."
    )
    return "At a glance", rows, f"{words} ± standard deviation over seeds.{_failure_words(failed)}"


def main_table(arms, failed, dev, columns) -> tuple[str, list, str]:
    """In the layout of the published table."""
    hans = "HANS entailed" in columns
    header = ["data %", "chosen by", "equal", "seeds", f"eval_acc ({' / '.join(dev)})"]
    if hans:
        order = ", ".join(h.replace("_", " ") for h in HEURISTICS)
        header += [f"HANS entailed ({order})", f"HANS non-entailed ({order})"]
    rows = [header]
    for (strategy, pct, kind), results in arms.items():
        row = [f"{100 * pct:g}", strategy, kind, f"{len(results)}{_failed(failed[strategy, pct, kind])}"]
        row.append(" / ".join(_spread([r.scores[d] for r in results], 100, 2) for d in dev))
        if hans:
            for side in ("entailed", "non-entailed"):
                row.append(", ".join(_spread(_known(results, f"{side} {h}"), 1, 3) for h in HEURISTICS))
        rows.append(row)
    words = (
        "Mean ± standard deviation over seeds (a seed decides both the draw and the training). Equal epochs: every share is "
        "trained for the same number of epochs; equal steps: for as many optimizer steps as everything takes."
    )
    return "Accuracy by share of the data", rows, words + _failure_words(failed)


def comparison_table(arms, dev, columns) -> tuple[str, list, str]:
    """Differences from random (from `all` at 100 %) at the same share and budget, paired by seed, in points."""
    metrics = [*dev, *(name for name in COMPARED if name in columns)]
    found: dict[tuple, dict[str, Difference]] = {}
    for (strategy, pct, kind), results in arms.items():
        baseline = arms.get(("all", 1.0, "epochs") if pct == 1 else ("random", pct, kind))
        if baseline is None or strategy in ("random", "all"):
            continue
        by_seed = {r.seed: r for r in baseline}
        pairs = [(r, by_seed[r.seed]) for r in results if r.seed in by_seed]
        for metric in metrics:
            values = [
                (100 * a.scores[metric], 100 * b.scores[metric])
                for a, b in pairs
                if metric in a.scores and metric in b.scores
            ]
            if values:
                ours, theirs = zip(*values, strict=True)
                found.setdefault((strategy, pct, kind), {})[metric] = paired_difference(ours, theirs)
    # One family per metric, share and budget: the ways of choosing that compete there.
    adjusted = {}
    for metric in metrics:
        for place in {arm[1:] for arm in found}:
            family = [arm for arm in found if arm[1:] == place and metric in found[arm]]
            for arm, p in zip(family, holm([found[arm][metric].p for arm in family]), strict=True):
                adjusted[arm, metric] = p
    rows = [["data %", "chosen by", "equal", "seeds", *metrics]]
    for (strategy, pct, kind), differences in found.items():
        cells = [_difference(differences.get(m), adjusted.get(((strategy, pct, kind), m))) for m in metrics]
        n = max(d.n for d in differences.values())
        rows.append([f"{100 * pct:g}", strategy, kind, str(n), *cells])
    words = (
        "Points, paired by seed: mean [95 % interval] and, after >, the smallest true difference that so many seeds of "
        f"this spread show with 80 % power. **better** or **worse**: Holm-adjusted p below {ALPHA} among the ways of "
        "choosing at that share; anything else is not shown to differ, which is not the same as shown to be equal."
    )
    return "Difference from random", rows, words


def cost_table(arms, scoring) -> tuple[str, list, str]:
    """What an arm costs, scoring included, and after how many trainings it is cheaper than training on everything."""
    full = arms.get(("all", 1.0, "epochs"))
    everything = float(np.mean([r.cost for r in full])) if full else None
    rows = [["data %", "chosen by", "equal", "training", "scoring", "together", "pays after"]]
    for (strategy, pct, kind), results in arms.items():
        if not results:
            continue
        training, score = float(np.mean([r.cost for r in results])), scoring.get(strategy, 0.0)
        saved = everything - training if everything is not None else 0.0
        if saved <= 1e-9:
            pays = "-"
        else:
            pays = f"{max(1, math.ceil(score / saved - 1e-9))} training{'s' if score > saved + 1e-9 else ''}"
        rows.append(
            [f"{100 * pct:g}", strategy, kind, f"{training:.2f}", f"{score:.2f}", f"{training + score:.2f}", pays]
        )
    words = (
        "In training epochs on everything; forward passes count a third. Scoring is what the way of choosing needs once "
        "(a run that records dynamics, embeddings, a first fine-tuning; what was given ready-made counts nothing); `pays "
        "after`: number of trainings on the chosen examples after which scoring and they together cost less than as many "
        "on everything."
    )
    return "Cost", rows, words


def subset_table(runs: Runs) -> tuple[str, list, str]:
    """What is in the chosen examples, failed runs included: it may be why they failed."""
    columns = runs.subset_columns
    rows = [["data %", "chosen by", *(name.removeprefix(SUBSET) for name in columns)]]
    found: dict[tuple, list[dict]] = {}
    for result in runs.results:
        if result.subset:
            found.setdefault((result.data_pct, result.strategy), []).append(result.subset)
    for (pct, strategy), subsets in found.items():
        row = [f"{100 * pct:g}", strategy]
        for name in columns:
            values = [subset[name] for subset in subsets if name in subset]
            counted = name.startswith(AGAINST)
            row.append(f"{np.mean(values):.1f}" if counted else f"{100 * np.mean(values):.1f} %")
        rows.append(row)
    words = (
        "Share of each label, and number of pairs that contradict a HANS heuristic (it holds, and the label is not "
        "entailment); means over seeds."
    )
    return "What was chosen", rows, words


def published_table(arms, dev, columns) -> tuple[str, list, str]:
    header = ["data %", "eval_acc, ours", "eval_acc, theirs", "HANS entailed, ours", "HANS entailed, theirs"]
    rows = [[*header, "HANS non-entailed, ours", "HANS non-entailed, theirs"]]
    for pct, (accuracy, entailed, non_entailed) in PUBLISHED.items():
        results = arms.get(("all" if pct == 1 else "random", pct, "epochs"), [])
        row = [f"{100 * pct:g}"]
        row.append(" / ".join(_spread(_known(results, d), 100, 2) for d in dev) if results else "-")
        row.append(" / ".join(f"{value:.2f}" for value in accuracy))
        for side, theirs in (("entailed", entailed), ("non-entailed", non_entailed)):
            mine = results and f"{side} {HEURISTICS[0]}" in columns
            row.append(", ".join(_spread(_known(results, f"{side} {h}"), 1, 3) for h in HEURISTICS) if mine else "-")
            row.append(", ".join(f"{value:.3f}" for value in theirs))
        rows.append(row)
    words = (
        "Theirs: ALBERT-base-v1, all of MNLI, 3 epochs, one run each; their HANS columns are suspect (see the README)."
    )
    return "Beside the published numbers", rows, words


def _known(results, column) -> list[float]:
    return [r.scores[column] for r in results if column in r.scores]


def _failed(count: int) -> str:
    return f" ({count} failed)" if count else ""


def _failure_words(failed) -> str:
    return " Failed: seeds that give every dev example the same answer, counted but not averaged in." if failed else ""


def _spread(values, scale: float, digits: int) -> str:
    if not values:
        return "-"
    mean, std = mean_and_std(values)
    text = f"{scale * mean:.{digits}f}"
    return text if math.isnan(std) else f"{text} ± {scale * std:.{digits}f}"


def _difference(d: Difference | None, p: float | None) -> str:
    if d is None:
        return "-"
    if math.isnan(d.p):
        return f"{d.mean:+.1f} (one seed)"
    verdict = "" if p is None or p >= ALPHA else (" **better**" if d.mean > 0 else " **worse**")
    return f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}] > {d.detectable:.1f}{verdict}"


def _csv(rows) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _markdown(rows) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n\n"


# ------------------------------------------------------------------------------------------------------------- figures
def draw(arms, scoring, dev, columns, out: Path) -> dict[str, str]:
    """{file name: caption} of the figures written into `out`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    strategies = [s for s in dict.fromkeys(arm[0] for arm in arms) if s != "all"]
    colours = plt.get_cmap("tab10" if len(strategies) <= 10 else "tab20")
    looks = {}
    for i, strategy in enumerate(s for s in strategies if s != "random"):
        looks[strategy] = {"color": colours(i % COLOURS), "marker": MARKERS[i % len(MARKERS)], "lw": 1.2}
    looks["random"] = {"color": "black", "marker": "o", "lw": 2.5}
    looks["all"] = {"color": "black", "marker": "*", "lw": 0}
    kinds = list(dict.fromkeys(arm[2] for arm in arms if arm[0] != "all"))
    written = {}

    def save(figure, name, caption):
        handles, labels = [], []
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                if label not in labels:
                    handles.append(handle)
                    labels.append(label)
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
        with atomic_path(out / name) as temporary:
            figure.savefig(temporary, dpi=110, format="png", metadata={"Software": None})
        plt.close(figure)
        written[name] = caption

    def curves(axes, column, kind, scale=100.0):
        """One line per strategy over the share of the data, with a band of one standard deviation over seeds."""
        end = arms.get(("all", 1.0, "epochs"))
        for strategy in strategies:
            points = sorted((pct, _known(r, column)) for (s, pct, k), r in arms.items() if s == strategy and k == kind)
            if end and strategy != "forgettable" and all(pct < 1 for pct, _ in points) and len(points) > 0:
                points.append((1.0, _known(end, column)))
            points = [(pct, *mean_and_std(values)) for pct, values in points if values]
            if not points:
                continue
            x, mean, std = (np.asarray(values) for values in zip(*points, strict=True))
            std = np.nan_to_num(std)
            axes.plot(100 * x, scale * mean, label=strategy, ms=4, **looks[strategy])
            axes.fill_between(
                100 * x, scale * (mean - std), scale * (mean + std), color=looks[strategy]["color"], alpha=0.08
            )
        axes.grid(alpha=0.3)

    for kind in kinds:
        figure, grid = plt.subplots(1, len(dev), figsize=(5.5 * len(dev) + 2, 4.5), squeeze=False, layout="constrained")
        for axes, name in zip(grid[0], dev, strict=True):
            curves(axes, name, kind)
            axes.set(xlabel="share of the training data, %", ylabel="eval_acc, %", title=f"{name}, equal {kind}")
        save(
            figure,
            f"accuracy_{kind}.png",
            f"Accuracy by share of the data, equal {kind}; band: one standard deviation over seeds",
        )
        if "HANS entailed" not in columns:
            continue
        figure, grid = plt.subplots(2, 3, figsize=(13, 7), layout="constrained", sharex=True, sharey="row")
        for line, side in zip(grid, ("entailed", "non-entailed"), strict=True):
            for axes, heuristic in zip(line, HEURISTICS, strict=True):
                curves(axes, f"{side} {heuristic}", kind, 1.0)
                axes.set(title=f"{heuristic.replace('_', ' ')}, {side}", ylim=(-0.03, 1.03))
        for axes in grid[1]:
            axes.set_xlabel("share of the training data, %")
        for line in grid:
            line[0].set_ylabel("accuracy")
        save(figure, f"hans_{kind}.png", f"HANS by heuristic and gold label, equal {kind}")

    if "HANS entailed" in columns:
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        for (strategy, pct, _), results in arms.items():
            x = [np.mean([r.scores[d] for d in dev]) for r in results if "HANS non-entailed" in r.scores]
            y = _known(results, "HANS non-entailed")
            if y:
                look = {key: value for key, value in looks[strategy].items() if key != "lw"}
                axes.scatter(100 * np.mean(x), np.mean(y), s=20 + 120 * pct, label=strategy, alpha=0.8, **look)
        axes.set(xlabel="mean dev accuracy, %", ylabel="HANS non-entailed, mean of three")
        axes.grid(alpha=0.3)
        save(
            figure,
            "hans_against_accuracy.png",
            "In-distribution accuracy against HANS; the larger the mark, the more data",
        )

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for (strategy, _, _), results in arms.items():
        if not results:
            continue
        look = {key: value for key, value in looks[strategy].items() if key != "lw"}
        cost = np.mean([r.cost for r in results]) + scoring.get(strategy, 0.0)
        accuracy = np.mean([r.scores[d] for r in results for d in dev])
        axes.scatter(cost, 100 * accuracy, label=strategy, s=40, alpha=0.8, **look)
    axes.set(xlabel="cost in training epochs on everything, scoring included", ylabel="mean dev accuracy, %")
    axes.grid(alpha=0.3)
    save(figure, "cost_against_accuracy.png", "What an accuracy costs when examples are scored for one training only")
    return written


# ---------------------------------------------------------------------------------------------------------------- page
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}th,td{border:1px solid #ddd;padding:3px 8px;
text-align:left;white-space:nowrap}th{background:#f4f4f4;white-space:normal}tr:nth-child(even) td{background:#fafafa}figure{margin:2em 0}
img{max-width:100%}figcaption,p{color:#555}"""


def _page(title, tables, figures, out: Path) -> str:
    body = [f"<h1>{html.escape(title)}</h1>"]
    body.append(_section(*tables[0]))
    for name, caption in figures.items():
        data = base64.b64encode((out / name).read_bytes()).decode()
        body.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    body += [_section(*table) for table in tables[1:]]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _section(heading, rows, words) -> str:
    parts = [f"<h2>{html.escape(heading)}</h2>"]
    if rows:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
        lines = "".join("<tr>" + "".join(f"<td>{_bold(cell)}</td>" for cell in row) + "</tr>\n" for row in rows[1:])
        parts.append(f"<table><tr>{head}</tr>\n{lines}</table>")
    parts += [f"<p>{_bold(line)}</p>" for line in words.splitlines()]
    return "\n".join(parts)


def _bold(text: str) -> str:
    pieces = html.escape(text).split("**")
    return "".join(f"<b>{piece}</b>" if i % 2 else piece for i, piece in enumerate(pieces))
