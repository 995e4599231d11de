"""Statistics of the report against scipy, simulation and textbook values."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.report.comparison import detectable_difference, holm, mean_and_std, paired_difference


def test_mean_and_standard_deviation():
    values = [0.61, 0.64, 0.58]
    assert mean_and_std(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    mean, std = mean_and_std([0.5])
    assert mean == 0.5 and math.isnan(std)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_paired_difference_is_scipys(n):
    rng = np.random.default_rng(n)
    ours, baseline = rng.normal(1, 2, n), rng.normal(0, 1, n)
    found, expected = paired_difference(ours, baseline), stats.ttest_rel(ours, baseline)
    interval = expected.confidence_interval(0.95)
    assert (found.mean, found.p) == pytest.approx((np.mean(ours - baseline), expected.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.n == n


def test_pairing_removes_what_a_seed_does_to_both():
    luck = np.array([0.0, 10.0, -10.0, 5.0])
    small = np.array([0.9, 1.1, 1.0, 1.0])
    assert paired_difference(luck + small, luck).p < 0.01 < stats.ttest_ind(luck + small, luck).pvalue


def test_one_pair_says_nothing_and_identical_differences_prove_nothing():
    one = paired_difference([0.7], [0.6])
    assert one.mean == pytest.approx(0.1) and math.isnan(one.p) and math.isnan(one.low) and math.isnan(one.detectable)
    assert paired_difference([1, 2, 3], [1, 2, 3]).p == 1
    for ours, baseline in (([2, 3, 4], [1, 2, 3]), ([0.41, 0.62], [0.3, 0.51])):  # the second but for rounding
        same = paired_difference(ours, baseline)
        assert same.p == 1 and same.low == same.high == pytest.approx(same.mean) and same.detectable == 0


@pytest.mark.parametrize("n", [3, 5, 12])
def test_detectable_difference_is_found_in_four_of_five_experiments(n):
    spread = 2.5
    effect = detectable_difference(spread, n)
    differences = np.random.default_rng(0).normal(effect, spread, (20_000, n))
    found = (stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 20_000))


def test_detectable_difference_scales_and_shrinks_with_pairs():
    assert detectable_difference(2.0, 5) == pytest.approx(2 * detectable_difference(1.0, 5))
    assert detectable_difference(1.0, 3) > detectable_difference(1.0, 5) > detectable_difference(1.0, 50)
    # METHODS of McCoy et al.'s spread: lexical overlap 12.4 points, unpaired 5 points need about 98 runs an arm;
    # paired differences of independent arms spread by sqrt(2) more.
    assert detectable_difference(math.sqrt(2) * 12.4, 98) == pytest.approx(5, abs=0.1)
    assert detectable_difference(0.0, 3) == 0 and math.isnan(detectable_difference(1.0, 1))


def test_holm_against_the_definition():
    p = np.array([0.01, 0.04, 0.03, 0.005, math.nan])
    assert holm(p)[:4] == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm 1979: 4, 3, 2, 1 times, never decreasing
    assert math.isnan(holm(p)[4])
    assert holm([0.9, 0.8]).max() == 1 and len(holm([])) == 0
