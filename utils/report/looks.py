"""A sweep that stops when it has decided: after so many seeds each strategy is compared with random, and called above,
below, within the smallest difference of interest, or left open.

One interval an arm and look carries all verdicts: within where it lies between -smallest and +smallest (two one-sided
tests), else above where it lies above 0, below where it lies below. The intervals of all arms and looks hold together with 95 %
confidence ("repeated confidence intervals", Jennison & Turnbull 1989, JRSS B 51), so all verdicts do:

- over the looks, each one-sided level is spent as 2 - 2 Phi(z / sqrt(t)), t the share of the planned seeds (the
  O'Brien-Fleming type of Lan & DeMets 1983, Biometrika 70);
- the spread is estimated from few seeds, so each look is an exact test by Student's t at the level that it spends. The
  published boundaries for normal statistics (1.969 rather than 1.987 standard errors at the last of 5, 10, 20) count on
  the looks' correlation; with Student's quantiles at their levels, 5.2 % of simulated sweeps had a false verdict;
- over the arms by Bonferroni, as in `comparison`. Holm's method would find a little more, but has no intervals that
  agree with its verdicts, and equivalence needs intervals.
"""

import math
from dataclasses import dataclass

import numpy as np

from utils.report.comparison import ALPHA, ROUNDING, baseline_of
from utils.report.results import Arm, LookPlan, Result

VERDICTS = ABOVE, BELOW, WITHIN, OPEN = "above", "below", "within", "open"


@dataclass(frozen=True)
class Look:
    """Mean paired difference from random in points, its interval (NaN where n pairs tell no spread), and the verdict."""

    n: int
    mean: float
    low: float
    high: float
    verdict: str


def spent(time: float, alpha: float) -> float:
    """How much of a one-sided level is spent by a share `time` of the planned seeds."""
    from scipy.stats import norm

    return float(2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(time)))


def critical_values(counts: tuple[int, ...], plan: LookPlan, *, last: bool = True) -> list[float]:
    """Half-widths, in standard errors, of the looks after `counts` pairs (rising). last: the final one is the last one
    planned and spends what is left."""
    from scipy.stats import t

    alpha = ALPHA / 2 / plan.arms
    times = [n / plan.seeds[-1] for n in counts]
    levels = np.diff(
        [0.0, *(spent(1.0 if last and n == counts[-1] else time, alpha) for n, time in zip(counts, times, strict=True))]
    )
    return [float(t.isf(level, n - 1)) for n, level in zip(counts, levels, strict=True)]


def verdict(low: float, high: float, smallest: float) -> str:
    """What an interval says. `within` goes before `above` and `below`: so small a difference is of no interest."""
    if -smallest < low and high < smallest:
        return WITHIN
    return ABOVE if low > 0 else BELOW if high < 0 else OPEN


def looks_at(results: list[Result], plan: LookPlan, dev) -> dict[Arm, list[Look]]:
    """{arm: its looks so far, the first verdict last}, on the mean of the columns `dev`.

    results: failed seeds among them, which count for a look being complete but not in its interval. Only looks are taken
    whose every seed is there, of the arm and of its baseline: random at the same share and budget, `all` at 100 %.
    """
    arms: dict[Arm, dict[int, float]] = {}
    for result in results:
        score = math.nan if result.collapsed else result.mean(dev)
        arms.setdefault(result.arm, {})[result.seed] = score
    found = {}
    for arm, ours in arms.items():
        if arm[0] not in ("random", "all"):
            found[arm] = _looks(ours, arms.get(baseline_of(arm), {}), plan)
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
    """One look at the pairs (n, 2). counts: pairs of each earlier look; those of this one are added if it has an interval."""
    differences = pairs[:, 0] - pairs[:, 1]
    n = len(differences)
    mean = float(differences.mean()) if n else math.nan
    spread = float(differences.std(ddof=1)) if n > 1 else 0.0
    if n < 2 or spread <= ROUNDING * np.abs(pairs).max() or (counts and n <= counts[-1]):
        return Look(n, mean, math.nan, math.nan, OPEN)
    counts.append(n)
    half = critical_values(tuple(counts), plan, last=last)[-1] * spread / math.sqrt(n)
    return Look(n, mean, mean - half, mean + half, verdict(mean - half, mean + half, plan.smallest))
