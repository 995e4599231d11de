"""Tables of a report: numbers into rows of cells, with the words that explain them."""

import math
import os
from dataclasses import dataclass, field

import numpy as np

from utils.data.challenge import ChallengeColumns
from utils.report import published
from utils.report.comparison import Difference, differences_from_random, mean_and_std
from utils.report.looks import OPEN, Look, looks_at
from utils.report.random_curve import RandomCurve, random_curve
from utils.report.results import AGAINST, SUBSET, Result, Runs
from utils.report.verdict import metrics_of, sentences


@dataclass(frozen=True)
class Table:
    """rows: the header first, or none; words: what stands below. links: {text of a first cell: what it leads to}."""

    title: str
    rows: list[list[str]]
    words: str
    links: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in self.rows]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        if lines:
            lines = [lines[0], "|" + "---|" * len(self.rows[0]), *lines[1:], ""]
        return "\n".join([f"## {self.title}", "", *lines, self.words]).rstrip()


def tables_of(runs: Runs, *, with_published: bool = False, against: str = "random") -> list[Table]:
    """Every table of the report that these runs fill, the verdict first. against: as for `comparison`."""
    compared = any(strategy not in ("all", "random") for strategy, _, _ in runs.arms)
    verdict = [Table("Verdict", [], "\n".join(f"- {line}" for line in sentences(runs, against)))] if compared else []
    tables = [*verdict, overview(runs), accuracy(runs)]
    if runs.grouped:
        tables.append(challenge_sets(runs))
    if compared:
        tables += [looks(runs) if runs.looks else summary(runs, against), comparison(runs, against)]
        if runs.claims and against == "random" and not runs.looks:
            tables.append(replication(runs))
        tables.append(cost(runs))
        if against == "random" and not runs.looks and (table := in_random_data(runs)):
            tables.append(table)
    if runs.subset_columns:
        tables.append(chosen(runs))
    if with_published:
        tables.append(beside_published(runs))
    if runs.problems:
        tables.append(Table("Left out, or missing", [], "\n".join(f"- {problem}" for problem in runs.problems)))
    return tables


def overview(runs: Runs) -> Table:
    """A row per strategy, a column per share."""
    shares = sorted({share for _, share, _ in runs.arms})
    rows = [["chosen by", *(f"{100 * share:g} %" for share in shares)]]
    for strategy, budget in dict.fromkeys((s, b) for s, _, b in runs.arms):
        row = [strategy if budget == "epochs" else f"{strategy}, equal {budget}"]
        for share in shares:
            results = runs.arms.get((strategy, share, budget), [])
            parts = [_mean([r.mean(runs.dev) for r in results], 1, 1)]
            if results:
                parts += [_mean(_known(results, challenge.headline), 100, 1) for challenge in runs.shown]
            row.append(" ; ".join(parts) + _failed(runs.failed[strategy, share, budget]))
        rows.append(row)
    meaning = [f"Mean accuracy on {' and '.join(runs.dev)}, %"]
    meaning += [f"{challenge.headline} accuracy, %" for challenge in runs.shown]
    words = f"{' ; '.join(meaning)}. ± standard deviation over seeds.{_failure_words(runs)}"
    return Table("At a glance", rows, words)


def summary(runs: Runs, against: str = "random") -> Table:
    """A row per arm: accuracy, difference, challenge sets and cost beside each other."""
    (name, columns), *_ = metrics_of(runs).items()
    shown = [column for challenge in [*runs.shown, *runs.grouped] for column in challenge.compared]
    differences = differences_from_random(runs.arms, {name: columns}, against=against)
    rows = [["data %", "chosen by", "equal", "seeds", name, f"difference from {against}", *shown, "cost"]]
    for arm, results in runs.arms.items():
        if not results:
            continue
        dev = _mean([r.mean(columns) for r in results], 1, 1)
        difference = differences.get(arm, {}).get(name)
        scores = [_mean(_known(results, column), 100, 1) for column in shown]
        cost = np.mean([r.cost for r in results]) + runs.scoring.get(arm[0], 0.0)
        rows.append([*_arm(runs, arm), dev, _difference(difference, with_verdict=True), *scores, f"{cost:.2f}"])
    words = (
        "In %, mean ± standard deviation over seeds. Difference in points, paired by seed, as in the next table; only seeds "
        "that both have are in it. Cost: training and scoring together, in training epochs on everything."
        + _failure_words(runs)
    )
    return Table("Summary", rows, words)


