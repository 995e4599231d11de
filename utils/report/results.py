"""Finished runs as rows of numbers, wherever they were read from; and saying by name which ones cannot stand together."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.data.challenge import ChallengeColumns, grouped_sets
from utils.errors import InputError
from utils.report.claims import Claim

SUBSET = "chosen: "  # begins the columns of what is in a subset: shares of labels,
AGAINST = f"{SUBSET}against "  # and numbers of pairs that contradict a heuristic
# Facts that must be alike for runs to stand in one report: in all runs; in runs of one share and budget; in those of one
# share, budget and seed (differences are paired by seed); in runs of one strategy.
ALIKE, ALIKE_AT_A_SHARE = ("model", "data", "pool"), ("learning_rate",)
ALIKE_IN_A_SEED, ALIKE_IN_A_STRATEGY = ("precision",), ("version",)
IDENTITY = (*ALIKE, *ALIKE_AT_A_SHARE, *ALIKE_IN_A_SEED, *ALIKE_IN_A_STRATEGY)

Arm = tuple[str, float, str]  # strategy, share of the data, what is alike between shares: epochs or steps


@dataclass(frozen=True)
class Result:
    """One finished run.

    m: number of chosen examples. scores: {column: fraction}. cost: training epochs on all of the data that it took, forward
    passes counted at their own cost. seconds: of the training loop, as measured (None where not recorded). subset: what its
    card says of the chosen examples, shares of labels and pairs against each heuristic, empty where nothing was chosen
    once. collapsed: it gives every dev example the same answer; such a failed seed is counted and named, but not averaged
    in. identity: {name of IDENTITY: text}, "" where it is not known; `data` is the fingerprint of the training set, `pool`
    the number of examples that stand for 100 %. folder: where it lies, None where only its row was kept.
    """

    name: str
    strategy: str
    data_pct: float
    budget: str
    seed: int
    m: int
    scores: dict[str, float]
    cost: float
    seconds: float | None = None
    subset: dict[str, float] = field(default_factory=dict)
    collapsed: bool = False
    identity: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def arm(self) -> Arm:
        return self.strategy, self.data_pct, self.budget

    def mean(self, columns: Sequence[str]) -> float | None:
        """The mean of these scores in percent, None where it lacks one of them."""
        known = [self.scores[name] for name in columns if name in self.scores]
        return 100 * float(np.mean(known)) if len(known) == len(columns) else None


@dataclass(frozen=True)
class LookPlan:
    """When a sweep that stops early looks. seeds: how many each look has; smallest: the difference of interest, in points;
    arms: how many are compared with random."""

    seeds: tuple[int, ...]
    smallest: float
    arms: int

    def seeds_of_last_look(self, have: set[int]) -> set[int]:
        """All seeds of the look that the largest of these belongs to."""
        return set(range(next((n for n in self.seeds if n > max(have)), self.seeds[-1])))


@dataclass(frozen=True)
class Runs:
    """Every finished run that fits the others, and what is wrong with the rest.

    scoring: what scoring cost per strategy, in epochs. dev: the columns of dev accuracy, which every result has.
    challenges: the challenge sets that were looked for. looks: of a sweep that stops early. claims: what papers say.
    """

    results: list[Result]
    problems: list[str]
    scoring: dict[str, float]
    task: str
    dev: tuple[str, ...]
    challenges: tuple[ChallengeColumns, ...] = ()
    looks: LookPlan | None = None
    claims: tuple[Claim, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of all scores."""
        return list(dict.fromkeys(name for result in self.results for name in result.scores))

    @property
    def subset_columns(self) -> list[str]:
        """Names of all facts about chosen subsets."""
        return list(dict.fromkeys(name for result in self.results for name in result.subset))

    @property
    def shown(self) -> list[ChallengeColumns]:
        """The challenge sets that some run has results of."""
        return [challenge for challenge in self.challenges if challenge.columns & set(self.columns)]

    @property
    def grouped(self) -> list[ChallengeColumns]:
        """The challenge sets that runs evaluated themselves."""
        return grouped_sets(self.columns)

    @property
    def arms(self) -> dict[Arm, list[Result]]:
        """The results of each arm, without the failed seeds."""
        found: dict[Arm, list[Result]] = {result.arm: [] for result in self.results}
        for result in self.results:
            if not result.collapsed:
                found[result.arm].append(result)
        return found

    @property
    def failed(self) -> Counter:
        """Number of failed seeds of each arm."""
        return Counter(result.arm for result in self.results if result.collapsed)


