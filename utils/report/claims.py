"""claims.csv: what papers say of a method, beside a results.csv, and what the runs say of that."""

from dataclasses import dataclass

from utils.errors import InputError
from utils.report.comparison import Difference
from utils.report.fields import cell, rounded_share

CLAIMS_FILE = "claims.csv"  # beside a results.csv
CLAIM_COLUMNS = ("strategy", "data_pct", "metric", "expected", "points", "claim", "source")
BETTER, WORSE, WITHIN, NOT_BETTER = EXPECTED = ("better", "worse", "within", "not better")
REPLICATED, SMALLER, LARGER = "replicated", "smaller than published", "larger than published"
NOT_REPLICATED, UNDECIDED = "not replicated", "undecided"


@dataclass(frozen=True)
class Claim:
    """One claim about the difference of `strategy` from random at a share of the data, for equal epochs.

    metric: a name of `metrics_of`. expected: `better` or `worse` than random, by the published `points` where the paper gives
    a size; `within` so many points of it, a margin; or `not better`. text: the claim in words, with the setting of the paper;
    source: the paper.
    """

    strategy: str
    data_pct: float
    metric: str
    expected: str
    points: float | None
    text: str
    source: str

    @property
    def arm(self) -> tuple[str, float, str]:
        return self.strategy, self.data_pct, "epochs"

    @property
    def expectation(self) -> str:
        """better, worse by 7, within 1"""
        if self.points is None:
            return self.expected
        return f"{self.expected} {'' if self.expected == WITHIN else 'by '}{self.points:g}"

    def verdict(self, difference: Difference) -> str:
        """What the interval says of the claim.

        `replicated`: all of it lies on the claimed side of 0 (`within`: inside the margin), and it holds the published size;
        `smaller` and `larger than published`: all of it lies below or above the published size, on the claimed side of 0 where
        it is above; `not replicated`: all of it lies on the other side of 0 (`within`: outside the margin); `undecided`:
        anything else. The published size is taken as exact.
        """
        low, high = difference.low, difference.high
        if not difference.has_spread:
            return UNDECIDED
        if self.expected == WITHIN:
            if -self.points < low and high < self.points:
                return REPLICATED
            return NOT_REPLICATED if low > self.points or high < -self.points else UNDECIDED
        if self.expected in (WORSE, NOT_BETTER):
            low, high = -high, -low
        if high < 0:
            return NOT_REPLICATED
        if self.points is not None and not low <= self.points <= high:
            return SMALLER if high < self.points else LARGER
        return REPLICATED if low > 0 else UNDECIDED


def claim_of(row: dict[str, str], where: str, metrics: list[str]) -> Claim:
    """The claim of one row, about one of these metrics. Raises InputError, with `where`, for a value of the wrong kind."""
    expected = cell(row, "expected", where)
    if expected not in EXPECTED:
        raise InputError(f"{where}: expected is {expected!r}; one of {', '.join(EXPECTED)}")
    if (metric := cell(row, "metric", where)) not in metrics:
        raise InputError(f"{where}: metric is {metric!r}; one of {', '.join(metrics)}")
    share = cell(row, "data_pct", where, float)
    if not 0 < share <= 1:
        raise InputError(f"{where}: data_pct is {share:g}, expected a fraction of the data: 0.1 for 10 %")
    points = cell(row, "points", where, float) if row["points"] or expected == WITHIN else None
    if points is not None and expected == NOT_BETTER:
        raise InputError(f"{where}: points is {points:g}, expected nothing where expected is {NOT_BETTER!r}")
    if points is not None and points <= 0:
        raise InputError(f"{where}: points is {points:g}, expected a number above 0; `expected` gives the direction")
    return Claim(
        strategy=cell(row, "strategy", where),
        data_pct=rounded_share(share),
        metric=metric,
        expected=expected,
        points=points,
        text=cell(row, "claim", where),
        source=cell(row, "source", where),
    )