def accuracy(runs: Runs) -> Table:
    """In the layout of the published table."""
    header = ["data %", "chosen by", "equal", "seeds", f"eval_acc ({' / '.join(runs.dev)})"]
    rows = [[*header, *_headings(runs.shown)]]
    for arm, results in runs.arms.items():
        dev = " / ".join(_mean(_known(results, name), 100, 2) for name in runs.dev)
        rows.append([*_arm(runs, arm), dev, *_cells(runs.shown, results)])
    words = (
        "Mean ± standard deviation over seeds. A seed decides the training. It also decides the choice where the strategy draws "
        "anything; the other strategies choose the same for every seed of a sweep. Equal epochs: every share is trained for the same "
        "number of epochs; equal steps: for as many optimizer steps as everything takes."
    )
    return Table("Accuracy by share of the data", rows, words + _failure_words(runs))


def challenge_sets(runs: Runs) -> Table:
    """The sets that runs evaluated themselves, by group."""
    rows = [["data %", "chosen by", "equal", "seeds", *_headings(runs.grouped)]]
    rows += [[*_arm(runs, arm), *_cells(runs.grouped, results)] for arm, results in runs.arms.items()]
    words = (
        "Fraction right, mean ± standard deviation over seeds. Worst group: the lowest accuracy of any group, in each run. "
        "Mean over groups: every group weighs the same, however many examples it has."
    )
    return Table("Challenge sets", rows, words)


def comparison(runs: Runs, against: str = "random") -> Table:
    """Differences from random (from `all` at 100 %) at the same share and budget, or everywhere from `all`; paired by seed,
    in points."""
    metrics = metrics_of(runs)
    rows = [["data %", "chosen by", "equal", "seeds", *metrics]]
    for (strategy, share, budget), found in differences_from_random(runs.arms, metrics, against=against).items():
        seeds = max(difference.n for difference in found.values())
        cells = [_difference(found.get(name), with_verdict=not runs.looks) for name in metrics]
        rows.append([f"{100 * share:g}", strategy, budget, str(seeds), *cells])
    words = (
        "Points, paired by seed: mean [95 % interval] and, after >, the smallest true difference that so many seeds of "
        "this spread show with 80 % power. Interval and smallest difference are adjusted (Bonferroni) for the number of "
        "strategies that are compared at that share: the intervals of one column and share hold together with 95 % "
        "confidence. **better** or **worse**: the interval excludes 0. Anything else is not shown to differ, which is not "
        "the same as shown to be equal. No spread: every seed differs by the same amount, so nothing can be said about "
        "further seeds."
    )
    if runs.looks:
        words += " No verdicts here: how many seeds an arm has was decided by its dev accuracy, in the table above."
    return Table(f"Difference from {against}", rows, words)


def replication(runs: Runs) -> Table:
    """What papers say of the arms beside what was measured: differences from random, paired by seed, in points."""
    measured = differences_from_random(runs.arms, metrics_of(runs))
    rows = [["data %", "chosen by", "published", "source", "compared on", "expected", "measured", "seeds", "verdict"]]
    for claim in runs.claims:
        difference = measured.get(claim.arm, {}).get(claim.metric)
        verdict = _why_not(runs, claim.arm) if difference is None else claim.verdict(difference)
        seeds = f"{difference.n if difference else 0}{_failed(runs.failed[claim.arm])}"
        about = [f"{100 * claim.data_pct:g}", claim.strategy, claim.text, claim.source, claim.metric, claim.expectation]
        rows.append([*about, _difference(difference, with_verdict=False), seeds, verdict])
    words = (
        "Published: the claim of the paper, in its setting. Expected: what it says of the difference from random, by the "
        "published size where it has one, or `within` a margin. Measured: as in the table above. Replicated: all of the "
        "interval lies on the claimed side of 0, and it holds the published size; for `within`, inside the margin. Smaller or "
        "larger than published: all of it lies below or above the published size, which is taken as exact. Not replicated: all "
        "of it lies on the other side of 0, or outside the margin. Undecided: anything else; the number after > is the smallest "
        "true difference that would have been seen with 80 % power." + _failure_words(runs)
    )
    return Table("Replication", rows, words)


