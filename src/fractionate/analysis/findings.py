"""What was found on one test set: each student pair against the undistilled one, and what decomposing itself does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Distill = Literal["decomposer", "solver", "both", "neither", "undecided"]
Part = Literal["decomposer", "solver", "pair"]
Answer = Literal["yes", "no", "undecided", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One pair against the undistilled pair over the same `n` questions.

    `value` and `reference_value` are means in [0, 1], `difference` is value − reference_value in [−1, 1] with its
    interval at `confidence`; dollars are a question, None where a price is not known.
    """

    dataset: str
    part: Part
    strategy: str
    decomposer: str
    solver: str
    a: str
    b: str
    n: int
    value: float
    reference_value: float
    difference: float
    ci_low: float
    ci_high: float
    confidence: float
    margin: float
    usd_per_question: float | None
    reference_usd_per_question: float | None
    usd_difference: float | None
    usd_ci_low: float | None
    usd_ci_high: float | None
    non_inferior: Answer
    cheaper: Answer
    worth: Answer
    n_to_decide: int | None
    """Questions that would decide it with 80 % power if what was measured holds; None where it is decided or no
    number of questions would (an unknown price, a difference exactly on the margin)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Benefit:
    """What decomposing itself does: the undistilled pair against its solver's best single-stage cell."""

    dataset: str
    strategy: str
    baseline: str
    """The single-stage strategy compared with: the better one where there are two."""
    a: str
    b: str
    n: int
    value: float
    reference_value: float
    difference: float
    ci_low: float
    ci_high: float
    confidence: float
    helps: Answer

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them, marked as the part "decomposing"."""
        return {"part": "decomposing", **{name: getattr(self, name) for name in self.__slots__}}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One test set judged: what to distill there and all that it rests on. `obstacle` says why nothing could be."""

    dataset: str
    distill: Distill
    findings: tuple[Finding, ...] = ()
    chosen: Finding | None = None
    """The finding the answer rests on: the cheapest worthwhile one."""
    pair_failed: bool = False
    """Each part is worth it alone, but no pair of students was shown to be."""
    benefit: Benefit | None = None
    obstacle: str = ""
    unpriced: tuple[str, ...] = ()


def part_answer(findings: Sequence[Finding]) -> Answer:
    """Return whether a part is worth distilling: "yes" by any candidate, "no" by all, "unknown" without any."""
    answers = {finding.worth for finding in findings}
    if not answers:
        return "unknown"
    if "yes" in answers:
        return "yes"
    return "no" if answers == {"no"} else "undecided"


def cheapest(findings: Sequence[Finding]) -> Finding | None:
    """Return the worthwhile finding that saves most dollars a question; ties go to the better outcome."""
    worthwhile = [finding for finding in findings if finding.worth == "yes"]
    return min(worthwhile, key=lambda one: (one.usd_difference or 0.0, -one.difference, one.a), default=None)
