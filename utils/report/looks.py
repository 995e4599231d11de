"""A sweep that stops when it has decided: after so many seeds each strategy is compared with random, and called above,
below, within the smallest difference of interest, or left open.

One interval an arm and look carries all verdicts: above where it lies above 0, below where it lies below, within where it
lies between -smallest and +smallest (two one-sided tests). The intervals of all arms and looks hold together with 95 %
confidence ("repeated confidence intervals", Jennison & Turnbull 1989, JRSS B 51), so all verdicts do:

- over the looks, each one-sided level is spent as 2 - 2 Phi(z / sqrt(t)), t the share of the planned seeds (the
  O'Brien-Fleming type of Lan & DeMets 1983, Biometrika 70);
- over the arms by Bonferroni, as in `comparison`. Holm's method would find a little more, but has no intervals that
  agree with its verdicts, and equivalence needs intervals;
- the spread is estimated, so the normal boundary z of a look is replaced by the quantile of Student's t with n - 1 degrees
  of freedom at the same one-sided level (Jennison & Turnbull 2000, "Group sequential methods", section 4.4).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from utils.report.comparison import ALPHA, ROUNDING
from utils.report.results import Arm, LookPlan, Result

VERDICTS = ABOVE, BELOW, WITHIN, OPEN = "above", "below", "within", "open"
GRID = 1501  # points of the numerical integration; 3.710, 2.511, 1.993 come out with 301


@dataclass(frozen=True)
class Look:
    """Mean paired difference from random in points, its interval (NaN where n pairs tell no spread), and the verdict."""

    n: int
    mean: float
    low: float
    high: float
    verdict: str


@functools.cache
def boundaries(counts: tuple[int, ...], total: int, alpha: float, last: bool = True) -> tuple[float, ...]:
    """One-sided critical values of the z statistics after `counts` observations, alpha spent over the looks.

    counts: rising; total: observations planned. With `last` the final look spends what is left of alpha. By recursion over
    the density of the sum that has not crossed (Armitage, McPherson & Rowe 1969).
    """
    from scipy import optimize, stats

    norm, bounds, spent, before = stats.norm, [], 0.0, 0
    simpson = np.where(np.arange(GRID) % 2, 4.0, 2.0)
    simpson[[0, -1]] = 1.0
    sums, mass = np.zeros(1), np.ones(1)  # the distribution of the sum of the observations so far
    for k, n in enumerate(counts):
        time = 1.0 if last and k == len(counts) - 1 else n / total
        target = 2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(time))

        def excess(z, sums=sums, mass=mass, n=n, before=before, wanted=target - spent):
            return mass @ norm.sf((z * math.sqrt(n) - sums) / math.sqrt(n - before)) - wanted

        bounds.append(float(optimize.brentq(excess, -5.0, 60.0)))
        grid, step = np.linspace(-9.0, bounds[-1], GRID) * math.sqrt(n), math.sqrt(n - before)
        density = norm.pdf((grid[:, None] - sums) / step) @ mass / step
        sums, mass = grid, density * simpson * (grid[1] - grid[0]) / 3
        spent, before = target, n
    return tuple(bounds)


def critical_values(counts: tuple[int, ...], plan: LookPlan, *, last: bool = True) -> list[float]:
    """The quantiles of Student's t that the looks after `counts` pairs use: half-widths in standard errors. last: the
    final look is the last one planned."""
    from scipy import stats

    bounds = boundaries(counts, plan.seeds[-1], ALPHA / 2 / plan.arms, last)
    return [float(stats.t.isf(stats.norm.sf(z), n - 1)) for z, n in zip(bounds, counts, strict=True)]


def verdict(low: float, high: float, smallest: float) -> str:
    """What an interval says; `above` or `below` where it says that and `within` too."""
    if low > 0:
        return ABOVE
    if high < 0:
        return BELOW
    return WITHIN if -smallest < low and high < smallest else OPEN


def looks_at(results: list[Result], plan: LookPlan, dev) -> dict[Arm, list[Look]]:
    """{arm: its looks so far, the first verdict last}, on the mean of the columns `dev`.

    results: failed seeds among them, which count for a look being complete but not in its interval. Only looks are taken
    whose every seed is there, of the arm and of its baseline: random at the same share and budget, `all` at 100 %.
    """
    arms: dict[Arm, dict[int, float]] = {}
    for result in results:
        score = math.nan if result.collapsed else 100 * float(np.mean([result.scores[name] for name in dev]))
        arms.setdefault(result.arm, {})[result.seed] = score
    found = {}
    for (strategy, share, budget), ours in arms.items():
        baseline = arms.get(("all", 1.0, "epochs") if share == 1 else ("random", share, budget), {})
        if strategy not in ("random", "all"):
            found[strategy, share, budget] = _looks(ours, baseline, plan)
    return found


def _looks(ours: dict[int, float], baseline: dict[int, float], plan: LookPlan) -> list[Look]:
    looks, counts = [], []
    for seeds in plan.seeds:
        if not all(seed in ours and seed in baseline for seed in range(seeds)):
            break
        pairs = np.array([(ours[seed], baseline[seed]) for seed in range(seeds)])
        last = seeds == plan.seeds[-1]
        looks.append(_look(pairs[~np.isnan(pairs).any(axis=1)], counts, plan, last=last))
        if looks[-1].verdict != OPEN:
            break
    return looks


def _look(pairs, counts: list[int], plan: LookPlan, *, last: bool) -> Look:
    """One look at the pairs (n, 2). counts: the pairs of the looks before; this one is added where it can tell anything."""
    differences = pairs[:, 0] - pairs[:, 1]
    n = len(differences)
    mean = float(differences.mean()) if n else math.nan
    spread = float(differences.std(ddof=1)) if n > 1 else 0.0
    if n < 2 or spread <= ROUNDING * np.abs(pairs).max() or (counts and n <= counts[-1]):
        return Look(n, mean, math.nan, math.nan, OPEN)
    counts.append(n)
    half = critical_values(tuple(counts), plan, last=last)[-1] * spread / math.sqrt(n)
    return Look(n, mean, mean - half, mean + half, verdict(mean - half, mean + half, plan.smallest))
