"""Checks of what a caller gives: one line that names the value and the fix."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractionate.errors import UsageError

Values: TypeAlias = np.float64 | NDArray[np.float64]
"""A number, or an array of them that broadcasts with the others."""


def positive(name: str, values: ArrayLike) -> Values:
    """Return the values as floats. Raises UsageError unless every one is finite and above zero."""
    array = _floats(name, values)
    wrong = ~(np.isfinite(array) & (array > 0))
    if wrong.any():
        raise UsageError(f"{name} must be a number above 0, not {np.extract(wrong, array)[0]:g}")
    return array


def not_negative(name: str, values: ArrayLike) -> Values:
    """Return the values as floats. Raises UsageError unless every one is finite and at least zero."""
    array = _floats(name, values)
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        raise UsageError(f"{name} must be a number of 0 or more, not {np.extract(wrong, array)[0]:g}")
    return array


def share(name: str, value: float) -> float:
    """Return a share as it is. Raises UsageError unless it lies within [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must be a share between 0 and 1, not {value:g}")
    return value


def _floats(name: str, values: ArrayLike) -> Values:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be a number, not {values!r}") from None
    return np.float64(array) if array.ndim == 0 else array
