"""What the user decided about judging, in one record: all that analysis takes from a config besides prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fractionate.config import Config
from fractionate.statistics import (
    anytime_confidence,
    interim_confidence,
    spent_at,
)
from fractionate.types import Cell, Role

Caps = Mapping[tuple[str, str, str, str, str], Mapping[Role, int]]
"""The most output tokens that a question can take, by cell (`matrix.key_of`) and role, where calls are capped."""
NO_CAPS: Caps = {}
FAMILIES = 0.1
"""The share of the error that is kept for looks of another kind than more questions of the same systems."""
GROWTH = 0.1
"""The share of the error that is kept for more questions than planned."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a verdict stands among the looks at its test set: see `analysis/looks.py`.

    `family` counts the looks of other kinds up to this one, from 1; `sizes` are the questions of the earlier looks that
    this one extends. `known` says that this very look was made before, `opened` that a sealed test set is spent.
    """

    family: int = 1
    sizes: tuple[int, ...] = ()
    known: bool = False
    opened: bool = False

    @property
    def share(self) -> float:
        """The share of the error that this family has in all."""
        return 1 - FAMILIES if self.family == 1 else FAMILIES / ((self.family - 1) * self.family)


FIRST = Standing()


@dataclass(frozen=True, slots=True)
class Rule:
    """How cells are judged. `margin` is in percentage points, `confidence` that of two-sided intervals.

    `strategy` and `solver` name the judged two-stage strategy and the undistilled solver ("" for the defaults of
    docs/verdict.md); `usd_per_correct` is what one more right answer is worth (None: not said). `standings` say, by
    test set, which looks were taken before; `caps` how long replies may be. `questions` is the planned number of test
    questions (None: those of the first look). With `looks` "any", intervals hold at any number of looks as questions
    grow; with `sealed` a test set is judged once, at the whole error.
    """

    margin: float = 2.0
    confidence: float = 0.95
    strategy: str = ""
    solver: str = ""
    usd_per_correct: float | None = None
    standings: Mapping[str, Standing] = field(default_factory=dict)
    caps: Caps = field(default_factory=dict)
    questions: int | None = None
    looks: Literal["", "any"] = ""
    sealed: bool = False
    runs: int = 1
    """The pooled runs (seeds) that a verdict takes at least: with fewer there is none, and no error is spent."""
    seeds: Literal["mean", "worst"] = "mean"
    in_order: bool = False
    """Whether candidates are tested one after another, the dearest first, each at the whole error."""

    @classmethod
    def of(cls, config: Config, standings: Mapping[str, Standing] | None = None, caps: Caps = NO_CAPS) -> Rule:
        """Return the rule that a config states."""
        verdict = config.verdict
        return cls(
            verdict.margin,
            verdict.confidence,
            verdict.strategy,
            verdict.solver,
            verdict.usd_per_correct,
            dict(standings or {}),
            caps,
            verdict.questions,
            verdict.looks,
            config.data.sealed,
            verdict.runs,
            verdict.seeds,
            verdict.candidates == "in order",
        )

    def has_all_runs(self, reference: Cell) -> bool:
        """Return whether enough runs were pooled for a verdict."""
        return reference.columns.seeds >= self.runs

    def standing(self, test_set: str) -> Standing:
        """Return where a verdict on a test set stands among earlier looks."""
        return self.standings.get(test_set, FIRST)

    def confidence_at(self, test_set: str, questions: int) -> float:
        """Return the confidence of the verdict at this look, so that all together err no more than one."""
        standing = self.standing(test_set)
        if self.sealed:
            return self.confidence
        of_family = 1 - (1 - self.confidence) * standing.share
        if self.looks == "any":
            return anytime_confidence(of_family, max(questions, 1), self.questions or questions)
        return interim_confidence(of_family, self._sizes(standing, questions), self.questions, _RESERVE)

    def error_spent(self, test_set: str, questions: int) -> float:
        """Return the share of the test set's error, 0 to 1, that looks have spent up to this one."""
        standing = self.standing(test_set)
        if self.sealed:
            return 1.0
        before = sum(Standing(number).share for number in range(1, standing.family))
        if self.looks == "any":
            return before + standing.share
        error = (1 - self.confidence) / 2 * standing.share
        sizes = self._sizes(standing, questions)
        return before + standing.share * spent_at(sizes[-1], self.questions or sizes[0], _RESERVE, error)

    def _sizes(self, standing: Standing, questions: int) -> list[int]:
        return sorted({size for size in standing.sizes if size < questions} | {max(questions, 1)})


_RESERVE = GROWTH / (1 - FAMILIES)


def question_points(points: float, name: str = "margin") -> str:
    """Return why a margin or difference, in percentage points, looks like a share; "" where it does not."""
    if not 0 < abs(points) < 0.1:
        return ""
    return f"a {name} is in percentage points, so this is {points:g} %; if a share is meant, write {points * 100:g}"
