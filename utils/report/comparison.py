"""What a difference between strategies is worth: paired by seed, with one interval, one verdict and one smallest
difference that could have been seen, all three at the same level.

Family and level: every strategy compared with random at one share, one budget and one metric belongs to one family. With k
comparisons in it each is made at alpha / k (Bonferroni's inequality; Dunn 1961, "Multiple comparisons among means", JASA
56), so the intervals hold together with 95 % confidence. A difference is shown where its interval excludes 0.
Several metrics are several families: they are not adjusted for one another.

Means and standard deviations are over seeds. Accuracy on challenge sets varies so much between seeds that a single one says
nothing (McCoy et al. 2020, arXiv 1911.02969).
"""

import math
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05  # two-sided, of a whole family
POWER = 0.8
ROUNDING = 1e-9  # of the largest value: a spread below it is zero


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of n seeds with its simultaneous 95 % interval [low, high].

    detectable: the smallest true difference that n pairs of this spread show with 80 % power. low, high and detectable are
    NaN where the spread is unknown: there is one pair only, or all pairs differ by the same amount.
    """

    mean: float
    low: float
    high: float
    detectable: float
    n: int

    @property
    def has_spread(self) -> bool:
        return not math.isnan(self.low)

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "" where the difference is not shown to be another than 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else ""


def mean_and_std(values) -> tuple[float, float]:
    """Mean and sample standard deviation (NaN for one value)."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def paired_difference(ours, baseline, *, comparisons: int = 1) -> Difference:
    """Student's paired t interval over seeds, mean +- t(1 - alpha / 2k, n - 1) * s / sqrt(n).

    ours and baseline: equally long, seed by seed. comparisons: k, the size of the family.
    """
    from scipy import stats

    ours, baseline = np.asarray(ours, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    differences = ours - baseline
    n, mean = len(differences), float(differences.mean())
    spread = float(differences.std(ddof=1)) if n > 1 else 0.0
    # Accuracies are multiples of 1 / rows. That a few seeds differ by exactly the same amount is a coincidence, and no
    # estimate of how much further seeds would differ.
    if spread <= ROUNDING * max(np.abs(ours).max(), np.abs(baseline).max()):
        return Difference(mean, math.nan, math.nan, math.nan, n)
    half = float(stats.t.ppf(1 - ALPHA / comparisons / 2, n - 1)) * spread / math.sqrt(n)
    detectable = detectable_difference(spread, n, comparisons=comparisons)
    return Difference(mean, mean - half, mean + half, detectable, n)


def detectable_difference(spread: float, n: int, *, comparisons: int = 1) -> float:
    """The true mean difference that n pairs with standard deviation `spread` show with 80 % power, at alpha / comparisons.

    The t statistic of n pairs whose true mean is d has the noncentral t distribution with n - 1 degrees of freedom and
    noncentrality sqrt(n) d / spread (Cohen 1988, "Statistical power analysis", section 2.3). NaN for n < 2.
    """
    from scipy import optimize, stats

    if n < 2:
        return math.nan
    critical = stats.t.ppf(1 - ALPHA / comparisons / 2, n - 1)

    def power(effect):  # to find the right sign; the wrong one is hardly ever found
        return stats.nct.sf(critical, n - 1, effect * math.sqrt(n))

    enough = 1.0
    while power(enough) < POWER:
        enough *= 2
    return spread * float(optimize.brentq(lambda effect: power(effect) - POWER, 0.0, enough))


def baseline_of(arm: tuple, against: str = "random") -> tuple:
    """What an arm (strategy, share, budget) is compared with: random at the same share and budget; `all` at 100 %, or with
    against="all"."""
    _, share, budget = arm
    return ("random", share, budget) if share < 1 and against == "random" else ("all", 1.0, "epochs")


def differences_from_random(
    arms: dict[tuple, list], metrics: dict[str, tuple[str, ...]], *, against: str = "random"
) -> dict[tuple, dict[str, Difference]]:
    """{arm: {metric: Difference in points}} against random at the same share and budget, `all` at 100 %.

    against: with "all", every arm is compared with `all`, whatever its share.

    arms: {(strategy, share, budget): its `Result`s}; metrics: by name, the columns whose mean a
    metric is. Arms without a seed in common with their baseline, and metrics that no such pair has, are left out.
    """
    pairs: dict[tuple, dict[str, list]] = {}
    for arm, results in arms.items():
        if arm[0] in (against, "all"):
            continue
        theirs = {result.seed: result for result in arms.get(baseline_of(arm, against), [])}
        together = [(result, theirs[result.seed]) for result in results if result.seed in theirs]
        for metric, columns in metrics.items():
            values = [tuple(result.mean(columns) for result in pair) for pair in together]
            values = [pair for pair in values if None not in pair]
            if values:
                pairs.setdefault(arm, {})[metric] = values

    def family_size(metric, place) -> int:
        """Number of arms compared on this metric at this (share, budget). One pair of seeds is no comparison."""
        return sum(arm[1:] == place and len(found.get(metric, ())) > 1 for arm, found in pairs.items())

    return {
        arm: {
            metric: paired_difference(*zip(*values, strict=True), comparisons=max(1, family_size(metric, arm[1:])))
            for metric, values in found.items()
        }
        for arm, found in pairs.items()
    }
