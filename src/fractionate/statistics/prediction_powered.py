"""Prediction-powered inference: few questions with a gold score, many with a cheap one (a judge, a proxy, marks).

A cheap score alone is biased by an unknown amount; gold alone is scarce. The estimate is the mean of the cheap score
over all questions, times a weight λ, plus the mean of what it leaves of the gold score over the questions with gold:
its bias cancels, whatever it is, as long as the questions with gold are a random sample of all. λ is tuned to the least
variance, so that a useless cheap score costs nothing (PPI++: Angelopoulos, Duchi & Zrnic, arXiv 2311.01453, §6; with
gold for a random part it is the regression estimator of survey sampling: Cassel, Särndal & Wretman, Biometrika 63
(1976) 615).

The estimate is written as the mean of one value per question, so that whatever takes per-question outcomes (intervals,
clusters, seeds, candidates) takes these, with the right variance. A value may lie outside the range of outcomes: one
gold question stands for several.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fractionate.statistics.bounded import Interval, score_interval
from fractionate.statistics.clusters import Groups, group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST_GOLD = 20
"""Fewer questions with gold give neither a bias nor an interval that can be relied on."""


class Corrected(NamedTuple):
    """Cheap scores corrected by gold: a value per question, whose mean is the estimate.

    `values` has shape (n,) and lies within `least` and `most`, which may be wider than the range of outcomes.
    """

    values: Array
    least: float
    most: float
    n_gold: int
    tuning: float
    """λ in [0, 1]: the weight of the cheap score. 0 is gold alone."""
    agreement: float
    """The share of questions with gold on which both scores agree; of graded scores, 1 − their mean distance."""
    kappa: float
    """The same beyond chance: Cohen's κ, linearly weighted for graded scores; 0 where neither score varies."""
    bias: float
    """The mean of the cheap score minus gold, over the questions with gold."""

    @property
    def estimate(self) -> float:
        """The corrected mean."""
        return float(self.values.mean())

    def interval(self, confidence: float = 0.95, groups: Groups | None = None) -> Interval:
        """Return the interval of the corrected mean; `groups` as in `score_interval`."""
        return score_interval(self.values, self.least, self.most, confidence, groups)


def corrected(
    gold: Array,
    judged: Array,
    clusters: Groups | None = None,
    *,
    least: float = 0.0,
    most: float = 1.0,
) -> Corrected:
    """Correct cheap scores `judged`, shape (n,), by `gold`, shape (n,), NaN where a question has no gold.

    Both are outcomes within `least` and `most` (−1 and 1 for paired differences). `clusters[i]` is the passage of
    question i; None takes questions as independent. Questions with gold must be a random sample of all. Raises
    ValueError where shapes differ, a judged score is missing, or a score lies outside.
    """
    import numpy as np

    y, f = np.asarray(gold, dtype=np.float64), np.asarray(judged, dtype=np.float64)
    if y.ndim != 1 or y.shape != f.shape:
        raise ValueError(f"gold and judged scores differ in shape: {y.shape} and {f.shape}")
    has = ~np.isnan(y)
    for name, scores in (("judged", f), ("gold", y[has])):
        if not ((scores >= least - 1e-12) & (scores <= most + 1e-12)).all():
            raise ValueError(f"a {name} score does not lie between {least:g} and {most:g}")
    n_gold = int(has.sum())
    if not n_gold:
        raise ValueError("no question has a gold score: a cheap score alone cannot be corrected")
    each = len(y) / n_gold
    tuning = _tuning(y, f, has, group_numbers(clusters, len(y)))
    predicted = tuning * f
    predicted = predicted + float((y - predicted)[has].mean())
    # λ and the bias are fitted on the questions with gold, which makes what is left of them too small.
    weight = each * _unfitted(n_gold) if each > 1 else 1.0
    values = predicted.copy()
    values[has] += weight * (y - predicted)[has]
    shift = float((y - tuning * f)[has].mean())
    rest = weight - 1
    return Corrected(
        values,
        min(weight * least - rest * (tuning * most + shift), tuning * least + shift),
        max(weight * most - rest * (tuning * least + shift), tuning * most + shift),
        n_gold,
        tuning,
        *_agreement(y[has], f[has], most - least),
        float((f - y)[has].mean()),
    )


def _unfitted(n_gold: int) -> float:
    return math.sqrt(n_gold / max(n_gold - 2, 1))


def _tuning(y: Array, f: Array, has: NDArray[np.bool_], numbers: NDArray[np.int64]) -> float:
    """Return the λ in [0, 1] of least variance: the estimate's value at a question is linear in λ, gold + λ · slope."""
    import numpy as np

    n_gold, n = int(has.sum()), len(y)
    if n_gold == n or n_gold < 2:
        return 0.0
    gold, slope = np.zeros(n), f - f.mean()
    gold[has] = (y[has] - y[has].mean()) * n / n_gold
    slope[has] -= (f[has] - f[has].mean()) * n / n_gold
    slope -= slope.mean()
    by_gold, by_slope = np.bincount(numbers, weights=gold), np.bincount(numbers, weights=slope)
    squares = float(by_slope @ by_slope)
    return min(max(-float(by_gold @ by_slope) / squares, 0.0), 1.0) if squares > 1e-12 else 0.0


def _agreement(y: Array, f: Array, span: float) -> tuple[float, float]:
    import numpy as np

    distance = float(np.abs(y - f).mean())
    ours, theirs = (np.unique(scores, return_counts=True) for scores in (y, f))
    chance = float(ours[1] @ np.abs(ours[0][:, None] - theirs[0][None, :]) @ theirs[1]) / len(y) ** 2
    return 1 - distance / span, 1 - distance / chance if chance > 1e-12 else 0.0
