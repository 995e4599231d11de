"""What a paper includes: tables for LaTeX (with the package booktabs), and the figures at the width of a column."""

import math
from pathlib import Path

from utils import figure_style as style
from utils.files import file_name, write_text
from utils.report.comparison import mean_and_std
from utils.report.figures import draw, places_of
from utils.report.results import Runs
from utils.report.verdict import judged, verdict_of

ESCAPED = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
TABLE = r"""\begin{table}
\centering\small
\caption{%(caption)s}
\label{tab:%(label)s}
\begin{tabular}{l%(columns)s}
\toprule
%(head)s \\
\midrule
%(rows)s \\
\bottomrule
\end{tabular}
\end{table}
"""


def write_latex(runs: Runs, folder: Path, *, against: str = "random") -> None:
    """Write a table of accuracies and one of differences for each metric (they need `\\usepackage{booktabs}`), and every
    figure as a PDF of a column's width."""
    for metric in [*runs.dev, *(challenge.headline for challenge in [*runs.shown, *runs.grouped])]:
        write_text(folder / f"accuracy_{file_name(metric)}.tex", accuracy(runs, metric))
    for metric, found in judged(runs, against).items():
        write_text(folder / f"difference_{file_name(metric)}.tex", _difference(runs, metric, found, against))
    draw(runs, folder, against=against, width=style.COLUMN, formats=(".pdf",))


def accuracy(runs: Runs, metric: str) -> str:
    """A row a strategy, a column a share: mean and standard deviation, the best of a column in bold."""
    found = {
        arm: mean_and_std(values)
        for arm, results in runs.arms.items()
        if (values := [100 * r.scores[metric] for r in results if metric in r.scores])
    }
    best = {place: max(round(found[arm][0], 1) for arm in found if arm[1:] == place) for place in places_of(found)}

    def cell(arm) -> str:
        mean, std = found[arm]
        text = f"{mean:.1f}"
        text = rf"\textbf{{{text}}}" if round(mean, 1) == best[arm[1:]] else text
        return text if math.isnan(std) else rf"{text}\,{{\scriptsize$\pm$\,{std:.1f}}}"

    caption = f"Accuracy on {metric}, %: mean ± standard deviation over seeds. Bold: the highest mean of a column."
    return _table(caption, f"accuracy-{metric}", found, cell)


def _difference(runs: Runs, metric: str, found: dict, against: str) -> str:
    def cell(arm) -> str:
        one = found[arm]
        text = f"{one.mean:+.1f}"
        if one.low == one.low:
            text += rf"\,{{\scriptsize[{one.low:+.1f}, {one.high:+.1f}]}}"
        return rf"\textbf{{{text}}}" if verdict_of(runs, one) else text

    caption = (
        f"Difference from {against} on {metric}, points, paired by seed, with simultaneous 95 % intervals. Bold: the "
        "interval decides."
    )
    return _table(caption, f"difference-{metric}", found, cell)


def _table(caption: str, label: str, found: dict, cell) -> str:
    """The arms of `found` by strategy and place; cell(arm) is the LaTeX of one of them."""
    places = places_of(found)
    head = ["", *(f"{100 * share:g} %" + ("" if b == "epochs" else f", equal {b}") for share, b in places)]
    rows = [
        [_escaped(strategy), *(cell((strategy, *place)) if (strategy, *place) in found else "--" for place in places)]
        for strategy in dict.fromkeys(strategy for strategy, _, _ in found)
    ]
    return TABLE % {
        "caption": _escaped(caption), "label": file_name(label), "columns": "r" * len(places),
        "head": " & ".join(_escaped(text) for text in head), "rows": " \\\\\n".join(" & ".join(row) for row in rows),
    }  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(ESCAPED.get(character, character) for character in text)
