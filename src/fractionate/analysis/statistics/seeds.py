"""Several runs of one protocol (other seeds, other training draws) over the same questions: two sources of chance.

A mean over three seeds and 660 questions would come out otherwise with other questions *and* with other seeds.
Resampling questions alone says how sure the mean over these very seeds is, which no one asks. Here each source has an
interval of its own around the pooled mean: over questions that of the per-question means (`bounded.py`, by passage),
over seeds Student's of the per-seed means; the two are joined by adding the squared distances of their bounds (Howe,
J. Am. Stat. Assoc. 69 (1974) 789; MOVER: Zou & Donner, Statist. Med. 27 (2008) 1693). That is exact where one source
rules and errs to the wide side between; Satterthwaite's degrees of freedom err to the narrow side with few seeds.

Student's quantile is 12.7 with two seeds, 4.3 with three, 2.8 with five: two seeds say next to nothing about others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fractionate.analysis.statistics.bounded import Interval, interval_of, shares_of
from fractionate.analysis.statistics.clusters import Groups, Values, critical, design_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


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


def pooled_mean(runs: Sequence[Values], confidence: float = 0.95, groups: Groups | None = None) -> Pooled:
    """Return the mean outcome over seeds: `runs[s][i]` is the outcome (0 to 1) of question i with seed s.

    One seed gives the interval over questions. Raises ValueError where runs differ in number of questions, or there is
    no run or question.
    """
    return _pooled(_matrix(runs), 0.0, 1.0, confidence, groups)


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


def _matrix(runs: Sequence[Values]) -> Array:
    import numpy as np

    if not len(runs) or not len(runs[0]):
        raise ValueError("pooling needs a run and a question")
    if len({len(run) for run in runs}) > 1:
        raise ValueError("pooled runs differ in number of questions")
    matrix = np.asarray(runs, dtype=np.float64)
    if not ((matrix >= 0) & (matrix <= 1)).all():
        raise ValueError("outcomes must lie between 0 and 1")
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
