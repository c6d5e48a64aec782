"""A learning curve: how the outcome grows with demonstrations (or with a student's size), and its extrapolation.

The share of wrong answers is taken to fall as a power law to a floor,

    error(x) = c + (error(X) − c) (x / X)^(−b),

where X is the largest amount measured. A few points do not identify c and b, and a single fitted curve would give far
too narrow intervals. So the prediction averages over c, b and the spread between trainings, each combination weighted
by its likelihood (error(X) follows from them in closed form).

Students need not follow a power law. So the intervals also hold what two other curves predict: one that stands still
from X on (at the low end), and one that rises on by as much per doubling as last (at the high end). A curve whose gain
per doubling grows, or that has not begun to rise, is no power law at all and is refused; so is more than twice X, where
no such doubt can be bounded. benchmarks/curve_coverage.py measures the coverage, also for plateaus and late risers, and
compares it with that of the bootstrap of a least-squares fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractionate.errors import UsageError
from fractionate.planning.checks import positive

Array = NDArray[np.float64]

FLOORS = np.linspace(0.0, 1.0, 26)
"""c as a share of the error at the largest amount: from no floor to standstill."""
WITHOUT_FLOOR = 0.3
"""Prior probability of no floor; all other floors share the rest equally."""
EXPONENTS = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0])
"""Prior of b: uniform over these values, which are densest where published learning curves lie."""
RUN_SPREADS = np.array([0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06])
"""Standard deviation between trainings on the same amount, beyond the sampling of questions."""
TYPICAL_SPREAD = 0.025
"""Scale of the half-normal prior of RUN_SPREADS: seeds of small students often differ by one or two points."""
MOST_TIMES = 2.0
"""The multiple of the largest amount up to which a curve predicts: beyond it the intervals do not hold."""
NOT_BEGUN = 0.05
"""Below this outcome a student hardly answers at all, and no curve predicts when it will."""
BENT = 1.0
"""Standard errors by which the gain per doubling may grow before the curve is refused."""


@dataclass(frozen=True)
class Prediction:
    """The predicted mean outcome, in [0, 1], of a student trained on `amount`, with two intervals."""

    amount: float
    outcome: float
    low: float
    high: float
    """Interval of one more training, measured on the same questions."""
    expected_low: float
    expected_high: float
    """Interval of the mean over trainings and over the population of questions."""


class _Possibilities(NamedTuple):
    """Curves, each array of shape (possibilities,): how likely each is, and error(X) given it with its variance."""

    floors: Array
    exponents: Array
    spreads: Array
    weights: Array
    level: Array
    level_variance: Array


@dataclass(frozen=True)
class LearningCurve:
    """Candidate curves and their weights; `predict` extrapolates them."""

    amounts: Array
    """Measured amounts, (runs,)."""
    outcomes: Array
    """Mean outcomes (runs,)."""
    _error: Array
    _covariance: Array
    """Of the measured means over the draw of questions, (runs, runs)."""
    _possible: _Possibilities

    def predict(self, amount: float, confidence: float = 0.90) -> Prediction:
        """Return the prediction for an amount. Raises UsageError unless it is above 0 and at most twice the largest."""
        new = float(positive("amount", amount))
        possible, largest = self._possible, float(self.amounts.max())
        if new > MOST_TIMES * largest * (1 + 1e-9):
            raise UsageError(
                f"a curve measured up to {largest:,.0f} predicts up to {MOST_TIMES * largest:,.0f}, not {new:,.0f}: "
                "whether it flattens out or rises late cannot be known that far; measure larger amounts"
            )
        shape = _shape(np.array([new]), largest, possible.floors, possible.exponents)[:, 0]
        mean, variance = shape * possible.level, shape**2 * possible.level_variance
        # On the same questions the next mean moves with the measured ones: it shares some of what these are off.
        shared, own = _covariance_of_next(self._covariance, self.amounts)
        total = _total(self._covariance, possible.spreads)
        pull = np.linalg.solve(total, np.broadcast_to(shared[:, None], (*total.shape[:2], 1)))[:, :, 0]
        measured_shape = _shape(self.amounts, largest, possible.floors, possible.exponents)
        off = self._error[None] - possible.level[:, None] * measured_shape
        next_mean = mean + np.einsum("pi,pi->p", pull, off)
        apart = shape - np.einsum("pi,pi->p", pull, measured_shape)
        next_variance = own + possible.spreads**2 - pull @ shared + apart**2 * possible.level_variance
        tails = ((1 - confidence) / 2, (1 + confidence) / 2)
        expected = [1 - _quantile(mean, variance, possible.weights, 1 - tail) for tail in tails]
        measured = [1 - _quantile(next_mean, next_variance, possible.weights, 1 - tail) for tail in tails]
        outcome = 1 - float(possible.weights @ next_mean)
        if new > largest:
            measured, expected = self._doubted(new, confidence, measured, expected)
        return Prediction(new, *(min(max(value, 0.0), 1.0) for value in (outcome, *measured, *expected)))

    def _doubted(
        self, new: float, confidence: float, measured: list[float], expected: list[float]
    ) -> tuple[list[float], list[float]]:
        """Return both intervals, widened to what a standstill and a straight rise predict: the model may be wrong."""
        from scipy.special import ndtri

        z = float(ndtri((1 + confidence) / 2))
        shared, own = _covariance_of_next(self._covariance, self.amounts)
        spread = float(np.sqrt(self._possible.weights @ self._possible.spreads**2))
        still, rising = _at_largest(self.amounts), _on_the_line(self.amounts, new)
        found = []
        sides: tuple[tuple[Array, float], ...] = ((still, -1.0), (rising, 1.0))
        for weights, sign in sides:
            mean = 1 - float(weights @ self._error)
            variance = float(weights @ self._covariance @ weights + spread**2 * (weights @ weights))
            of_next = max(variance + own + spread**2 - 2 * float(weights @ shared), 0.0)
            found.append([mean + sign * z * math.sqrt(each) for each in (of_next, variance)])
        (low, low_mean), (high, high_mean) = found
        widened = [min(expected[0], low_mean), max(expected[1], high_mean)]
        return [min(measured[0], low), max(measured[1], high)], widened

    def beyond(self, factors: Sequence[float] = (2,), confidence: float = 0.90) -> list[Prediction]:
        """Return the predictions for multiples of the largest amount."""
        return [self.predict(float(self.amounts.max()) * factor, confidence) for factor in factors]


def learning_curve(amounts: ArrayLike, outcomes: ArrayLike, groups: ArrayLike | None = None) -> LearningCurve:
    """Weight the candidate curves by runs on the same questions.

    `amounts` (runs,): demonstrations, or parameters; several runs may have the same amount. `outcomes` (runs,
    questions), each in [0, 1]. `groups` (questions,): questions of one passage are one unit. Raises UsageError for a
    curve of one point, for one that rises late, and for outcomes out of range.
    """
    x, y = np.atleast_1d(positive("amounts", amounts)), np.asarray(outcomes, np.float64)
    _check(x, y)
    error, covariance = 1 - y.mean(axis=1), _covariance_of_means(y, groups)
    _check_rise(x, error, covariance)
    floors, exponents, spreads = (one.ravel() for one in np.meshgrid(FLOORS, EXPONENTS, RUN_SPREADS, indexing="ij"))
    shape = _shape(x, float(x.max()), floors, exponents)
    total = _total(covariance, spreads)
    # error = level · shape + noise is linear in the level, so the level's posterior and the evidence of each candidate
    # have closed forms. The evidence is the misfit at the best level, the log determinant, and the level's variance.
    solved = np.linalg.solve(total, np.stack([shape, np.broadcast_to(error, shape.shape)], axis=-1))
    precision = np.einsum("pi,pi->p", shape, solved[:, :, 0])
    level = np.einsum("pi,pi->p", shape, solved[:, :, 1]) / precision
    misfit = np.einsum("i,pi->p", error, solved[:, :, 1]) - level**2 * precision
    evidence = -0.5 * (misfit + np.linalg.slogdet(total).logabsdet + np.log(precision))
    prior = -0.5 * (spreads / TYPICAL_SPREAD) ** 2 + np.log(_widths(spreads))
    prior += np.log(np.where(floors == 0, WITHOUT_FLOOR, (1 - WITHOUT_FLOOR) / (len(FLOORS) - 1)))
    # An error rate above 1 at a measured amount is impossible.
    possible = level * shape.max(axis=1) <= 1 + 1e-9
    logarithm = np.where(possible | ~possible.any(), evidence + prior, -np.inf)
    weights = np.exp(logarithm - logarithm.max())
    possibilities = _Possibilities(floors, exponents, spreads, weights / weights.sum(), level, 1 / precision)
    return LearningCurve(x, 1 - error, error, covariance, possibilities)


def _check(x: Array, y: Array) -> None:
    if y.ndim != 2 or len(y) != len(x) or y.shape[1] == 0:
        raise UsageError("outcomes must have a row per run and a column per question")
    if not ((y >= 0) & (y <= 1)).all():
        raise UsageError("outcomes must lie between 0 and 1")
    if len(np.unique(x)) < 2:
        raise UsageError(
            f"a curve of one point ({x[0]:g}) says nothing about more: measure at least two amounts, better four"
        )


def _check_rise(x: Array, error: Array, covariance: Array) -> None:
    """Raise UsageError where the outcome has hardly begun to rise, or rises by more with each doubling."""
    idle = x[(1 - error < NOT_BEGUN) & (x < x.max())]
    if len(idle):
        raise UsageError(
            f"with {idle.max():,.0f} the outcome is near zero: such a student hardly answers yet, and how it rises "
            "from there cannot be predicted; measure larger amounts"
        )
    if len(np.unique(x)) < 3:
        return
    before = x < x.max()
    earlier, later = _per_doubling(x[before]), _per_doubling(x)
    bend = later.copy()
    bend[before] -= earlier
    grows = -float(bend @ error)
    deviation = np.sqrt(bend @ covariance @ bend + TYPICAL_SPREAD**2 / 4 * (bend @ bend))
    if grows > BENT * deviation:
        gains = [-100 * float(weights @ part) for weights, part in ((earlier, error[before]), (later, error))]
        raise UsageError(
            f"the gain per doubling grows ({gains[0]:.1f}, then {gains[1]:.1f} percentage points): a late rise is no "
            "power law, and its end cannot be predicted; measure larger amounts"
        )


def _at_largest(x: Array) -> Array:
    """Return the weights of the runs in the mean at the largest amount."""
    return np.asarray((x == x.max()) / np.sum(x == x.max()))


def _per_doubling(x: Array) -> Array:
    """Return the weights of the runs in the change per doubling between the two largest amounts."""
    before = np.unique(x)[-2]
    return np.asarray((_at_largest(x) - (x == before) / np.sum(x == before)) / np.log2(x.max() / before))


def _on_the_line(x: Array, new: float) -> Array:
    """Return the weights of the runs in the straight line (over log x) through the two largest amounts, at `new`."""
    return np.asarray(_at_largest(x) + np.log2(new / x.max()) * _per_doubling(x))


def _shape(x: Array, largest: float, floors: Array, exponents: Array) -> Array:
    """Return error(x) / error(X), (possibilities, amounts)."""
    fallen = (x[None] / largest) ** -exponents[:, None]
    return floors[:, None] + (1 - floors[:, None]) * fallen


def _covariance_of_means(y: Array, groups: ArrayLike | None) -> Array:
    """Return the covariance (runs, runs) of the runs' mean outcomes over the sampling of questions, by group.

    The runs answer the same questions, so their means are correlated. If all answers of a run are equal, its variance
    is set to that with one more question answered the other way, because zero would claim certainty.
    """
    questions = y.shape[1]
    labels = np.arange(questions) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(labels.max()) + 1
    centred = y - y.mean(axis=1, keepdims=True)
    sums = np.zeros((len(y), count))
    np.add.at(sums.T, labels, centred.T)
    covariance = sums @ sums.T / questions**2 * (count / max(1, count - 1))
    least = (1 / (count + 2)) * (1 - 1 / (count + 2)) / (count + 2)
    covariance[np.diag_indices(len(y))] = np.maximum(np.diag(covariance), least)
    # A small term on the diagonal: runs that agree on every question would make the matrix singular.
    return np.asarray(covariance + 1e-9 * np.eye(len(y)))


def _total(covariance: Array, spreads: Array) -> Array:
    """Return the covariance of the measured means by candidate: sampling of questions plus spread of trainings."""
    return np.asarray(covariance[None] + spreads[:, None, None] ** 2 * np.eye(len(covariance)))


def _covariance_of_next(covariance: Array, amounts: Array) -> tuple[Array, float]:
    """Return the next mean's covariance with the measured ones (runs,) and its variance, over the draw of questions.

    Its variance is assumed to be that of the runs of the largest amount; its correlation with any run, the average.
    """
    deviation = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviation, deviation)
    between = correlation[~np.eye(len(correlation), dtype=bool)]
    agreement = float(np.clip(between.mean(), 0.0, 0.98))
    own = float(np.mean(deviation[amounts == amounts.max()] ** 2))
    return agreement * deviation * np.sqrt(own), own


def _widths(spreads: Array) -> Array:
    """Return the width of the interval that each spread represents."""
    edges = np.concatenate([[0.0], (RUN_SPREADS[1:] + RUN_SPREADS[:-1]) / 2, [RUN_SPREADS[-1] * 1.25]])
    return np.diff(edges)[np.searchsorted(RUN_SPREADS, spreads)]


def _quantile(mean: Array, variance: Array, weights: Array, level: float) -> float:
    """Return a quantile of a mixture of normals."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    deviation = np.sqrt(variance)
    low, high = float((mean - 9 * deviation).min()), float((mean + 9 * deviation).max())
    return float(brentq(lambda value: float(weights @ ndtr((value - mean) / deviation)) - level, low, high, xtol=1e-6))
