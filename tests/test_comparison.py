"""Statistics of the report against scipy, simulation and textbook values."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.report.comparison import detectable_difference, differences_from_random, mean_and_std, paired_difference
from utils.report.results import Result


def test_mean_and_standard_deviation():
    values = [0.61, 0.64, 0.58]
    assert mean_and_std(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    mean, std = mean_and_std([0.5])
    assert mean == 0.5 and math.isnan(std)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("comparisons", [1, 15])
def test_paired_difference_is_scipys_at_the_adjusted_level(n, comparisons):
    rng = np.random.default_rng(n)
    ours, baseline = rng.normal(1, 2, n), rng.normal(0, 1, n)
    found, expected = paired_difference(ours, baseline, comparisons=comparisons), stats.ttest_rel(ours, baseline)
    interval = expected.confidence_interval(1 - 0.05 / comparisons)
    assert found.mean == pytest.approx(np.mean(ours - baseline)) and found.n == n
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("comparisons", [1, 4, 15])
def test_the_verdict_is_what_the_interval_and_the_adjusted_test_say(comparisons):
    rng = np.random.default_rng(comparisons)
    verdicts = set()
    for effect in np.linspace(-8, 8, 60):
        ours, baseline = rng.normal(effect, 1, 4), rng.normal(0, 1, 4)
        found = paired_difference(ours, baseline, comparisons=comparisons)
        significant = stats.ttest_rel(ours, baseline).pvalue < 0.05 / comparisons
        assert found.verdict == ("" if not significant else "better" if found.mean > 0 else "worse")
        assert (found.verdict != "") == (not found.low <= 0 <= found.high)
        verdicts.add(found.verdict)
    assert verdicts == {"", "better", "worse"}


def test_pairing_removes_what_a_seed_does_to_both():
    luck = np.array([0.0, 10.0, -10.0, 5.0])
    small = np.array([0.9, 1.1, 1.0, 1.0])
    assert paired_difference(luck + small, luck).verdict == "better"
    assert stats.ttest_ind(luck + small, luck).pvalue > 0.5


def test_one_pair_says_nothing():
    one = paired_difference([0.7], [0.6])
    assert one.mean == pytest.approx(0.1) and one.n == 1 and not one.has_spread and one.verdict == ""
    assert math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.detectable)


@pytest.mark.parametrize(
    ("ours", "baseline"),
    [
        ([2, 3, 4], [1, 2, 3]),
        ([1, 2, 3], [1, 2, 3]),
        ([0.41, 0.62], [0.3, 0.51]),  # the same but for rounding
        ([0.1 + 0.2, 0.5], [0.3, 0.5]),  # none but for rounding
    ],
)
def test_the_same_difference_in_every_seed_gives_neither_interval_nor_verdict(ours, baseline):
    same = paired_difference(ours, baseline)
    assert same.mean == pytest.approx(np.mean(np.subtract(ours, baseline)), abs=1e-12) and same.n == len(ours)
    assert not same.has_spread and same.verdict == ""
    assert math.isnan(same.low) and math.isnan(same.high) and math.isnan(same.detectable)


@pytest.mark.parametrize(("n", "comparisons"), [(3, 1), (5, 1), (12, 1), (5, 15)])
def test_detectable_difference_is_found_in_four_of_five_experiments(n, comparisons):
    spread = 2.5
    effect = detectable_difference(spread, n, comparisons=comparisons)
    differences = np.random.default_rng(0).normal(effect, spread, (20_000, n))
    found = (stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05 / comparisons).mean()
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 20_000))


def test_three_seeds_and_fifteen_strategies_need_12_7_standard_deviations():
    """Not 3.26, which is what one comparison alone needs."""
    assert detectable_difference(1.0, 3) == pytest.approx(3.26, abs=0.005)
    assert detectable_difference(1.0, 3, comparisons=15) == pytest.approx(12.7, abs=0.05)
    differences = [1.0, 2.0, 3.0]  # of standard deviation 1
    assert paired_difference(differences, [0, 0, 0], comparisons=15).detectable == pytest.approx(12.7, abs=0.05)


def test_detectable_difference_scales_and_shrinks_with_pairs():
    assert detectable_difference(2.0, 5) == pytest.approx(2 * detectable_difference(1.0, 5))
    assert detectable_difference(1.0, 3) > detectable_difference(1.0, 5) > detectable_difference(1.0, 50)
    # METHODS of McCoy et al.'s spread: lexical overlap 12.4 points, unpaired 5 points need about 98 runs an arm;
    # paired differences of independent arms spread by sqrt(2) more.
    assert detectable_difference(math.sqrt(2) * 12.4, 98) == pytest.approx(5, abs=0.1)
    assert math.isnan(detectable_difference(1.0, 1))


def test_all_intervals_of_a_family_hold_together():
    """Eight strategies that are worth nothing, all against the same random runs: one false verdict in 5 % at most."""
    rng = np.random.default_rng(7)
    tables = 1000
    wrong = 0
    for _ in range(tables):
        baseline = rng.normal(0, 1, 3)
        wrong += any(paired_difference(rng.normal(0, 1, 3), baseline, comparisons=8).verdict for _ in range(8))
    assert 0 < wrong / tables <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / tables)


def arm_of(values: dict[int, float], metric="acc"):
    return [Result("x", "s", 0.1, "epochs", seed, 1, {metric: value}, 1.0) for seed, value in values.items()]


def test_a_family_is_what_is_compared_at_one_share_and_budget():
    ours = {0: 0.62, 1: 0.64, 2: 0.69}
    theirs = {0: 0.60, 1: 0.61, 2: 0.62}
    points = [[100 * value for value in side.values()] for side in (ours, theirs)]
    arms = {("random", 0.1, "epochs"): arm_of(theirs), ("random", 0.3, "epochs"): arm_of(theirs)}
    arms |= {(name, 0.1, "epochs"): arm_of(ours) for name in ("a", "b", "c")}
    arms[("one seed", 0.1, "epochs")] = arm_of({0: 0.7})
    arms[("failed", 0.1, "epochs")] = []
    arms[("a", 0.3, "epochs")] = arm_of(ours)
    arms[("a", 0.1, "steps")] = arm_of(ours)  # nothing to compare it with
    found = differences_from_random(arms, {"acc": ("acc",), "another": ("another",)})
    assert set(found) == {(name, 0.1, "epochs") for name in ("a", "b", "c", "one seed")} | {("a", 0.3, "epochs")}
    assert found["a", 0.1, "epochs"] == {"acc": paired_difference(*points, comparisons=3)}
    assert found["a", 0.3, "epochs"] == {"acc": paired_difference(*points, comparisons=1)}
    assert found["one seed", 0.1, "epochs"]["acc"].n == 1


def test_every_arm_can_be_compared_with_everything():
    names = [("all", 1.0, "epochs"), ("poe", 1.0, "epochs"), ("random", 0.1, "epochs"), ("hard", 0.1, "steps")]
    arms = {arm: arm_of({0: 0.8 + i / 10, 1: 0.7 + i / 7}) for i, arm in enumerate(names)}
    found = differences_from_random(arms, {"acc": ("acc",)}, against="all")
    assert list(found) == names[1:] and found["hard", 0.1, "steps"]["acc"].mean == pytest.approx((30 + 300 / 7) / 2)


def test_only_seeds_that_both_have_are_paired_and_everything_is_compared_with_all():
    arms = {("all", 1.0, "epochs"): arm_of({0: 0.8, 2: 0.7}), ("weighted", 1.0, "epochs"): arm_of({2: 0.75, 5: 0.1})}
    (difference,) = differences_from_random(arms, {"acc": ("acc",)})["weighted", 1.0, "epochs"].values()
    assert difference.n == 1 and difference.mean == pytest.approx(5)