def looks(runs: Runs) -> Table:
    """What each look of a sweep that stops early said."""
    plan = runs.looks
    rows = [["data %", "chosen by", "equal", *(f"{n} seeds" for n in plan.seeds)]]
    for (strategy, share, budget), found in looks_at(runs.results, plan, runs.dev).items():
        cells = [_look(look) for look in found] + ["-"] * (len(plan.seeds) - len(found))
        rows.append([f"{100 * share:g}", strategy, budget, *cells])
    words = (
        f"Mean of {' and '.join(runs.dev)} accuracy, difference from random in points, paired by seed, with its interval. "
        f"**within**: the interval lies between -{plan.smallest:g} and +{plan.smallest:g}; **above**, **below**: it does not, "
        f"and excludes 0; open: none of these, so the arm gets the seeds of the next look. All intervals of this table "
        f"hold together with 95 % confidence: the level is spent over the {len(plan.seeds)} looks (O'Brien-Fleming type, "
        f"Lan and DeMets 1983) and divided among {plan.arms} arms (Bonferroni). -: no look, since the arm was decided "
        "before or its seeds are not there yet."
    )
    return Table("Looks", rows, words)


def cost(runs: Runs) -> Table:
    """What an arm costs, scoring included, and after how many trainings it is cheaper than training on everything."""
    full = runs.arms.get(("all", 1.0, "epochs"))
    everything = float(np.mean([r.cost for r in full])) if full else None
    timed = bool(_recorded_seconds(runs.results))
    rows = [["data %", "chosen by", "equal", "training", "scoring", "together", "pays after"]]
    rows[0] += ["seconds"] if timed else []
    for (strategy, share, budget), results in runs.arms.items():
        if not results:
            continue
        training, scoring = float(np.mean([r.cost for r in results])), runs.scoring.get(strategy, 0.0)
        saved = everything - training if everything is not None else 0.0
        numbers = [f"{training:.2f}", f"{scoring:.2f}", f"{training + scoring:.2f}"]
        seconds = _recorded_seconds(results)
        measured = [f"{np.mean(seconds):.0f}" if seconds else "-"] if timed else []
        rows.append([f"{100 * share:g}", strategy, budget, *numbers, _pays_after(scoring, saved), *measured])
    words = (
        "In training epochs on everything; forward passes count a third. Scoring is what the way of choosing needs once "
        "(a run that records dynamics, embeddings; what was given ready-made counts nothing). A first fine-tuning that each "
        "training goes on from counts as training. `pays after`: number of trainings on the chosen examples after which scoring "
        "and they together cost no more than as many on everything; - where they never do, or nothing was trained on everything."
        + (" Seconds: of a training, mean as measured." if timed else "")
    )
    return Table("Cost", rows, words)


