"""Two systems over the same questions: the interval of their difference, a test of no difference, and several seeds.

The interval is the score interval of the per-question differences (`bounded.py`): Tango's for right and wrong outcomes.
The test flips signs: were the two systems exchangeable, each passage's difference would be as likely the other way
round. Over independent right and wrong outcomes that is McNemar's exact test. Elsewhere no difference on average does
not mean exchangeable (many small losses, few large gains), and flipping alone then rejects too often; so the p-value is
the larger one of the flips' and the score test's, and agrees with the interval.

**Several seeds** of one protocol (other training draws too) over the same questions are two sources of chance: the mean
would differ with other questions *and* with other seeds. Each source has an interval of its own around the pooled mean:
over questions that of the per-question means, over seeds Student's of the per-seed means. The two are joined by adding
the squared distances of their bounds (Howe, J. Am. Stat. Assoc. 69 (1974) 789; MOVER: Zou & Donner, Statist. Med. 27
(2008) 1693). That is exact where one source dominates and too wide between; Satterthwaite's degrees of freedom are too
narrow with few seeds. Student's quantile is 12.7 with two seeds, 4.3 with three, 2.8 with five.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fractionate.statistics.bounded import (
    Interval,
    Shares,
    interval_of,
    score_interval,
    score_p,
    shares_of,
)
from fractionate.statistics.clusters import Design, Groups, Values, critical, design_of, group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


_ENUMERATED = 34
"""Sums whose 2^k sign flips are counted one by one, half against half; more are approximated."""
_GRID = 60
"""The largest denominator looked for: sums in these fractions have few distinct totals, which are counted exactly."""

_WALKED = 4 * 10**9
"""Additions to count all flips on a grid, some seconds; they grow with the square of the questions."""


class Difference(NamedTuple):
    """A paired difference a − b in [−1, 1], its interval, two-sided p-value and the test's name."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    variance: float
    """The variance of the per-question differences, 0 to 1."""
    n: int
    clusters: int
    """The independent units: passages, or questions where each is its own."""
    effective: float
    """How many independent questions the n are worth, ≤ n."""


