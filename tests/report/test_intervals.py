"""Intervals and numbers of pairs are those of scipy's tests."""

import numpy as np
import pytest
from scipy import stats

from kddetr.report.comparison import claim
from kddetr.report.intervals import interval, pairs_needed, with_interval


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [0.3, -4.0], [5.1, 5.0, 4.2, 7.7, 5.9]])
def test_an_interval_is_that_of_scipys_paired_t_test(values):
    first = np.linspace(20, 30, len(values))
    expected = stats.ttest_rel(first + values, first).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high))
    wider = stats.ttest_rel(first + values, first).confidence_interval(1 - 0.05 / 7)
    assert interval(values, tests=7) == pytest.approx((wider.low, wider.high))


def test_one_value_has_no_interval():
    assert with_interval([2.0]) == "+2.0" and with_interval([]) == ""
    for function in (interval, pairs_needed):
        with pytest.raises(ValueError, match="One value"):
            function([1.0])


@pytest.mark.parametrize("values", [[1.0, 3.0], [0.2, -0.4, 1.0, 0.1], [-2.0, 0.1, -3.0]])
def test_the_number_of_pairs_is_the_first_with_enough_power(values):
    """The power of that many pairs is simulated, and so is that of fewer pairs."""
    needed, rng = pairs_needed(values), np.random.default_rng(0)

    def power(count: int) -> float:
        drawn = rng.normal(np.mean(values), np.std(values, ddof=1), (20_000, count))
        return float((stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean())

    assert power(needed) > 0.78
    if needed > 2:
        assert power(needed - 1) < 0.82


def test_a_number_of_pairs_that_is_out_of_reach_is_none():
    assert pairs_needed([1.0, -1.0]) is None and pairs_needed([100.0, -99.9]) is None
    assert pairs_needed([1.0, 1.0]) == 2 and pairs_needed([1e6, 1e6 + 1]) == 2


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([], "no seed in common"),
        ([3.1], "no interval"),
        ([3.0, 3.2, 3.1], "new is better than old by 3.1 AP [2.9, 3.3] over 3 pairs"),
        ([-3.0, -3.2, -3.1], "new is worse than old by 3.1 AP [2.9, 3.3] over 3 pairs"),
        ([1.0, -0.5, 0.7], "do not show a difference between new and old: +0.4 AP [-1.6, +2.4]"),
        ([1.0, -0.5, 0.7], "more pairs would be needed"),
        ([1.0, -1.0], "+0.0 AP"),
    ],
)
def test_a_claim_says_no_more_than_the_interval(differences, words):
    assert words in claim("new", "old", differences)
