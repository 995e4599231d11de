"""What a difference between ways of choosing is worth: paired by seed, with its uncertainty and what could have been seen.

Means and standard deviations over seeds; HANS varies so much between seeds that a single one says nothing (McCoy et al.
2020, arXiv 1911.02969).
"""

import math
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05  # two-sided
POWER = 0.8
ROUNDING = 1e-9  # relative: a spread below it is zero


@dataclass(frozen=True)
class Difference:
    """Mean paired difference with its 95 % interval; p two-sided, 1 where the pairs do not vary at all; the smallest true
    difference that so many pairs of this spread show with 80 % power. Everything but `mean` and `n` is NaN for fewer than
    two pairs."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float
    n: int


def mean_and_std(values) -> tuple[float, float]:
    """Mean and sample standard deviation (NaN for one value)."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def paired_difference(ours, baseline) -> Difference:
    """Student's paired t over seeds: `ours` and `baseline` are equally long, seed by seed."""
    from scipy import stats

    d = np.asarray(ours, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    n, mean = len(d), float(d.mean())
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, n)
    spread = float(d.std(ddof=1))
    if spread <= ROUNDING * np.abs(d).max():
        spread = 0.0
    error = spread / math.sqrt(n)
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * error
    # Accuracies are multiples of 1 / rows: a few seeds that differ by exactly the same are a coincidence, not certainty.
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else 1.0
    return Difference(mean, mean - half, mean + half, p, detectable_difference(spread, n), n)


def detectable_difference(spread: float, n: int) -> float:
    """The true mean difference that a paired t-test of n pairs with standard deviation `spread` finds with 80 % power.

    From the noncentral t distribution (Cohen 1988, section 2.3); NaN for n < 2.
    """
    from scipy import optimize, stats

    if n < 2:
        return math.nan
    if spread == 0:
        return 0.0
    critical = stats.t.ppf(1 - ALPHA / 2, n - 1)

    def power(effect):  # of finding the right sign; the wrong one has next to none
        return stats.nct.sf(critical, n - 1, effect * math.sqrt(n))

    enough = 1.0
    while power(enough) < POWER:
        enough *= 2
    return spread * float(optimize.brentq(lambda effect: power(effect) - POWER, 0.0, enough))


def holm(p_values) -> np.ndarray:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given; NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted
