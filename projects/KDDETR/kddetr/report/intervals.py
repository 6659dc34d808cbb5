"""What a few differences between pairs of runs say: their 95 % interval, and how many pairs it
takes to see a difference.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

MOST_PAIRS = 1000  # above which a number of pairs is no longer told


def interval(values: Sequence[float], *, tests: int = 1) -> tuple[float, float]:
    """The 95 % confidence interval of the mean, by Student's t distribution.

    Args:
        tests: how many means are looked at together. Of several, each has the wider interval of
            Bonferroni's correction: that all of them hold at once has at least 95 %.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("One value says nothing about how much it varies.")
    middle, deviation = statistics.mean(values), statistics.stdev(values)
    half = stats.t.ppf(1 - 0.025 / tests, len(values) - 1) * deviation / math.sqrt(len(values))
    return middle - half, middle + half


def with_interval(values: Sequence[float]) -> str:
    """The mean difference and, of several values, its 95 % interval."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):+.1f}"
    if len(values) < 2:
        return mean
    low, high = interval(values)
    return f"{mean} [{low:+.1f}, {high:+.1f}]"


def pairs_needed(values: Sequence[float], *, power: float = 0.8) -> int | None:
    """How many pairs a two-sided paired t test at 5 % needs to find a difference of the size of the
    mean of ``values``, if differences vary as these do, with the probability ``power``.

    That is the smallest n with P(|T| > t(0.975, n - 1)) >= power, where T has the noncentral t
    distribution with n - 1 degrees of freedom and noncentrality sqrt(n) * mean / deviation (Cohen,
    Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2). From few values it is
    a rough number, because their mean and deviation are rough.

    Returns:
        the number, at least 2; None where it is above 1,000, or the mean is 0.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("One value says nothing about how much it varies.")
    mean, deviation = abs(statistics.mean(values)), statistics.stdev(values)
    if mean == 0:
        return None
    if deviation == 0:
        return 2
    n = np.arange(2, MOST_PAIRS + 1)
    critical, shift = stats.t.ppf(0.975, n - 1), np.sqrt(n) * mean / deviation
    # The other tail, T < -critical, matters only where the shift is small: there it is added.
    found = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    # Where the shift is huge, scipy returns NaN for a probability that is 1.
    enough = np.flatnonzero(~(found < power))
    return int(n[enough[0]]) if len(enough) else None
