"""Outcomes by question, plain ones or those of a cheap score corrected by gold: what intervals are made of.

Where a cell has gold for some of its questions (`Attempt.gold`, `with_gold`), its own scores are a judge's, a proxy's
or a mark's. Values are then prediction-powered (`statistics/prediction_powered.py`): their mean is right whatever the
cheap score's bias. A difference of two cells is corrected by itself, with a λ of its own: that takes fewer questions
than the difference of two corrected means, and lies a little beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fractionate.averages import GoldAttempts
from fractionate.columns import Columns
from fractionate.statistics import Corrected, corrected
from fractionate.statistics.prediction_powered import LEAST_GOLD
from fractionate.types import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Outcomes(NamedTuple):
    """Values by question, each within `least` and `most`; `correction` is None where they are plain outcomes."""

    values: Array
    least: float
    most: float
    correction: Corrected | None = None

    @property
    def is_shown(self) -> bool:
        """Whether an interval can rest on the values: gold for too few questions says nothing."""
        return self.correction is None or self.correction.n_gold >= LEAST_GOLD


def with_gold(cell: Cell, gold: Sequence[float]) -> Cell:
    """Return a cell of one run with gold scores in its metric, one a question, NaN where a question has none."""
    return replace(cell, attempts=GoldAttempts(cell.attempts, gold))


def is_corrected(*several: Columns, metric: str) -> bool:
    """Return whether gold corrects the outcomes of any of several cells."""
    return any(columns.gold(metric) is not None for columns in several)


def outcomes_of(columns: Columns, metric: str) -> Outcomes:
    """Return a cell's outcomes, 0 to 1, or what gold makes of them."""
    judged, gold = columns.column(metric), columns.gold(metric)
    if gold is None:
        return Outcomes(judged, 0.0, 1.0)
    found = corrected(gold, judged, columns.clusters)
    return Outcomes(found.values, found.least, found.most, found)


def value_of(cell: Cell) -> float:
    """Return a cell's value: its mean outcome, corrected by gold where there is some."""
    return mean_of(cell.columns, cell.metric)


def mean_of(columns: Columns, metric: str) -> float:
    """Return the mean outcome, corrected by gold where there is some: of pooled runs each by its own; 0 of nothing."""
    if not len(columns):
        return 0.0
    parts = columns.runs if is_corrected(columns, metric=metric) else []
    means = [math.fsum(outcomes_of(run, metric).values.tolist()) / len(columns) for run in parts or [columns]]
    return math.fsum(means) / len(means)


def differences_of(mine: Columns, theirs: Columns, metric: str) -> Outcomes:
    """Return the differences in outcome over the same questions, −1 to 1, or what gold makes of them."""
    import numpy as np

    judged = mine.column(metric) - theirs.column(metric)
    ours, others = mine.gold(metric), theirs.gold(metric)
    if ours is None and others is None:
        return Outcomes(judged, -1.0, 1.0)
    if ours is not None and others is not None and np.isfinite(ours - others).any():
        found = corrected(ours - others, judged, mine.clusters, least=-1.0, most=1.0)
        return Outcomes(found.values, found.least, found.most, found)
    # No question has gold in both cells: whether the cheap score flatters one of them is not known.
    return Outcomes(judged, -1.0, 1.0, Corrected(judged, -1.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0))


def correction_fields(cell: Cell) -> dict[str, Any]:
    """Return what results.json holds of a cell's gold; nothing where there is none."""
    found = outcomes_of(cell.columns, cell.metric).correction
    if found is None:
        return {}
    return {
        "gold": {
            "n": found.n_gold,
            "agreement": found.agreement,
            "kappa": found.kappa,
            "bias": found.bias,
            "tuning": found.tuning,
        }
    }
