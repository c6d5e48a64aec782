"""Losses predicted by the laws: inputs are checked, and values outside the fitted range give a warning."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from fractionate.errors import UsageError
from fractionate.planning.checks import Values, positive
from fractionate.planning.coefficients import SETS, CoefficientSet

PAPER = SETS["paper-corrected"]
_GOLDEN = (np.sqrt(5) - 1) / 2


class OutsideFittedRange(UserWarning):
    """A value lies outside the range of the fitted runs: the law extrapolates."""


def supervised_loss(params: ArrayLike, tokens: ArrayLike, coefficients: CoefficientSet = PAPER) -> Values:
    """Return the loss (nats per token) of supervised training; scalars and arrays broadcast.

    Raises UsageError on a count that is not above 0; warns OutsideFittedRange.
    """
    n, d = positive("params", params), positive("tokens", tokens)
    _warn(coefficients.outside(params=n, tokens=d))
    return coefficients.supervised.loss(n, d)


def student_loss(
    student_params: ArrayLike,
    student_tokens: ArrayLike,
    teacher_loss: ArrayLike,
    coefficients: CoefficientSet = PAPER,
) -> Values:
    """Return the loss (nats per token) of a student of a teacher's logits; scalars and arrays broadcast.

    Raises UsageError on a count that is not above 0 and on a teacher below the entropy floor; warns OutsideFittedRange.
    """
    n, d = positive("student_params", student_params), positive("student_tokens", student_tokens)
    teacher = checked_teacher_loss(teacher_loss, coefficients)
    law = coefficients.distilled
    _warn(coefficients.outside(params=n, tokens=d, teacher_loss=teacher))
    return law.loss(n, d, teacher, coefficients.supervised.loss(n, d))


def checked_teacher_loss(teacher_loss: ArrayLike, coefficients: CoefficientSet) -> Values:
    """Return the loss as floats. Raises UsageError where it is below the entropy floor."""
    teacher, floor = positive("teacher_loss", teacher_loss), float(coefficients.supervised.e)
    if np.any(teacher <= floor):
        raise UsageError(
            f"a teacher's loss of {np.min(teacher):g} is below the entropy floor E = {floor:g} of {coefficients.name}: "
            f"give it in nats per token, of the same text and tokenizer as the coefficients"
        )
    return teacher


def best_teacher_loss(
    student_params: ArrayLike, student_tokens: ArrayLike, coefficients: CoefficientSet = PAPER
) -> Values:
    """Return the teacher's loss that is best for a student: the minimum of the U called the capacity gap.

    By the law, a teacher better than this makes a worse student. The minimum may lie at the entropy floor.
    """
    n, d = positive("student_params", student_params), positive("student_tokens", student_tokens)
    return lowest_teacher_loss(n, d, coefficients)


def lowest_teacher_loss(params: Values, tokens: Values, coefficients: CoefficientSet) -> Values:
    """Return `best_teacher_loss` unchecked, for arrays: a scan brackets the minimum, a golden section refines it."""
    law, supervised = coefficients.distilled, coefficients.supervised
    own = supervised.loss(params, tokens)
    floor = np.asarray(supervised.e)

    def loss(teacher: Values) -> Values:
        return law.loss(params, tokens, teacher, own)

    # From just above the floor to beyond the student's own supervised loss: a student stays above its teacher.
    shares = np.linspace(1e-3, 1.2, 121)
    shape = np.broadcast_shapes(np.shape(own), np.shape(floor))
    scan = np.array([np.broadcast_to(loss(floor + share * (own - floor)), shape) for share in shares])
    at = np.argmin(scan, axis=0)
    low = floor + shares[np.maximum(at - 1, 0)] * (own - floor)
    high = floor + shares[np.minimum(at + 1, len(shares) - 1)] * (own - floor)
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        better_left = loss(left) < loss(right)
        low, high = np.where(better_left, low, left), np.where(better_left, right, high)
    best = (low + high) / 2
    return np.float64(best) if np.ndim(best) == 0 else best


def _warn(sentences: list[str]) -> None:
    for sentence in sentences:
        warnings.warn(f"{sentence}: the law extrapolates", OutsideFittedRange, stacklevel=3)
