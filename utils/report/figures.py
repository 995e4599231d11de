"""Figures of a report: accuracy over the share of the data, differences from the baseline, challenge sets, cost."""

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils import figure_style as style
from utils.data.challenge import ChallengeColumns
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.files import file_name
from utils.report.comparison import baseline_of, mean_and_std
from utils.report.results import Arm, Result, Runs
from utils.report.verdict import judged, verdict_of

MAX_PANELS = 6  # a cell of a challenge set with more columns stands in its table only
ROW = 0.15  # inches of a line of text
VERDICTS = {  # colour, mark, words
    "better": (style.ACCENT, "^", "better"),
    "worse": (style.SECOND, "v", "worse"),
    "within": ("black", "D", "within the smallest difference of interest"),
    "": (style.GREY, "o", "not shown to differ"),
}


def draw(runs: Runs, out: Path, *, against: str = "random", **form) -> dict[str, str]:
    """{name of the PNG: caption} of the figures written into `out`. form: as for `figure_style.new_figure`."""
    return dict(_Figures(runs, Path(out), against, form).all())


def places_of(arms) -> list[tuple[float, str]]:
    """(share, budget) of these arms, each once, in the order in which figures and tables show them."""
    return sorted({arm[1:] for arm in arms}, key=lambda place: (place[1], place[0]))


def curve(runs: Runs, strategy: str, columns: tuple[str, ...], budget: str) -> list[tuple[float, float, float]]:
    """(share, mean, standard deviation) of the mean of these columns, for every share that the report has at this budget:
    NaN where this strategy was not run there, or every seed of it failed."""
    found = []
    for share in sorted({share for _, share, b in runs.arms if b == budget}):
        known = _values(runs.arms.get((strategy, share, budget), []), columns)
        found.append((share, *(mean_and_std(known) if known else (math.nan, math.nan))))
    return found


def _values(results: list[Result], columns: tuple[str, ...]) -> list[float]:
    """The mean of these columns in each run that has them, in percent."""
    return [mean for result in results if (mean := result.mean(columns)) is not None]


