"""What the comparisons of a report come to: what beats the baseline, what loses against it, what is undecided."""

from collections.abc import Iterable

from utils.report.comparison import Difference, differences_from_random
from utils.report.looks import ABOVE, BELOW, OPEN, WITHIN, Look, looks_at
from utils.report.results import Arm, Runs

Judged = dict[str, dict[Arm, Difference | Look]]


def metrics_of(runs: Runs) -> dict[str, tuple[str, ...]]:
    """What is compared with the baseline: by name, the columns whose mean it is. Of two dev columns their mean comes first.
    Dev accuracy is not compared where looks at it decided how many seeds an arm has."""
    compared = [name for challenge in [*runs.shown, *runs.grouped] for name in challenge.compared]
    names = [*(() if runs.looks else runs.dev), *(name for name in compared if name in runs.columns)]
    whole = {_mean_of_dev(runs): runs.dev} if len(runs.dev) > 1 and not runs.looks else {}
    return whole | {name: (name,) for name in names}


def judged(runs: Runs, against: str = "random") -> Judged:
    """{metric: {arm: its comparison with the baseline}}; with looks, the last look at the dev accuracy comes first."""
    metrics = metrics_of(runs)
    differences = differences_from_random(runs.arms, metrics, against=against)
    found: Judged = {name: {arm: own[name] for arm, own in differences.items() if name in own} for name in metrics}
    if runs.looks:
        last = {arm: looks[-1] for arm, looks in looks_at(runs.results, runs.looks, runs.dev).items() if looks}
        found = {_mean_of_dev(runs): last, **found}
    return {name: own for name, own in found.items() if own}


def verdict_of(runs: Runs, comparison: Difference | Look) -> str:
    """ "better", "worse", "within" (the smallest difference of interest) or "". With looks, only looks have a verdict."""
    if runs.looks and not isinstance(comparison, Look):
        return ""
    return {ABOVE: "better", BELOW: "worse", OPEN: ""}.get(comparison.verdict, comparison.verdict)


def sentences(runs: Runs, against: str = "random") -> list[str]:
    """One sentence a verdict."""
    found = judged(runs, against)
    if runs.looks:
        found = dict([*found.items()][:1])
    whole = " (at 100 %: all of the data)" if any(arm[1] == 1 for arms in found.values() for arm in arms) else ""
    baseline = f"random at the same share of the data{whole}" if against == "random" else "training on everything"
    verdicts = {"better": f"Better than {baseline}", "worse": f"Worse than {baseline}"}
    if runs.looks:
        verdicts[WITHIN] = f"Within {runs.looks.smallest:g} points of {baseline}"
    lines = []
    for verdict, words in verdicts.items():
        own = {
            name: [arm for arm, one in arms.items() if verdict_of(runs, one) == verdict] for name, arms in found.items()
        }
        listed = "; ".join(f"on {name}: {_arms(arms)}" for name, arms in own.items() if arms)
        lines.append(f"**{words}** {listed}." if listed else f"**{words}**: nothing is shown to be.")
    both = [
        arm
        for arm in runs.arms
        if {"better", "worse"} <= {verdict_of(runs, arms[arm]) for arms in found.values() if arm in arms}
    ]
    if both:
        lines.append(f"**Better on one column, worse on another**: {_arms(both)}.")
    every = [(arm, one) for arms in found.values() for arm, one in arms.items()]
    undecided = [arm for arm, one in every if not verdict_of(runs, one)]
    decided = {arm[0] for arm, one in every if verdict_of(runs, one)}
    never = sorted({arm[0] for arm in undecided} - decided)
    nowhere = f", among them all of {', '.join(never)}" if never and decided else ""
    lines.append(
        f"**Undecided**: {len(undecided)} of {len(every)} comparisons{nowhere}. Undecided is not the same as equal."
    )
    lost = [
        arm for arm in runs.arms if arm[0] not in (against, "all") and all(arm not in arms for arms in found.values())
    ]
    if lost:
        lines.append(f"**Not compared**, since no seed of theirs can be paired with the baseline: {_arms(lost)}.")
    return lines


def _mean_of_dev(runs: Runs) -> str:
    return f"mean of {' and '.join(runs.dev)}"


def _arms(arms: Iterable[Arm]) -> str:
    """diverse (10, 30 %), hard (10 %, equal steps)"""
    places: dict[tuple[str, str], list[str]] = {}
    for strategy, share, budget in arms:
        places.setdefault((strategy, budget), []).append(f"{100 * share:g}")
    return ", ".join(
        f"{strategy} ({', '.join(shares)} %{'' if budget == 'epochs' else f', equal {budget}'})"
        for (strategy, budget), shares in places.items()
    )
