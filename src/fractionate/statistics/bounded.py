"""Intervals and tests of the mean of outcomes that lie between two known bounds: right or wrong, F1, differences.

One method serves them all: the score interval under the nonparametric maximum likelihood. Of all distributions between
the bounds that have a given mean, take the one under which what was seen is most likely; the mean is rejected where the
measured one lies too many of *its* standard errors away. For right and wrong outcomes this is Wilson's interval, for
their paired differences Tango's, to the last digit; for F1 it is what these two become when outcomes may lie anywhere
between. So it keeps an honest width where nothing varies, it is skewed where the outcomes are, and it draws nothing.

The likelihood is Owen's (Biometrika 75 (1988) 237), with mass allowed on a bound that was never seen (Honda &
Takemura, COLT 2010); the score statistic with the variance under the hypothesis is Rao's (for empirical likelihood:
Guggenberger & Smith, Econometric Theory 21 (2005) 667). Clusters enter through the effective number of outcomes and the
critical value (`clusters.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fractionate.statistics.clusters import Design, Groups, Values, critical, design_of, group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_TINY = 1e-12
"""Differences of outcomes below this are what adding floats in another order leaves."""


class Interval(NamedTuple):
    """A two-sided confidence interval, in the unit of what it is of."""

    low: float
    high: float


class Shares(NamedTuple):
    """A sample as its distinct `values`, ascending, and the share of each, adding up to 1; both of one length."""

    values: Array
    shares: Array

    def mean(self) -> float:
        """Return the mean of the sample."""
        return float(self.shares @ self.values)

    def mirrored(self) -> Shares:
        """Return the sample of the negated values: an upper bound is minus the lower bound of this."""
        return Shares(-self.values[::-1], self.shares[::-1])


def unseen_share(n: float, confidence: float = 0.95) -> float:
    """Return the largest share of questions that may behave as none of `n` did: Wilson's upper bound at 0 of n."""
    z2 = critical(confidence) ** 2
    return z2 / (n + z2)


