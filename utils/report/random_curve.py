"""How much random data is as good as an arm. It is read off the curve of `random`: the score against the share of the data.

Between the measured shares the logarithm of the share is interpolated, as a monotone cubic of the score (Fritsch and Carlson
1980, SIAM Journal on Numerical Analysis 17; with two shares a line). Outside of them nothing is said. The curve's own
uncertainty is left out.
"""

import math
from dataclasses import dataclass

import numpy as np

from utils.report.comparison import baseline_of
from utils.report.results import Runs


@dataclass(frozen=True)
class RandomCurve:
    """shares: increasing, in (0, 1]; scores: mean dev score at these, in %; costs: mean, in epochs."""

    shares: tuple[float, ...]
    scores: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def rises(self) -> bool:
        """Whether more data is better throughout: otherwise a score has no one share."""
        return len(self.shares) > 1 and all(np.diff(self.scores) > 0)

    def score(self, share: float) -> float:
        """The measured score at one of the shares."""
        return self.scores[self.shares.index(share)]

    def share(self, score: float) -> float:
        """The share that gives this score; 0 where the smallest one gives more, infinity where the largest gives less."""
        from scipy.interpolate import PchipInterpolator

        if not self.scores[0] <= score <= self.scores[-1]:
            return 0.0 if score < self.scores[0] else math.inf
        return float(np.exp(PchipInterpolator(self.scores, np.log(self.shares))(score)))

    def cost(self, share: float) -> float:
        """What a random choice of this share costs: linear between the costs of the measured ones."""
        return float(np.interp(share, self.shares, self.costs))


def random_curve(runs: Runs, budget: str) -> RandomCurve:
    """The curve of the shares at which `random` (at 100 %: `all`) was trained at this budget."""
    places = sorted({share for _, share, own in runs.arms if own == budget or share == 1})
    found = [(share, own) for share in places if (own := runs.arms.get(baseline_of(("", share, budget))))]
    scores = [float(np.mean([r.mean(runs.dev) for r in own])) for _, own in found]
    costs = [float(np.mean([r.cost for r in own])) for _, own in found]
    return RandomCurve(tuple(share for share, _ in found), tuple(scores), tuple(costs))