def in_random_data(runs: Runs) -> Table | None:
    """What share of the data, chosen at random, is as good as an arm, and what both cost. None where `random` was trained at one
    share only."""
    (name, columns), *_ = metrics_of(runs).items()
    rows = [["data %", "chosen by", "equal", "seeds", f"random data as good on {name}"]]
    rows[0] += ["cost", "cost of that", "pays after"]
    curves = {budget: random_curve(runs, budget) for _, _, budget in runs.arms}
    for arm, found in differences_from_random(runs.arms, {name: columns}).items():
        curve, difference = curves[arm[2]], found[name]
        if not curve.rises:
            continue
        level = curve.score(arm[1])
        same = curve.share(level + difference.mean)
        text = _share(same, curve)
        if difference.has_spread:
            text += (
                f" [{', '.join(_share(curve.share(level + end), curve) for end in (difference.low, difference.high))}]"
            )
        else:
            text += f" ({_no_spread(difference)})"
        training, scoring = float(np.mean([r.cost for r in runs.arms[arm]])), runs.scoring.get(arm[0], 0.0)
        costs = [f"{training + scoring:.2f}", "-", "-"]
        if 0 < same < math.inf:
            costs[1:] = f"{curve.cost(same):.2f}", _pays_after(scoring, curve.cost(same) - training)
        rows.append([*_arm(runs, arm), text, *costs])
    words = (
        "Which share of the data, chosen at random and trained on for as many epochs (or steps), is as good as the arm; in brackets, "
        "the ends of the arm's interval in the table of differences. The mean of random at the arm's share plus the difference "
        "is looked up among the means of random at the measured shares, with a monotone curve between them. Their own "
        "uncertainty is left out. Costs as in the table above, scoring included. `pays after`: number of trainings after which "
        "scoring and they together cost no more than as many on that random data; - where they never do."
        + _failure_words(runs)
    )
    falls = [budget for budget, curve in curves.items() if len(curve.shares) > 1 and not curve.rises]
    words += "".join(
        f" At equal {budget} more random data is not better throughout, so nothing is said." for budget in falls
    )
    return Table("In random data", rows if len(rows) > 1 else [], words) if falls or len(rows) > 1 else None


def chosen(runs: Runs) -> Table:
    """What is in the chosen examples, failed runs included: it may be why they failed."""
    columns = runs.subset_columns
    rows = [["data %", "chosen by", *(name.removeprefix(SUBSET) for name in columns)]]
    found: dict[tuple, list[dict]] = {}
    for result in runs.results:
        if result.subset:
            found.setdefault((result.data_pct, result.strategy), []).append(result.subset)
    for (share, strategy), subsets in found.items():
        row = [f"{100 * share:g}", strategy]
        for name in columns:
            values = [subset[name] for subset in subsets if name in subset]
            row.append(_mean_only(values, count=name.startswith(AGAINST)))
        rows.append(row)
    words = (
        "Share of each label, and number of pairs that contradict a heuristic of word overlap (it holds, and the label is "
        "not entailment); means over seeds."
    )
    return Table("What was chosen", rows, words)


def every_run(runs: Runs, out) -> Table:
    """A row a run. Runs that were read from folders are linked to them, as seen from `out`."""
    rows = [
        [
            "run",
            "data %",
            "chosen by",
            "equal",
            "seed",
            "examples",
            *runs.dev,
            *(c.headline for c in runs.shown),
            "failed",
        ]
    ]
    for r in runs.results:
        scores = [r.scores.get(name) for name in rows[0][6:-1]]
        rows.append(
            [r.name, f"{100 * r.data_pct:g}", r.strategy, r.budget, str(r.seed), str(r.m)]
            + ["-" if score is None else f"{100 * score:.1f}" for score in scores]
            + ["yes" if r.collapsed else "no"]
        )
    links = {r.name: os.path.relpath(r.folder, out) for r in runs.results if r.folder}
    return Table("Every run", rows, "Accuracies in %.", links)


def beside_published(runs: Runs) -> Table:
    """Our random subsets beside those that were published, for the columns that both have."""
    published_cells = (published.ENTAILED, published.NON_ENTAILED)
    places = {columns: place for place, columns in enumerate(published_cells, 1)}
    cells = [(challenge, cell) for challenge in runs.challenges for cell in challenge.cells]
    both = [(cell, places[key]) for _, cell in cells if (key := tuple(cell.columns.values())) in places]
    titles = ["eval_acc", *(cell.title for cell, _ in both)]
    rows = [["data %", *(f"{title}, {whose}" for title in titles for whose in ("ours", "theirs"))]]
    for share, theirs in published.PUBLISHED.items():
        results = runs.arms.get(("all" if share == 1 else "random", share, "epochs"), [])
        ours = " / ".join(_mean(_known(results, name), 100, 2) for name in published.DEV) if results else "-"
        row = [f"{100 * share:g}", ours, " / ".join(f"{value:.2f}" for value in theirs[0])]
        for cell, place in both:
            known = any(_known(results, name) for name in cell.columns.values())
            row += [_cell(cell, results) if known else "-", ", ".join(f"{value:.3f}" for value in theirs[place])]
        rows.append(row)
    names = dict.fromkeys(challenge.name for challenge, cell in cells if any(cell is other for other, _ in both))
    suspect = f"; {published.SUSPECT.format(' and '.join(names))}" if names else ""
    return Table("Beside the published numbers", rows, f"{published.WORDS}{suspect}.")


