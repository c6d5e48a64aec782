"""Two cells over the questions that both answered: the one record that comparisons, findings and controls share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fractionate.analysis.matrix import Matrix
from fractionate.analysis.rule import Rule
from fractionate.analysis.statistics import Difference, paired_difference
from fractionate.types import Attempt, Cell


@dataclass(frozen=True)
class Contrast:
    """a − b over the same `n` questions, in the metric of a; means and differences are shares of 1.

    `ci_low` and `ci_high` bound the difference at `confidence`; `p_value` is two-sided, of `test`; `variance` is that
    of the per-question differences.
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
    variance: float
    confidence: float

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
        """Return what results.json holds of every contrast: the difference and its interval."""
        return {"difference": self.difference, "ci_low": self.ci_low, "ci_high": self.ci_high}


def contrast(matrix: Matrix, a: Cell, b: Cell, rule: Rule, confidence: float | None = None) -> Contrast:
    """Compare two cells over the questions they share, at the rule's confidence unless another is given."""
    mine, theirs = pair_up(a, b)
    ours, others = outcomes(mine, a.metric), outcomes(theirs, a.metric)
    level = rule.confidence if confidence is None else confidence
    found: Difference = paired_difference(ours, others, a.metric, level, rule.seed)
    return Contrast(
        matrix=matrix,
        a=a,
        b=b,
        n=len(mine),
        value=mean(ours),
        reference_value=mean(others),
        difference=found.difference,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        test=found.test,
        variance=found.variance,
        confidence=level,
    )


def pair_up(a: Cell, b: Cell) -> tuple[list[Attempt], list[Attempt]]:
    """Return both cells' attempts at the questions they share, in a's order."""
    other = {attempt.problem.id: attempt for attempt in b.attempts}
    shared = [attempt for attempt in a.attempts if attempt.problem.id in other]
    return shared, [other[attempt.problem.id] for attempt in shared]


def outcomes(attempts: Sequence[Attempt], metric: str) -> list[float]:
    """Return the metric of each attempt, 0 to 1."""
    return [float(getattr(attempt.score, metric)) for attempt in attempts]


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing; summed exactly, so that the order of adding does not show."""
    return math.fsum(values) / len(values) if values else 0.0