def wilson(right: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion, within [0, 1]; (0, 1) at n = 0.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended by Brown, Cai & DasGupta, Statist. Sci. 16 (2001) 101.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    # As in scipy.stats, whose import alone takes longer than a small run; the ends are exact at 0 and n.
    share, z = right / n, critical(confidence)
    middle = (2 * n * share + z**2) / (2 * (n + z**2))
    half = z / (2 * (n + z**2)) * math.sqrt(4 * n * share * (1 - share) + z**2)
    return Interval(0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half)


def mean_interval(values: Values, confidence: float = 0.95, groups: Groups | None = None) -> Interval:
    """Return the interval of the mean of outcomes in [0, 1]: a cell's value, be it right/wrong or F1.

    `groups[i]` names the passage of question i; None takes questions as independent. (0, 1) without outcomes and, since
    nothing can be said of other passages, for a single passage. Wilson's where all are right or wrong and independent.
    """
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    alone = groups is None or (len(groups) == len(array) and not _share(group_numbers(groups, len(array))))
    if alone and np.isin(array, (0.0, 1.0)).all():
        return wilson(int(array.sum()), len(array), confidence)
    return score_interval(values, 0.0, 1.0, confidence, groups)


def _share(numbers: NDArray[np.int64]) -> bool:
    """Return whether any two questions are of one group."""
    return bool(len(numbers)) and int(numbers.max()) + 1 < len(numbers)


def score_interval(
    values: Values,
    least: float,
    most: float,
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> Interval:
    """Return the score interval of the mean of values in [least, most]; see the module for what it is.

    Raises ValueError where a value is not a number between the bounds, or `groups` are not one a value.
    """
    array = checked(values, least, most)
    if not len(array):
        return Interval(least, most)
    design = design_of(array, groups)
    return interval_of(shares_of(array), least, most, design, critical(confidence, design.df))


def score_p(
    values: Values,
    least: float,
    most: float,
    groups: Groups | None = None,
    at: float = 0.0,
) -> float:
    """Return the two-sided p-value of `mean = at` (least < at < most) by the test that `score_interval` inverts."""
    from scipy.special import stdtr

    array = checked(values, least, most)
    if not len(array):
        return 1.0
    design = design_of(array, groups)
    distance = score_of(shares_of(array), least, most, at) * math.sqrt(design.effective)
    if design.df == 0 or distance == 0:
        return 1.0
    return min(1.0, 2 * float(stdtr(design.df, -abs(distance))))


def checked(values: Values, least: float, most: float) -> Array:
    """Return values as an array; raises ValueError where one is no number between the bounds."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"outcomes must be one row of numbers, not of shape {array.shape}")
    outside = ~((array >= least - _TINY) & (array <= most + _TINY))
    if outside.any():
        raise ValueError(f"outcome {array[outside][0]:g} does not lie between {least:g} and {most:g}")
    return np.clip(array, least, most)


def shares_of(array: Array) -> Shares:
    """Return the distinct values of a sample and their shares."""
    import numpy as np

    values, counts = np.unique(array, return_counts=True)
    return Shares(values, counts / len(array))


def interval_of(sample: Shares, least: float, most: float, design: Design, quantile: float) -> Interval:
    """Return the interval of a sample whose bounds lie `quantile` standard errors away (∞ gives the whole range)."""
    low = _lower_bound(sample, least, design.effective, quantile)
    high = -_lower_bound(sample.mirrored(), -most, design.effective, quantile)
    return Interval(max(low, least), min(high, most))


def variance_at(sample: Shares, least: float, most: float, mean: float) -> float:
    """Return the variance under `mean` (least < mean < most): that of the likeliest distribution with this mean."""
    measured = sample.mean()
    if abs(measured - mean) < _TINY:
        return float(sample.shares @ (sample.values - measured) ** 2)
    if measured > mean:
        return (measured - mean) / _multiplier(sample, least, mean)
    return (mean - measured) / _multiplier(sample.mirrored(), -most, -mean)


def score_of(sample: Shares, least: float, most: float, mean: float) -> float:
    """Return (measured − mean) in standard deviations under `mean`: the score statistic of a single outcome."""
    gap = sample.mean() - mean
    return 0.0 if abs(gap) < _TINY else gap / math.sqrt(variance_at(sample, least, most, mean))


def _multiplier(sample: Shares, least: float, mean: float) -> float:
    """Return λ of the likeliest distribution with a mean below the measured one: weights share / (1 + λ(value − mean)).

    λ cannot pass 1/(mean − least): there the rest of the mass goes to the bound `least` itself, seen or not. The
    variance under the mean is (measured − mean)/λ.
    """
    from scipy.optimize import brentq

    # Weights share/(1 + λ·away) must stay positive at every value between the bounds, the least of which makes
    # away = least − mean: so λ stays below 1/(mean − least).
    away, most = sample.values - mean, 1 / (mean - least)

    def pull(multiplier: float) -> float:
        return float(sample.shares @ (away / (1 + multiplier * away)))

    # Where the mean is still too high at the largest λ, mass must lie on the bound itself although no outcome did: the
    # likelihood only weighs what was seen, so that mass costs it nothing but the shares that are left.
    if sample.values[0] - least > _TINY and pull(most) >= 0:
        return most
    inside = most * (1 - 1e-12)
    return inside if pull(inside) >= 0 else float(brentq(pull, 0.0, inside, xtol=1e-14 * most))


def _lower_bound(sample: Shares, least: float, effective: float, quantile: float) -> float:
    """Return the mean below the measured one that lies exactly `quantile` standard errors away.

    With the bound `fall` below the measured mean, the statistic is √(effective · λ · fall), so λ = quantile² /
    (effective · fall), and one equation in `fall` is left. Its least solution is what the unseen share allows.
    """
    from scipy.optimize import brentq

    measured = sample.mean()
    span = measured - least
    # No degree of freedom (a single passage) makes the quantile infinite: the bound is then the range's own.
    if span < _TINY or not math.isfinite(quantile):
        return least
    ratio = quantile * quantile / effective
    if ratio < 1e-300:
        return measured

    def pull(fall: float) -> float:
        away = sample.values - (measured - fall)
        return float(sample.shares @ (away / (1 + ratio / fall * away)))

    # However little the outcomes vary, a share ratio/(1 + ratio) of the questions may lie at the bound unseen; at this
    # `fall` λ is just at its limit, and below it there is no solution.
    unseen = ratio * span / (1 + ratio)
    # Where outcomes do lie at the bound, the sum has a pole there: start a hair beyond it.
    start = unseen * (1 + 1e-9) if sample.values[0] - least <= _TINY else unseen
    end = span * (1 - 1e-12)
    if start >= end or pull(start) >= 0:
        return measured - unseen
    if pull(end) < 0:
        return least
    return measured - float(brentq(pull, start, end, xtol=1e-13))
