"""Intervals, paired tests and sample sizes for outcomes between 0 and 1 on the same questions.

Every interval here keeps an honest width where nothing varies: five right answers of five do not prove certainty, and
two systems that never disagreed on ten questions may disagree on the eleventh. Plain resampling says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 10_000
POWER = 0.80
"""The power that sample sizes are stated at."""


class Interval(NamedTuple):
    """A two-sided confidence interval, in the unit of what it is of."""

    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference a − b in [−1, 1], its interval, two-sided p-value and the test's name."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    variance: float
    """The variance of the per-question differences, 0 to 1: what a sample size is computed from."""


def critical(confidence: float) -> float:
    """Return z such that a normal variable lies within ±z with probability `confidence` (0.95 gives 1.96)."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def unseen_share(n: int, confidence: float = 0.95) -> float:
    """Return the largest share of questions that may behave as none of `n` did: Wilson's upper bound at 0 of n."""
    z2 = critical(confidence) ** 2
    return z2 / (n + z2)


def wilson(right: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion, within [0, 1]; (0, 1) at n = 0.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended by Brown, Cai & DasGupta, Statist. Sci. 16 (2001) 101.
    """
    from scipy.stats import binomtest

    if n == 0:
        return Interval(0.0, 1.0)
    interval = binomtest(right, n).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mean_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the interval of a mean of values in [0, 1] (F1): BCa bootstrap, widened by what n questions cannot show.

    BCa: Efron, J. Am. Stat. Assoc. 82 (1987) 171. The same values and seed give the same interval.
    """
    if not values:
        return Interval(0.0, 1.0)
    return _bounded_interval(_array(values), 0.0, 1.0, confidence, seed)


def value_interval(values: Sequence[float], metric: str, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the interval of a cell's value: Wilson's where every value is 0 or 1, the bootstrap's otherwise."""
    if metric == "exact_match" and _right_or_wrong(values):
        return wilson(round(sum(values)), len(values), confidence)
    return mean_interval(values, confidence, seed)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided McNemar p-value from the questions that only one of the two got right.

    McNemar, Psychometrika 12 (1947) 153, with the binomial distribution in place of χ². 1.0 without discordant pairs.
    """
    from scipy.stats import binomtest

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def tango(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Tango's score interval of a paired difference of proportions, within [−1, 1]; (−1, 1) at n = 0.

    It keeps its coverage at small n, and without a discordant pair it is ±z²/(n + z²), not zero wide.
    Tango, Statist. Med. 17 (1998) 891.
    """
    from scipy.optimize import brentq

    if n == 0:
        return Interval(-1.0, 1.0)
    z, estimate, edge = critical(confidence), (only_a - only_b) / n, 1 - 1e-12

    def bound(target: float, start: float, end: float) -> float:
        def gap(delta: float) -> float:
            return _tango_score(only_a, only_b, n, delta) - target

        # The score falls as delta grows; where it never reaches the target inside, the bound is the edge itself.
        if gap(start) * gap(end) > 0:
            return math.copysign(1.0, end)
        return float(brentq(gap, start, end, xtol=1e-12))

    inside = min(max(estimate, -edge), edge)
    return Interval(bound(z, inside, -edge), bound(-z, inside, edge))


def _tango_score(only_a: int, only_b: int, n: int, delta: float) -> float:
    """Return the score statistic of `true difference = delta`, with the nuisance share at its constrained maximum."""
    linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
    constant = -only_b * delta * (1 - delta)
    root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
    # Of the two forms of the quadratic's root, the one that does not subtract nearly equal numbers.
    share = (root - linear) / (4 * n) if linear <= 0 else -2 * constant / (root + linear)
    distance = only_a - only_b - n * delta
    variance = n * (2 * share + delta * (1 - delta))
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def paired_difference(
    a: Sequence[float], b: Sequence[float], metric: str = "exact_match", confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Compare two systems over the same questions: `a[i]` and `b[i]` are the outcomes (0 to 1) of question i.

    Right/wrong outcomes get Tango's interval and the exact McNemar test; F1 gets a paired bootstrap (BCa interval,
    p from the distribution shifted to no difference). Raises ValueError where the lengths differ.
    """
    import numpy as np

    if len(a) != len(b):
        raise ValueError(f"paired outcomes differ in number: {len(a)} and {len(b)}")
    discrete = metric == "exact_match" and _right_or_wrong(a) and _right_or_wrong(b)
    test = "exact McNemar" if discrete else "paired bootstrap"
    if not a:
        return Difference(0.0, -1.0, 1.0, 1.0, test, 1.0)
    differences = _array(a) - _array(b)
    mean, variance = float(differences.mean()), float(differences.var())
    if discrete:
        only_a, only_b = int(np.sum(differences > 0)), int(np.sum(differences < 0))
        interval = tango(only_a, only_b, len(a), confidence)
        return Difference(mean, *interval, mcnemar(only_a, only_b), test, variance)
    interval = _bounded_interval(differences, -1.0, 1.0, confidence, seed)
    return Difference(mean, *interval, _bootstrap_p(differences, seed), test, variance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: the family-wise error stays under any threshold on them.

    Holm, Scand. J. Statist. 6 (1979) 65.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def mean_t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return Student's interval of an unbounded mean (dollars per question); unbounded below two values."""
    import numpy as np
    from scipy.special import stdtrit

    if len(values) < 2:
        return Interval(-math.inf, math.inf)
    array = _array(values)
    half = float(stdtrit(len(array) - 1, 0.5 + confidence / 2)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(np.mean(array))
    return Interval(mean - half, mean + half)


def sample_size(
    distance: float, variance: float, confidence: float = 0.95, power: float = POWER, room: float | None = 1.0
) -> int | None:
    """Return how many questions put a bound of the interval on the far side of a threshold with the stated power.

    `distance` is from the measured difference to the threshold (for non-inferiority: difference + margin), `variance`
    that of the per-question differences; both are taken to hold. Paired samples: n = (z_conf + z_power)² · variance /
    distance² (Connor, Biometrics 43 (1987) 207, with the variance at the measured difference). `room` is how far a
    bounded mean could lie from the measured one on the threshold's side: however little varies, there must be enough
    questions for the share that may have gone unseen not to reach across. None where the distance is 0.
    """
    from scipy.special import ndtri

    gap = abs(distance)
    if gap < 1e-12:
        return None
    z = critical(confidence)
    needed = (z + float(ndtri(power))) ** 2 * variance / gap**2
    if room is not None:
        needed = max(needed, z * z * (room - gap) / gap)
    return max(1, math.ceil(needed)) if needed < 1e12 else None


def _array(values: Sequence[float]) -> Array:
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def _right_or_wrong(values: Sequence[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _bounded_interval(values: Array, least: float, most: float, confidence: float, seed: int) -> Interval:
    """Return the BCa interval of a bounded mean, joined with the range that the unseen share of questions allows."""
    mean, unseen = float(values.mean()), unseen_share(len(values), confidence)
    low, high = mean - unseen * (mean - least), mean + unseen * (most - mean)
    if values.min() != values.max():
        resampled = _bca(values, confidence, seed)
        low, high = min(low, resampled.low), max(high, resampled.high)
    return Interval(max(low, least), min(high, most))


def _bca(values: Array, confidence: float, seed: int) -> Interval:
    import numpy as np
    from scipy.special import ndtr, ndtri

    means = np.asarray(_resampled_means(values.tobytes(), seed))
    mean = values.mean()
    # Ties count half: outcomes are coarse, and a resampled mean often equals the measured one.
    below = (np.sum(means < mean) + 0.5 * np.sum(means == mean)) / len(means)
    bias = float(ndtri(np.clip(below, 1 / len(means), 1 - 1 / len(means))))
    centred = mean - values
    centred = centred / np.abs(centred).max()  # the acceleration has no unit; cubes of tiny differences would vanish
    acceleration = float(np.sum(centred**3) / (6 * np.sum(centred**2) ** 1.5))
    z = critical(confidence)
    levels = [ndtr(bias + (bias + tail) / (1 - acceleration * (bias + tail))) for tail in (-z, z)]
    low, high = np.quantile(means, levels)
    return Interval(float(low), float(high))


def _bootstrap_p(differences: Array, seed: int) -> float:
    import numpy as np

    if differences.min() == differences.max() == 0.0:
        return 1.0
    means = np.asarray(_resampled_means(differences.tobytes(), seed))
    mean = float(differences.mean())
    extreme = np.sum(np.abs(means - mean) >= abs(mean) - 1e-12)
    return float((extreme + 1) / (len(means) + 1))


@lru_cache(maxsize=4)
def _resampled_means(raw: bytes, seed: int) -> Array:
    """Return the sorted means of RESAMPLES resamples; cached, since an interval and a p-value share them."""
    import numpy as np

    values = np.frombuffer(raw, dtype=np.float64)
    generator = np.random.default_rng([seed, 0x626F6F74])
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 16 < len(values):
        # Few distinct outcomes: drawing how often each comes up costs nothing that grows with n.
        drawn = generator.multinomial(len(values), counts / len(values), size=RESAMPLES)
        return np.sort(drawn @ distinct / len(values))
    means = np.empty(RESAMPLES)
    chunk = max(1, 2_000_000 // len(values))
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        means[start : start + size] = values[generator.integers(0, len(values), (size, len(values)))].mean(axis=1)
    return np.sort(means)
