"""The published grids of starts (arXiv 2502.08606v2, appendix on fitting)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fractionate.planning.objective import Curve, SupervisedCurve

Array = NDArray[np.float64]

PUBLISHED_C1 = 522.6
"""Where c1 is not told by the runs it stays at the published value."""
_INSTEAD_OF_ZERO = 0.1
"""f1 = 0 divides by zero, and c1 = 0 switches the term off that f1 and d1 belong to: such starts begin here instead."""


def starts(curve: Curve) -> Array:
    """Return every start of the curve's grid, (starts, parameters): 9,600 supervised, 216,000 of distillation."""
    return _supervised() if isinstance(curve, SupervisedCurve) else _distillation()


def _supervised() -> Array:
    logs, exponents = [0.0, 5, 10, 15, 20], [0, 0.5, 1, 1.5]
    return _product([-1, -0.5, 0, 0.5, 1, 1.5], logs, logs, exponents, exponents, exponents)


def _distillation() -> Array:
    logs, exponents, breaks = [0.0, 5, 10, 15, 20], [0, 0.5, 1], [0, 0.5, 1, 1.5]
    grid = _product(logs, logs, exponents, exponents, exponents, breaks, breaks, breaks, [-1, -0.5, 0, 0.5, 1])
    c1, f1 = (np.where(column == 0, _INSTEAD_OF_ZERO, column) for column in (grid[:, 6], grid[:, 7]))
    log_k = np.log(c1) + np.log(f1) - grid[:, 8] / f1
    return np.column_stack([grid[:, :6], log_k, np.log(f1), np.full(len(grid), np.log(PUBLISHED_C1))])


def _product(*levels: list[float]) -> Array:
    return np.stack(np.meshgrid(*levels, indexing="ij"), axis=-1).reshape(-1, len(levels)).astype(np.float64)