def paired_difference(
    a: Values,
    b: Values,
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> Difference:
    """Compare two systems over the same questions: `a[i]` and `b[i]` are the outcomes (0 to 1) of question i.

    `groups[i]` names the passage of question i; None takes questions as independent. Outcomes may be right/wrong, F1,
    or the mean over several answers to the question. Raises ValueError where lengths differ or an outcome is outside.
    """
    import numpy as np

    if len(a) != len(b):
        raise ValueError(f"paired outcomes differ in number: {len(a)} and {len(b)}")
    ours, others = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not len(ours):
        return Difference(0.0, -1.0, 1.0, 1.0, "exact McNemar", 1.0, 0, 0, 0.0)
    for outcomes in (ours, others):
        if not ((outcomes >= 0) & (outcomes <= 1)).all():
            raise ValueError("outcomes must lie between 0 and 1")
    differences = ours - others
    design = design_of(differences, groups)
    interval = score_interval(differences, -1.0, 1.0, confidence, groups)
    exact = design.clusters == design.n and all(np.isin(row, (0.0, 1.0)).all() for row in (ours, others))
    if exact:
        test, p_value = "exact McNemar", mcnemar(int(np.sum(differences > 0)), int(np.sum(differences < 0)))
    else:
        test = "sign flip of questions" if design.clusters == design.n else "sign flip of passages"
        sums = np.bincount(group_numbers(groups, design.n), weights=differences).astype(np.float64)
        # Flips alone reject too often where outcomes are skewed, the score test where passages are few.
        p_value = max(sign_flip_p(sums), score_p(differences, -1.0, 1.0, groups))
    return Difference(
        float(differences.mean()),
        *interval,
        p_value,
        test,
        float(differences.var()),
        design.n,
        design.clusters,
        design.effective,
    )


def tango(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Tango's score interval of a paired difference of proportions, within [−1, 1]; (−1, 1) at n = 0.

    It keeps its coverage at small n, and without a discordant pair it is ±z²/(n + z²), not zero wide.
    Tango, Statist. Med. 17 (1998) 891.
    """
    import numpy as np

    if n == 0:
        return Interval(-1.0, 1.0)
    counts = np.asarray([only_b, n - only_a - only_b, only_a], dtype=np.float64)
    seen = counts > 0
    sample = Shares(np.asarray([-1.0, 0.0, 1.0])[seen], counts[seen] / n)
    return interval_of(sample, -1.0, 1.0, Design(n, n, float(n), math.inf), critical(confidence))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided McNemar p-value from the questions that only one of the two got right.

    McNemar, Psychometrika 12 (1947) 153, with the binomial distribution in place of χ². 1.0 without discordant pairs.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def sign_flip_p(sums: Values) -> float:
    """Return the two-sided p-value of the total of `sums` when each might as well have had the other sign.

    All flips count where there are at most 2^34 of them or the totals lie on a grid (right/wrong outcomes, repeats)
    that is not too long to walk; else a saddlepoint approximation, true to a few per cent of p and without a floor
    (Robinson, J. R. Stat. Soc. B 44 (1982) 91). Fisher's randomisation test, The Design of Experiments (1935) §21.
    """
    import numpy as np

    sizes = np.abs(np.asarray(sums, dtype=np.float64))
    total = abs(math.fsum(np.asarray(sums).tolist()))
    sizes = sizes[sizes > 1e-12]
    if not len(sizes) or total < 1e-12:
        return 1.0
    if len(sizes) <= _ENUMERATED:
        return _enumerated_p(sizes, total)
    for denominator in range(1, _GRID + 1):
        steps = np.rint(sizes * denominator)
        if np.abs(sizes * denominator - steps).max() < 1e-9:
            if len(steps) * steps.sum() > _WALKED:
                break
            return _grid_p(steps.astype(np.int64), round(total * denominator))
    return _saddlepoint_p(sizes, total)


def _enumerated_p(sizes: Array, total: float) -> float:
    """Count the flips whose total is as far out: for every flip of one half, those of the other that suffice."""
    import numpy as np

    def totals(part: Array) -> Array:
        found = np.zeros(1)
        for size in part:
            found = np.concatenate((found - size, found + size))
        return found

    # Meet in the middle: 2·2^(k/2) sums and a binary search in place of 2^k.
    half = len(sizes) // 2
    some, rest = totals(sizes[:half]), np.sort(totals(sizes[half:]))
    enough = total - 1e-9 * float(sizes.sum()) - some
    above = int(np.sum(len(rest) - np.searchsorted(rest, enough, side="left")))
    return min(1.0, 2 * above / 2.0 ** len(sizes))


def _grid_p(steps: NDArray[np.int64], total: int) -> float:
    """Convolve the two equally likely signs of every whole number: the distribution of the total, exactly."""
    import numpy as np

    chances = np.ones(1)
    for step in steps:  # position p of `chances` is the total p − (the sum of steps so far)
        wider = np.zeros(len(chances) + 2 * step)
        wider[: len(chances)] += chances / 2
        wider[2 * step :] += chances / 2
        chances = wider
    return min(1.0, 2 * float(chances[total + int(steps.sum()) :].sum()))


def _saddlepoint_p(sizes: Array, total: float) -> float:
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if total >= float(sizes.sum()) * (1 - 1e-12):
        return 2 * 0.5 ** len(sizes)

    def excess(tilt: float) -> float:
        return float(np.sum(sizes * np.tanh(tilt * sizes))) - total

    # Tilt the signs until the total is their mean; the signed root of the likelihood ratio, corrected by that tilt
    # (Barndorff-Nielsen's r*), is then normal to a relative error of the p-value, far into the tail too.
    end = 1 / float(sizes.max())
    while excess(end) < 0:
        end *= 2
    tilt = float(brentq(excess, 0.0, end, xtol=1e-15 * end))
    log_moment = float(np.sum(np.logaddexp(tilt * sizes, -tilt * sizes) - math.log(2)))
    curvature = float(np.sum((sizes / np.cosh(np.minimum(tilt * sizes, 300.0))) ** 2))
    root = math.sqrt(max(2 * (tilt * total - log_moment), 0.0))
    # Near the middle the correction is 0/0 and loses all digits: there the normal tail itself is exact enough.
    if root < 1e-4:
        return min(1.0, 2 * float(ndtr(-total / math.sqrt(float(np.sum(sizes**2))))))
    corrected = root + math.log(tilt * math.sqrt(curvature) / root) / root
    return min(1.0, 2 * float(ndtr(-corrected)))


class Pooled(NamedTuple):
    """A mean over seeds and questions with its interval; `p_value` is two-sided, of a mean of 0."""

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    seed_sd: float
    """The standard deviation of the per-seed means, NaN for one seed. Questions' chance is part of it."""
    questions: Interval
    """The interval if these were the only seeds."""
    n: int
    clusters: int
    effective: float


def pooled_mean(
    runs: Sequence[Values],
    confidence: float = 0.95,
    groups: Groups | None = None,
    *,
    least: float = 0.0,
    most: float = 1.0,
) -> Pooled:
    """Return the mean over seeds: `runs[s][i]` is the value (`least` to `most`) of question i with seed s.

    One seed gives the interval over questions. Raises ValueError where runs differ in number of questions, or there is
    no run or question.
    """
    return _pooled(_matrix(runs, least, most), least, most, confidence, groups)


def pooled_difference(
    a: Sequence[Values],
    b: Sequence[Values],
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> Pooled:
    """Return the paired difference a − b over seeds: both as `runs` of `pooled_mean`, of the same seeds and questions.

    A system that no seed changes is given with the same outcomes for each.
    """
    ours, others = _matrix(a), _matrix(b)
    if ours.shape != others.shape:
        raise ValueError(f"runs differ in shape: {ours.shape} and {others.shape} (seeds, questions)")
    return _pooled(ours - others, -1.0, 1.0, confidence, groups)


def join(mean: float, *intervals: Interval) -> Interval:
    """Return the interval of a mean around which each independent source of chance has an interval of its own."""
    return Interval(
        mean - math.hypot(*(mean - one.low for one in intervals)),
        mean + math.hypot(*(one.high - mean for one in intervals)),
    )


def _matrix(runs: Sequence[Values], least: float = 0.0, most: float = 1.0) -> Array:
    import numpy as np

    if not len(runs) or not len(runs[0]):
        raise ValueError("pooling needs a run and a question")
    if len({len(run) for run in runs}) > 1:
        raise ValueError("pooled runs differ in number of questions")
    matrix = np.asarray(runs, dtype=np.float64)
    if not ((matrix >= least - 1e-9) & (matrix <= most + 1e-9)).all():
        raise ValueError(f"outcomes must lie between {least:g} and {most:g}")
    return matrix


def _pooled(matrix: Array, least: float, most: float, confidence: float, groups: Groups | None) -> Pooled:
    from scipy.optimize import brentq

    seeds = len(matrix)
    of_questions, of_seeds = matrix.mean(axis=0), matrix.mean(axis=1)
    mean, sd = float(matrix.mean()), float(of_seeds.std(ddof=1)) if seeds > 1 else math.nan
    design, sample = design_of(of_questions, groups), shares_of(of_questions)

    def questions(level: float) -> Interval:
        return interval_of(sample, least, most, design, critical(level, design.df))

    def interval(level: float) -> Interval:
        if seeds == 1:
            return questions(level)
        half = critical(level, seeds - 1) * sd / math.sqrt(seeds)
        low, high = join(mean, questions(level), Interval(mean - half, mean + half))
        return Interval(max(low, least), min(high, most))

    # The p-value is read off the interval: the level at which its nearer bound just reaches 0.
    def beyond(level: float) -> float:
        return interval(level).low if mean > 0 else -interval(level).high

    surest = 1 - 1e-12
    if mean == 0 or beyond(1e-9) <= 0:
        p_value = 1.0
    else:
        p_value = 1 - surest if beyond(surest) > 0 else 1 - float(brentq(beyond, 1e-9, surest, xtol=1e-13))
    return Pooled(
        mean,
        *interval(confidence),
        p_value,
        seeds,
        sd,
        questions(confidence),
        design.n,
        design.clusters,
        design.effective,
    )