def gather(
    source,
    results: list[Result],
    problems: list[str],
    *,
    scoring: dict[str, float],
    task: str,
    dev,
    challenges,
    looks=None,
) -> Runs:
    """The Runs of these results, in the order of the tables. Those that must not be averaged with the others are left out;
    `problems` names them, and failed and missing seeds. Raises InputError where no seed is left to average over."""
    results = [
        dataclasses.replace(r, strategy="all") if (r.strategy, r.data_pct) == ("random", 1) else r for r in results
    ]
    results, unlike = _without_unlike(results)
    results, doubled = _without_doubles(sorted(results, key=_order))
    problems = [*problems, *unlike, *doubled]
    failed = ", ".join(result.name for result in results if result.collapsed)
    if failed:
        problems.append(f"failed seeds, the same answer to every dev example, counted, not averaged in: {failed}")
    if all(result.collapsed for result in results):
        raise InputError(f"{source}: no finished run to report" + (f"; {problems[0]}" if problems else ""))
    problems += _missing_seeds(results, looks)
    return Runs(results, problems, scoring, task, tuple(dev), tuple(challenges), looks)


def largest_costs(found: Iterable[tuple[str, float]]) -> tuple[dict[str, float], list[str]]:
    """{strategy: what its scoring cost}, and a line about each strategy with several costs: then the largest one counts."""
    costs: dict[str, set[float]] = {}
    for strategy, cost in found:
        costs.setdefault(strategy, set()).add(round(cost, 6))
    problems = [
        f"{strategy}: scoring cost {' and '.join(f'{cost:g}' for cost in sorted(own))} epochs in different runs; the largest counts"
        for strategy, own in costs.items()
        if len(own) > 1
    ]
    return {strategy: max(own) for strategy, own in costs.items()}, problems


def keep_alike(entries: list, facts: Callable, what: str, name: Callable) -> tuple[list, list[str]]:
    """The entries that have the most frequent facts, and a line about each of the others.

    facts(entry) -> ((name, value), ...), of which lines tell the differences; name(entry): as it is printed.
    """
    if not entries:
        return [], []
    common = Counter(facts(entry) for entry in entries).most_common(1)[0][0]
    problems = [
        f"{name(entry)}: other {what} than most runs ({_differences(facts(entry), common)}); left out"
        for entry in entries
        if facts(entry) != common
    ]
    return [entry for entry in entries if facts(entry) == common], problems


def _without_unlike(results: list[Result]) -> tuple[list[Result], list[str]]:
    """The results that agree on what IDENTITY names, and a line about each of the others."""

    def at_a_share(result: Result) -> str:
        return f" at {100 * result.data_pct:g} % (equal {result.budget})"

    problems = []
    for names, group, what in (
        (ALIKE, lambda result: "", "settings"),
        (ALIKE_AT_A_SHARE, at_a_share, "settings"),
        (ALIKE_IN_A_SEED, lambda result: f" of seed {result.seed}{at_a_share(result)}", "precision"),
        (ALIKE_IN_A_STRATEGY, lambda result: f" of {result.strategy}", "version"),
    ):
        results, unlike = _alike_in_groups(results, names, group, what)
        problems += unlike
    return results, problems


def _alike_in_groups(results: list[Result], names, group: Callable[[Result], str], what: str):
    """`keep_alike` by these parts of the identity, within each group of results; a group is what messages call it."""

    def facts(result):
        return tuple((name, result.identity.get(name) or "not known") for name in names)

    kept, problems = [], []
    for called in dict.fromkeys(map(group, results)):
        own = [result for result in results if group(result) == called]
        alike, unlike = keep_alike(own, facts, f"{what}{called}", lambda result: result.name)
        kept, problems = kept + alike, problems + unlike
    return kept, problems


def _differences(one: tuple, other: tuple) -> str:
    one, other = dict(one), dict(other)
    unlike = [name for name in one | other if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} instead of {other.get(name)}" for name in unlike)


def _without_doubles(results: list[Result]) -> tuple[list[Result], list[str]]:
    """One result for each arm and seed: a seed that counted twice would make differences look more certain."""
    first: dict[tuple, Result] = {}
    problems = []
    for result in results:
        before = first.setdefault((result.arm, result.seed), result)
        if before is not result:
            problems.append(f"{result.name}: the same strategy, share, budget and seed as {before.name}; left out")
    return list(first.values()), problems


def _missing_seeds(results: list[Result], looks: LookPlan | None) -> list[str]:
    arms: dict[Arm, set[int]] = {}
    shares: dict[tuple, set[int]] = {}  # of each share and budget, the seeds of any arm
    for result in results:
        arms.setdefault(result.arm, set()).add(result.seed)
        shares.setdefault(result.arm[1:], set()).add(result.seed)
    missing = {arm: (looks.seeds_of_last_look(have) if looks else shares[arm[1:]]) - have for arm, have in arms.items()}
    return [
        f"{strategy} at {100 * pct:g} % (equal {budget}): seed {', '.join(map(str, sorted(lost)))} missing"
        for (strategy, pct, budget), lost in missing.items()
        if lost
    ]


def _order(result: Result):
    return result.budget, result.data_pct, {"all": 0, "random": 1}.get(result.strategy, 2), result.strategy, result.seed
