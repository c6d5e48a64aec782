"""Two cells over the questions that both answered: the one record that comparisons, findings and controls share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fractionate.analysis.matrix import Matrix
from fractionate.analysis.statistics import Interval, mean_interval, paired_difference, pooled_difference, pooled_mean
from fractionate.analysis.statistics.clusters import Values
from fractionate.columns import Columns, Reading
from fractionate.types import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Places = NDArray[np.int64]


@dataclass(frozen=True)
class Contrast:
    """a − b over the same `n` questions, in the metric of a; means and differences are shares of 1.

    `ci_low` and `ci_high` bound the difference at `confidence`; `p_value` is two-sided, of `test`. `clusters` are the
    independent units that the questions come in (passages), `seeds` the runs that were pooled.
    """

    matrix: Matrix
    a: Cell
    b: Cell
    n: int
    value: float
    reference_value: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    confidence: float
    clusters: int
    seeds: int

    @cached_property
    def names(self) -> tuple[str, str]:
        """The names of both cells, unique in the run."""
        return self.matrix.name(self.a), self.matrix.name(self.b)

    def reversed(self) -> Contrast:
        """Return b − a."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            value=self.reference_value,
            reference_value=self.value,
            difference=-self.difference,
            ci_low=-self.ci_high,
            ci_high=-self.ci_low,
        )

    def interval_fields(self) -> dict[str, Any]:
        """Return what results.json holds of every contrast: the difference, its interval and what it rests on."""
        return {
            "difference": self.difference,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "clusters": self.clusters,
            "seeds": self.seeds,
        }


def contrast(matrix: Matrix, a: Cell, b: Cell, confidence: float, reading: Reading = "strict") -> Contrast:
    """Compare two cells over the questions they share, by a reading of the outputs that both cells have."""
    mine, theirs = pair_up(a, b)
    ours, others = outcomes(mine, a.metric, reading), outcomes(theirs, a.metric, reading)
    groups = mine.clusters
    seeds = max(mine.seeds, theirs.seeds)
    if seeds > 1:
        runs = [by_run(columns, a.metric, seeds, reading) for columns in (mine, theirs)]
        pooled = pooled_difference(runs[0], runs[1], confidence, groups)
        low, high, p_value = pooled.low, pooled.high, pooled.p_value
        test, clusters = f"over {seeds} seeds and questions", pooled.clusters
    else:
        found = paired_difference(ours, others, confidence, groups)
        low, high, p_value, test, clusters = found.low, found.high, found.p_value, found.test, found.clusters
    return Contrast(
        matrix=matrix,
        a=a,
        b=b,
        n=len(mine),
        value=mean(ours),
        reference_value=mean(others),
        difference=mean(ours) - mean(others),
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        test=test,
        confidence=confidence,
        clusters=clusters,
        seeds=seeds,
    )


def value_interval(cell: Cell, confidence: float, reading: Reading = "strict") -> Interval:
    """Return the interval of a cell's value: by passage, and over seeds where runs were pooled."""
    columns = cell.columns
    if columns.seeds > 1:
        runs = by_run(columns, cell.metric, columns.seeds, reading)
        pooled = pooled_mean(runs, confidence, columns.clusters)
        return Interval(pooled.low, pooled.high)
    return mean_interval(outcomes(columns, cell.metric, reading), confidence, columns.clusters)


def pair_up(a: Cell, b: Cell) -> tuple[Columns, Columns]:
    """Return both cells' attempts at the questions they share, in a's order."""
    mine, theirs = paired_places(a, b)
    return (a.columns if mine is None else a.columns.take(mine)), (
        b.columns if theirs is None else b.columns.take(theirs)
    )


def paired_places(a: Cell, b: Cell) -> tuple[Places | None, Places | None]:
    """Return where both cells have the questions that they share, in a's order; None for all as they are."""
    import numpy as np

    ours, others = a.columns.ids, b.columns.ids
    if ours is others or np.array_equal(ours, others):
        return None, None
    if not len(others):
        return np.arange(0), np.arange(0)
    order = np.argsort(others, kind="stable")
    found = order[np.maximum(np.searchsorted(others[order], ours, side="right") - 1, 0)]
    shared = np.flatnonzero(others[found] == ours)
    return shared, found[shared]


def outcomes(columns: Columns, metric: str, reading: Reading = "strict") -> Array:
    """Return the metric of each attempt, 0 to 1. The attempts must have the reading."""
    found = columns.score(metric, reading)
    assert found is not None, f"an attempt has no {reading} reading"
    return found


def by_run(columns: Columns, metric: str, seeds: int, reading: Reading = "strict") -> Sequence[Array]:
    """Return the metric of each attempt in every pooled run: one row per run, in the order of the questions.

    Attempts that were pooled over another number of runs count with their mean in each: one cell's runs cannot be told
    from the other's then, but those of the other still count.
    """
    runs = columns.by_run(metric, reading)
    if runs is None or len(runs) != seeds:
        return [outcomes(columns, metric, reading)] * seeds
    return runs


def mean(values: Values) -> float:
    """Return the mean, 0 of nothing; summed exactly, so that the order of adding does not show."""
    import numpy as np

    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return math.fsum(listed) / len(listed) if listed else 0.0