class _Figures:
    """Each figure is written when its method runs, which gives (file name, caption)."""

    def __init__(self, runs: Runs, out: Path, against: str, form: dict):
        self.runs, self.arms, self.out, self.against, self.form = runs, runs.arms, out, against, form
        self.width = form.get("width", style.WIDTH)
        self.strategies = [s for s in dict.fromkeys(s for s, _, _ in self.arms) if s not in ("random", "all")]
        self.words, self.chance = _task_words(runs)
        self.everything = self.arms.get(("all", 1.0, "epochs"), [])
        self.whole = min(int(r.identity.get("pool") or round(r.m / r.data_pct)) for r in runs.results)

    def all(self) -> Iterator[tuple[str, str]]:
        sets = [(challenge, file_name(challenge.name)) for challenge in self.runs.shown]
        sets += [(challenge, f"challenge_{file_name(challenge.name)}") for challenge in self.runs.grouped]
        dev = f"mean accuracy on {self._spelt(self.runs.dev)}"
        places = places_of(self.arms)
        chosen = {
            budget for strategy, _, budget in self.arms if strategy != "all"
        }  # `all` alone is a line, not a curve
        for budget in dict.fromkeys(budget for _, budget in places if budget in chosen or not chosen):
            yield self.over_shares(f"accuracy_{budget}", self.runs.dev, dev, self.chance, budget)
            for challenge, name in sets:
                headline = f"accuracy, {challenge.headline}"
                yield self.over_shares(f"{name}_{budget}", (challenge.headline,), headline, challenge.chance, budget)
        comparisons = judged(self.runs, self.against)
        for place in places:
            yield from self.differences(comparisons, *place)
        for challenge, name in sets:
            yield self.against_accuracy(challenge, f"{name}_against_accuracy", dev)
            for place in places:
                yield from self.groups(challenge, name, *place)
        for budget in dict.fromkeys(budget for _, budget in places):
            yield self.cost(budget, [place for place in places if place[1] == budget])

    def over_shares(self, name: str, columns, what: str, chance: float | None, budget: str) -> tuple[str, str]:
        """A panel a strategy, `random` in grey in each."""
        shown = [s for s in self.strategies if any((s, p, budget) in self.arms for p in self._shares(budget))] or [
            "random"
        ]
        across = max(1, int(self.width / 1.35))
        rows = -(-len(shown) // across)
        with self._figure(name, max(2.8, 1.25 * rows + 0.7)) as figure:
            for axes, strategy in zip(
                style.panels(figure, len(shown), across, sharex=True, sharey=True), shown, strict=True
            ):
                self._reference_lines(axes.axhline, columns, chance)
                self._curve(axes, "random", columns, budget, style.GREY, lw=3, alpha=0.6, ms=4)
                if strategy != "random":
                    self._curve(axes, strategy, columns, budget, style.ACCENT, label="strategy of the title")
                axes.set_title(strategy)
                axes.grid(axis="y")
            self._share_axis(figure.axes, budget)
            figure.supxlabel("share of the training data, % (log scale)", fontsize=8)
            figure.supylabel(textwrap.fill(f"{what}, %", 36), fontsize=8)
            style.legend(figure)
        caption = (
            f"{_sentence(what)} by share of the data, equal {budget}. Mean ± one standard deviation over seeds; lines join "
            f"neighbouring shares that were both measured. ×n: n seeds failed and are left out. "
            f"{self._sample([place for place in places_of(self.arms) if place[1] == budget])}."
        )
        return f"{name}.png", caption

    def differences(self, comparisons, share: float, budget: str) -> Iterator[tuple[str, str]]:
        """A forest plot: a row an arm, a panel a metric."""
        own = {
            metric: {arm[0]: one for arm, one in found.items() if arm[1:] == (share, budget) and one.n}
            for metric, found in comparisons.items()
        }
        own = {metric: found for metric, found in own.items() if found}
        if not own:
            return
        first = next(iter(own.values()))
        rows = [s for s in ["random", *self.strategies] if (s, share, budget) in self.arms and s != self.against]
        rows = [s for s in rows if s != "random" or s in first]
        rows.sort(key=lambda s: first[s].mean if s in first else -math.inf)

        def panel(axes, metric):
            axes.axvline(0, color="black", lw=0.8)
            extent = max(
                max(abs(d.mean), *(abs(x) for x in (d.low, d.high) if x == x), 1) for d in own[metric].values()
            )
            axes.set_xlim(-min(105, 1.08 * extent), min(105, 1.08 * extent))
            for row, strategy in enumerate(rows):
                one = own[metric].get(strategy)
                if one is None:
                    self._lost(axes, row, (strategy, share, budget))
                    continue
                colour, mark, words = VERDICTS[verdict_of(self.runs, one)]
                known = one.low == one.low
                axes.errorbar(one.mean, row, xerr=(one.high - one.low) / 2 if known else None, fmt=mark, color=colour,
                              label=words if known else "spread not known", mfc=colour if known else "white")  # fmt: skip

        baseline, _, _ = baseline_of(("", share, budget), self.against)
        name = f"difference_{_place(share, budget)}"
        self._rows(name, rows, [*own], panel, f"difference from {baseline}, points")
        yield (
            f"{name}.png",
            (
                f"Difference from {baseline} at {100 * share:g} % of the data, equal {budget}, in points, paired by seed, "
                "with the 95 % intervals of the tables (they hold together within a panel; a bar that reaches the edge "
                f"goes on beyond it). {self._sample([(share, budget)])}."
            ),
        )

    def groups(self, challenge: ChallengeColumns, name: str, share: float, budget: str) -> Iterator[tuple[str, str]]:
        """A row an arm, a panel a column of the challenge set."""
        cells = {
            f"{cell.title}:\n{label}": column
            for cell in challenge.cells
            if len(cell.columns) <= MAX_PANELS
            for label, column in cell.columns.items()
        }
        rows = [s for s in [*self.strategies, "random", "all"] if (s, share, budget) in self.arms][::-1]
        if not any(_values(self.arms[s, share, budget], (column,)) for s in rows for column in cells.values()):
            return

        def panel(axes, title):
            self._reference_lines(axes.axvline, (cells[title],), challenge.chance)
            for row, strategy in enumerate(rows):
                values = _values(self.arms[strategy, share, budget], (cells[title],))
                if values:
                    mean, std = mean_and_std(values)
                    axes.errorbar(mean, row, xerr=np.nan_to_num(std), fmt="o",
                                  color=style.GREY if strategy == "random" else style.ACCENT)  # fmt: skip
                else:
                    self._lost(axes, row, (strategy, share, budget))
            axes.set_xlim(-4, 104)

        name = f"{name}_groups_{_place(share, budget)}"
        self._rows(name, rows, [*cells], panel, "accuracy, %")
        yield (
            f"{name}.png",
            (
                f"{challenge.name} by {challenge.grouped_by} at {100 * share:g} % of the data, equal {budget}. Mean ± one standard "
                f"deviation over seeds. {self._sample([(share, budget)])}."
            ),
        )

    def against_accuracy(self, challenge: ChallengeColumns, name: str, dev: str) -> tuple[str, str]:
        """A panel a share and budget, a mark an arm."""
        found: dict[str, dict[str, list]] = {}
        for (strategy, share, budget), results in self.arms.items():
            known = [r for r in results if challenge.headline in r.scores]
            if known:
                title = f"{100 * share:g} % of the data{'' if budget == 'epochs' else f', equal {budget}'}"
                pair = [mean_and_std(_values(known, columns)) for columns in (self.runs.dev, (challenge.headline,))]
                found.setdefault(title, {})[strategy] = pair
        across = max(1, int(self.width / 3))
        for file, titles in self._files(name, [*found], across):
            with self._figure(file, 2.5 * -(-len(titles) // across) + 0.5) as figure:
                grid = style.panels(figure, len(titles), across, sharex=True, sharey=True)
                for axes, title in zip(grid, titles, strict=True):
                    self._reference_lines(axes.axhline, (challenge.headline,), challenge.chance, everything=False)
                    _crosses(axes, found[title])
                    axes.set_title(title)
                figure.supxlabel(f"{dev}, %", fontsize=8)
                figure.supylabel(f"accuracy, {challenge.headline}, %", fontsize=8)
                style.legend(figure)
                for axes, title in zip(grid, titles, strict=True):
                    style.direct_labels(axes, {s: (x, y) for s, ((x, _), (y, _)) in found[title].items()})
        caption = (
            f"{_sentence(dev)} against accuracy on {challenge.headline}. Mean ± one standard deviation over seeds, both ways. "
            f"{self._sample(places_of(self.arms))}."
        )
        return f"{name}.png", caption

    def cost(self, budget: str, places) -> tuple[str, str]:
        """A row a strategy, a panel a share."""
        rows = [s for s in ["all", "random", *self.strategies] if any((s, *place) in self.arms for place in places)][
            ::-1
        ]

        def panel(axes, title):
            place = titles[title]
            for row, strategy in enumerate(rows):
                results = self.arms.get((strategy, *place))
                if results:
                    training, scoring = np.mean([r.cost for r in results]), self.runs.scoring.get(strategy, 0.0)
                    axes.barh(row, training, 0.7, color=style.ACCENT, label="training")
                    axes.barh(row, scoring, 0.7, left=training, color=style.SECOND, label="scoring, once")
                    axes.annotate(f"{np.mean(_values(results, self.runs.dev)):.1f} %", (training + scoring, row), (3, 0),
                                  textcoords="offset points", va="center", fontsize=style.SMALL,
                                  bbox=style.ON_WHITE)  # fmt: skip
                elif results is not None:
                    self._lost(axes, row, (strategy, *place))
            if self.everything:
                full = np.mean([r.cost for r in self.everything])
                axes.axvline(full, color="black", ls="--", lw=0.8, label="training on everything")
            axes.margins(x=0.4)

        titles = {f"{100 * share:g} % of the data": (share, budget) for share, budget in places}
        self._rows(f"cost_{budget}", rows, [*titles], panel, "training epochs on everything", least=1.6, sharex=True)
        return f"cost_{budget}.png", (
            f"What an arm costs when examples are scored for one training only, equal {budget}, in training epochs on "
            "everything; forward passes count a third. The number beside a bar is the mean accuracy on "
            f"{self._spelt(self.runs.dev)}. {self._sample(places)}."
        )

    # ------------------------------------------------------------------------------------------------------------- parts
    def _sample(self, places) -> str:
        """How many seeds the arms at these shares and budgets have, and how many examples are 100 %."""
        seeds = {len(own) for arm, own in self.arms.items() if own and arm[1:] in places}
        few, many = min(seeds, default=0), max(seeds, default=0)
        counts = f"{few} to {many} seeds" if few < many else f"{few} seed{'s' * (few != 1)}"
        return _sentence(f"{counts} an arm; 100 % are {self.whole:,} examples")

    def _figure(self, name: str, height: float):
        return style.new_figure(self.out / name, height, **self.form)

    def _rows(
        self, name: str, rows: list[str], titles: list[str], panel, xlabel: str, *, least: float = 2, **shared
    ) -> None:
        """A row of each panel for each name, from the bottom. panel(axes, title) draws one; least: its width in inches."""
        across = max(1, int(self.width / least))
        for file, own in self._files(name, titles, across):
            height = (ROW * len(rows) + 0.5) * -(-len(own) // min(across, len(own))) + 0.7
            with self._figure(file, height) as figure:
                for axes, title in zip(style.panels(figure, len(own), across, sharey=True, **shared), own, strict=True):
                    panel(axes, title)
                    axes.set_title(self.words.get(title, title))
                    axes.set_yticks(range(len(rows)), rows)
                    axes.set_ylim(-0.7, len(rows) - 0.3)
                    axes.grid(axis="x")
                    axes.tick_params(axis="y", length=0)
                figure.supxlabel(xlabel, fontsize=8)
                style.legend(figure)

    def _files(self, name: str, titles: list[str], across: int) -> list[tuple[str, list[str]]]:
        """(file, titles of its panels): one file, or one for each panel where no two of them fit beside each other."""
        return [(name, titles)] if across > 1 else [(f"{name}_{file_name(title)}", [title]) for title in titles]

    def _curve(self, axes, strategy: str, columns, budget: str, colour: str, **look) -> None:
        share, mean, std = np.array(curve(self.runs, strategy, columns, budget)).T
        known = ~np.isnan(mean).all()
        axes.errorbar(100 * share, mean, yerr=np.nan_to_num(std), fmt="o-", color=colour, elinewidth=0.8,
                      **({"label": strategy, **look} if known else {}))  # fmt: skip
        for place in share:
            failed = self.runs.failed[strategy, place, budget]
            if failed:
                axes.text(100 * place, 0.14 if strategy == "random" else 0.02, f"×{failed}", ha="center", fontsize=7,
                          transform=axes.get_xaxis_transform(), color=colour)  # fmt: skip

    def _share_axis(self, all_axes, budget: str) -> None:
        """The shares that there are as ticks, and room for the marks of failed seeds below."""
        ticks = [100 * share for share in self._shares(budget)]
        for axes in all_axes:
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.margins(x=0.15)
        low, high = all_axes[0].get_ylim()
        all_axes[0].set_ylim(low - 0.25 * (high - low), high)

    def _reference_lines(self, line, columns, chance: float | None, *, everything: bool = True) -> None:
        """Lines (axhline or axvline) of what guessing gives, and of training on everything."""
        if chance is not None:
            line(100 * chance, color="black", ls=":", lw=0.8, label="guessing")
        values = _values(self.everything, columns) if everything else []
        if values:
            line(np.mean(values), color="black", ls="--", lw=0.8, label="training on everything")

    def _shares(self, budget: str) -> list[float]:
        return sorted({share for _, share, b in self.arms if b == budget})

    def _lost(self, axes, row: int, arm: Arm) -> None:
        """Say in a row of a panel why nothing is drawn there."""
        failed = self.runs.failed[arm]
        text = f"× {failed} failed" if failed and not self.arms[arm] else "no pair of seeds"
        place = {"transform": axes.get_yaxis_transform(), "va": "center"}
        axes.text(0.02, row, text, fontsize=style.SMALL, color=style.GREY, bbox=style.ON_WHITE, **place)

    def _spelt(self, columns) -> str:
        return " and ".join(self.words.get(name, name) for name in columns)


def _crosses(axes, marks: dict[str, list]) -> None:
    """A mark of each strategy with error bars both ways, on scales in percent."""
    for strategy, ((x, dx), (y, dy)) in marks.items():
        baseline = strategy in ("random", "all")
        axes.errorbar(
            x, y, xerr=np.nan_to_num(dx), yerr=np.nan_to_num(dy), fmt="s" if baseline else "o",
            color="black" if baseline else style.ACCENT, elinewidth=0.5, alpha=0.8,
            label="random, or all of the data" if baseline else "other strategies",
        )  # fmt: skip
    axes.set_ylim(-6, 106)
    axes.margins(x=0.18)
    axes.grid()


def _task_words(runs: Runs) -> tuple[dict[str, str], float | None]:
    """{column: its name in words} of dev accuracies, and the accuracy of guessing; nothing of an unknown task."""
    try:
        task = get_task(runs.task)
    except InputError:
        return {}, None
    names = {
        split.short: f"{task.name.upper()} {key.removeprefix('dev').strip('_')}".strip()
        for key, split in task.dev.items()
    }
    return names, 1 / len(task.labels) if task.metrics[0] == "acc" else None


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _place(share: float, budget: str) -> str:
    return f"{100 * share:g}pct_{budget}"
