"""Figures of a report, drawn with matplotlib: curves over the share of the data, and marks of one arm each."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.data.challenge import ChallengeColumns
from utils.files import atomic_path
from utils.report.comparison import mean_and_std
from utils.report.results import Arm, Result, Runs

COLOURS = 20  # of the map that lines are drawn in; `random` and `all` are black
MARKERS = "osD^v<>PX*"
MAX_PANELS = 6  # side by side; a cell with more columns stands in its table only
DOTS_PER_INCH = 110
SHARE = "share of the training data, %"


def draw(runs: Runs, out: Path) -> dict[str, str]:
    """{file name: caption} of the figures written into `out`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = {}
    for name, caption, figure in _Figures(runs, plt).all():
        _add_legend(figure)
        with atomic_path(out / name) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png", metadata={"Software": None})
        plt.close(figure)
        written[name] = caption
    return written


def _add_legend(figure) -> None:
    """One legend for all axes, each strategy once."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend([*found.values()], [*found], loc="outside right upper", fontsize=8, frameon=False)


class _Figures:
    """The figures of these runs as (file name, caption, figure)."""

    def __init__(self, runs: Runs, plt):
        self.runs, self.arms, self.plt = runs, runs.arms, plt
        self.strategies = [s for s in dict.fromkeys(strategy for strategy, _, _ in self.arms) if s != "all"]
        colours = plt.get_cmap("tab10" if len(self.strategies) <= 10 else "tab20")
        self.looks = {
            strategy: {"color": colours(i % COLOURS), "marker": MARKERS[i % len(MARKERS)], "lw": 1.2}
            for i, strategy in enumerate(s for s in self.strategies if s != "random")
        }
        self.looks["random"] = {"color": "black", "marker": "o", "lw": 2.5}
        self.looks["all"] = {"color": "black", "marker": "*", "lw": 0}

    def all(self) -> Iterator[tuple]:
        sets = [(challenge, _file_name(challenge.name)) for challenge in self.runs.shown]
        sets += [(challenge, f"challenge_{_file_name(challenge.name)}") for challenge in self.runs.grouped]
        for budget in dict.fromkeys(budget for strategy, _, budget in self.arms if strategy != "all"):
            yield self.accuracy(budget)
            for challenge, name in sets:
                yield self.challenge(challenge, f"{name}_{budget}.png", budget)
        for challenge, name in sets:
            yield self.against_accuracy(challenge, f"{name}_against_accuracy.png")
        yield self.cost()

    def accuracy(self, budget: str) -> tuple:
        dev = self.runs.dev
        size = (5.5 * len(dev) + 2, 4.5)
        figure, grid = self.plt.subplots(1, len(dev), figsize=size, squeeze=False, layout="constrained")
        for axes, name in zip(grid[0], dev, strict=True):
            self._curves(axes, name, budget, 100)
            axes.set(xlabel=SHARE, ylabel="eval_acc, %", title=f"{name}, equal {budget}")
        caption = f"Accuracy by share of the data, equal {budget}; band: one standard deviation over seeds"
        return f"accuracy_{budget}.png", caption, figure

    def challenge(self, challenge: ChallengeColumns, name: str, budget: str) -> tuple:
        """A row per cell of the challenge set, a panel per column."""
        cells = [cell for cell in challenge.cells if len(cell.columns) <= MAX_PANELS]
        width = max(len(cell.columns) for cell in cells)
        figure, grid = self.plt.subplots(
            len(cells), width, figsize=(4 * width + 1, 3.5 * len(cells)), layout="constrained", sharex=True,
            sharey="row", squeeze=False,
        )  # fmt: skip
        for line, cell in zip(grid, cells, strict=True):
            for axes in line[len(cell.columns) :]:
                axes.remove()
            for axes, (label, column) in zip(line, cell.columns.items(), strict=False):
                self._curves(axes, column, budget, 1)
                axes.set(title=f"{cell.title}: {label}", ylim=(-0.03, 1.03))
            line[0].set_ylabel("accuracy")
        for axes in grid[-1][: len(cells[-1].columns)]:
            axes.set_xlabel(SHARE)
        return name, f"{challenge.name} by {challenge.grouped_by}, equal {budget}", figure

    def against_accuracy(self, challenge: ChallengeColumns, name: str) -> tuple:
        figure, axes = self.plt.subplots(figsize=(8, 5), layout="constrained")
        for arm, results in self.arms.items():
            known = [r for r in results if challenge.headline in r.scores]
            if known:
                accuracy = np.mean([r.scores[d] for r in known for d in self.runs.dev])
                headline = np.mean([r.scores[challenge.headline] for r in known])
                self._mark(axes, arm[0], 100 * accuracy, headline, size=20 + 120 * arm[1])
        axes.set(xlabel="mean dev accuracy, %", ylabel=f"{challenge.headline}, accuracy")
        axes.grid(alpha=0.3)
        return name, f"In-distribution accuracy against {challenge.name}; the larger the mark, the more data", figure

    def cost(self) -> tuple:
        figure, axes = self.plt.subplots(figsize=(8, 5), layout="constrained")
        for (strategy, _, _), results in self.arms.items():
            if results:
                cost = np.mean([r.cost for r in results]) + self.runs.scoring.get(strategy, 0.0)
                accuracy = np.mean([r.scores[d] for r in results for d in self.runs.dev])
                self._mark(axes, strategy, cost, 100 * accuracy, size=40)
        axes.set(xlabel="cost in training epochs on everything, scoring included", ylabel="mean dev accuracy, %")
        axes.grid(alpha=0.3)
        return (
            "cost_against_accuracy.png", "What an accuracy costs when examples are scored for one training only", figure,
        )  # fmt: skip

    def _mark(self, axes, strategy: str, x: float, y: float, *, size: float) -> None:
        look = {key: value for key, value in self.looks[strategy].items() if key != "lw"}
        axes.scatter(x, y, s=size, label=strategy, alpha=0.8, **look)

    def _curves(self, axes, column: str, budget: str, scale: float) -> None:
        """One line per strategy over the share of the data, with a band of one standard deviation over seeds."""
        for strategy in self.strategies:
            points = curve(self.arms, strategy, column, budget)
            if not points:
                continue
            x, mean, std = (np.asarray(values) for values in zip(*points, strict=True))
            low, high = mean - np.nan_to_num(std), mean + np.nan_to_num(std)
            axes.plot(100 * x, scale * mean, label=strategy, ms=4, **self.looks[strategy])
            axes.fill_between(100 * x, scale * low, scale * high, color=self.looks[strategy]["color"], alpha=0.08)
        axes.grid(alpha=0.3)


def curve(arms: dict[Arm, list[Result]], strategy: str, column: str, budget: str) -> list[tuple[float, float, float]]:
    """(share, mean, standard deviation) of each share; at 100 % a strategy is the run `all`.

    `forgettable` is not: it trains on beyond it.
    """
    found = {share: results for (s, share, b), results in arms.items() if s == strategy and b == budget}
    everything = arms.get(("all", 1.0, "epochs"))
    if everything and found and strategy != "forgettable":
        found.setdefault(1.0, everything)
    values = {share: [r.scores[column] for r in found[share] if column in r.scores] for share in sorted(found)}
    return [(share, *mean_and_std(known)) for share, known in values.items() if known]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name.lower())
