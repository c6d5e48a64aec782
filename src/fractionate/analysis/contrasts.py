"""Two cells over the questions that both answered: the one record that comparisons, findings and controls share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fractionate.analysis.matrix import Matrix
from fractionate.analysis.statistics import Interval, mean_interval, paired_difference, pooled_difference, pooled_mean
from fractionate.types import Attempt, Cell


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


def contrast(matrix: Matrix, a: Cell, b: Cell, confidence: float) -> Contrast:
    """Compare two cells over the questions they share."""
    mine, theirs = pair_up(a, b)
    ours, others = outcomes(mine, a.metric), outcomes(theirs, a.metric)
    groups = clusters_of(mine)
    seeds = seeds_of(mine, theirs)
    if seeds > 1:
        pooled = pooled_difference(by_run(mine, a.metric, seeds), by_run(theirs, a.metric, seeds), confidence, groups)
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


def value_interval(cell: Cell, confidence: float) -> Interval:
    """Return the interval of a cell's value: by passage, and over seeds where runs were pooled."""
    attempts = cell.attempts
    groups = clusters_of(attempts)
    seeds = seeds_of(attempts)
    if seeds > 1:
        pooled = pooled_mean(by_run(attempts, cell.metric, seeds), confidence, groups)
        return Interval(pooled.low, pooled.high)
    return mean_interval(cell.values(), confidence, groups)


def pair_up(a: Cell, b: Cell) -> tuple[list[Attempt], list[Attempt]]:
    """Return both cells' attempts at the questions they share, in a's order."""
    other = {attempt.problem.id: attempt for attempt in b.attempts}
    shared = [attempt for attempt in a.attempts if attempt.problem.id in other]
    return shared, [other[attempt.problem.id] for attempt in shared]


def outcomes(attempts: Sequence[Attempt], metric: str) -> list[float]:
    """Return the metric of each attempt, 0 to 1."""
    return [float(getattr(attempt.score, metric)) for attempt in attempts]


def by_run(attempts: Sequence[Attempt], metric: str, seeds: int) -> list[list[float]]:
    """Return the metric of each attempt in every pooled run: one list per run, in the order of the questions.

    Attempts that were pooled over another number of runs count with their mean in each: one cell's runs cannot be told
    from the other's then, but those of the other still count.
    """
    if any(len(attempt.by_run) != seeds for attempt in attempts):
        return [outcomes(attempts, metric)] * seeds
    runs = zip(*(attempt.by_run for attempt in attempts), strict=True)
    return [[float(getattr(score, metric)) for score in run] for run in runs]


def clusters_of(attempts: Sequence[Attempt]) -> list[str]:
    """Return the independent unit that each attempt's question belongs to: its passage, or itself."""
    return [attempt.problem.cluster for attempt in attempts]


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing; summed exactly, so that the order of adding does not show."""
    return math.fsum(values) / len(values) if values else 0.0


def seeds_of(*attempts: Sequence[Attempt]) -> int:
    """Return how many runs were pooled in these attempts, the most where cells differ; 1 where they were not."""
    return max((len(attempt.by_run) for each in attempts for attempt in each), default=1) or 1
