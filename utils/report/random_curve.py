"""How much random data is as good as what an arm chooses. It is read off the curve of `random`: accuracy against share.

Between two measured shares the accuracy is taken to be linear in the logarithm of the share. Outside of them nothing is
said. The curve's own uncertainty is left out.
"""

import math
from dataclasses import dataclass

import numpy as np

from utils.report.comparison import baseline_of
from utils.report.results import Runs


@dataclass(frozen=True)
class RandomCurve:
    """shares: increasing, in (0, 1]; accuracies: mean dev accuracy at these, in %, increasing; costs: mean, in epochs."""

    shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    costs: tuple[float, ...]

    def accuracy(self, share: float) -> float:
        """The measured accuracy at one of the shares."""
        return self.accuracies[self.shares.index(share)]

    def share(self, accuracy: float) -> float:
        """The share that gives this accuracy; 0 where the smallest one gives more, infinity where the largest gives less."""
        if accuracy < self.accuracies[0]:
            return 0.0
        if accuracy > self.accuracies[-1]:
            return math.inf
        return float(np.exp(np.interp(accuracy, self.accuracies, np.log(self.shares))))

    def cost(self, share: float) -> float:
        """What a random choice of this share costs, between the costs of the measured ones."""
        return float(np.interp(share, self.shares, self.costs))


def random_curve(runs: Runs, budget: str) -> RandomCurve | None:
    """The curve at this budget. None with fewer than two shares, and where more data is not better throughout."""
    places = sorted({share for _, share, own in runs.arms if own == budget or share == 1})
    found = [(share, runs.arms.get(baseline_of(("", share, budget)))) for share in places]
    points = [
        (share, np.mean([r.mean(runs.dev) for r in own]), np.mean([r.cost for r in own])) for share, own in found if own
    ]
    curve = RandomCurve(*(tuple(map(float, column)) for column in zip(*points, strict=True))) if points else None
    return curve if curve and len(points) > 1 and (np.diff(curve.accuracies) > 0).all() else None