# --------------------------------------------------------------------------------------------------------------- cells
def _arm(runs: Runs, arm) -> list[str]:
    strategy, share, budget = arm
    return [f"{100 * share:g}", strategy, budget, f"{len(runs.arms[arm])}{_failed(runs.failed[arm])}"]


def _why_not(runs: Runs, arm) -> str:
    """Why an arm has no difference from random."""
    if arm not in runs.arms:
        return "not run"
    return "not compared" if runs.arms[arm] else "all seeds failed"


def _headings(challenges: list[ChallengeColumns]) -> list[str]:
    return [cell.heading for challenge in challenges for cell in challenge.cells]


def _cells(challenges: list[ChallengeColumns], results: list[Result]) -> list[str]:
    return [_cell(cell, results) for challenge in challenges for cell in challenge.cells]


def _cell(cell, results: list[Result]) -> str:
    return ", ".join(_mean(_known(results, name), 1, 3) for name in cell.columns.values())


def _known(results: list[Result], column: str) -> list[float]:
    return [r.scores[column] for r in results if column in r.scores]


def _mean(values, scale: float, digits: int) -> str:
    """Mean ± standard deviation, or - for no values."""
    if not values:
        return "-"
    mean, std = mean_and_std(values)
    text = f"{scale * mean:.{digits}f}"
    return text if math.isnan(std) else f"{text} ± {scale * std:.{digits}f}"


def _mean_only(values, *, count: bool) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.1f}" if count else f"{100 * np.mean(values):.1f} %"


def _look(look: Look) -> str:
    verdict = look.verdict if look.verdict == OPEN else f"**{look.verdict}**"
    if math.isnan(look.low):
        return f"{verdict} ({look.n} usable pairs, no spread)"
    return f"{look.mean:+.2f} [{look.low:+.2f}, {look.high:+.2f}] {verdict}"


def _share(share: float, curve: RandomCurve) -> str:
    """A share that the curve gives, or on which side of the curve it lies."""
    if share == 0:
        return f"below {100 * curve.shares[0]:g} %"
    if share < math.inf:
        return f"{100 * share:.1f} %"
    return "none is" if curve.shares[-1] == 1 else f"above {100 * curve.shares[-1]:g} %"


def _no_spread(difference: Difference) -> str:
    return "one seed" if difference.n == 1 else "no spread"


def _difference(difference: Difference | None, *, with_verdict: bool) -> str:
    if difference is None:
        return "-"
    mean = f"{difference.mean:+.1f}"
    if not difference.has_spread:
        return f"{mean} ({_no_spread(difference)})"
    verdict = f" **{difference.verdict}**" if difference.verdict and with_verdict else ""
    return f"{mean} [{difference.low:+.1f}, {difference.high:+.1f}] > {difference.detectable:.1f}{verdict}"


def _recorded_seconds(results: list[Result]) -> list[float]:
    """Seconds of the runs of which only rows were kept. Those of run folders stay in timings.csv, so that a report of the same
    runs is always the same."""
    return [r.seconds for r in results if r.folder is None and r.seconds is not None]


def _pays_after(scoring: float, saved: float) -> str:
    """Number of trainings that save what scoring costs. saved: what one training saves, in epochs."""
    if saved <= 1e-9:
        return "-"
    return f"{max(1, math.ceil(scoring / saved - 1e-9))} training{'s' if scoring > saved + 1e-9 else ''}"


def _failed(count: int) -> str:
    return f" ({count} failed)" if count else ""


def _failure_words(runs: Runs) -> str:
    if not runs.failed:
        return ""
    return " Failed: seeds that give every dev example the same answer, counted but not averaged in."
