"""What was found on one test set: each student pair against the undistilled one, and what decomposing itself does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fractionate.analysis.contrasts import Contrast

Distill = Literal["decomposer", "solver", "both", "neither", "undecided"]
Part = Literal["decomposer", "solver", "pair"]
Answer = Literal["yes", "no", "undecided", "unknown"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The dollars per question of a pair beside the undistilled one's, and the paired difference with its interval.

    Every figure is None where a price is not known; the interval also where too few questions give none.
    """

    usd: float | None = None
    reference_usd: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One pair against the undistilled pair: outcome, cost, and what was shown of each. `margin` is a share of 1."""

    part: Part
    contrast: Contrast
    cost: Cost
    margin: float
    non_inferior: Answer
    cheaper: Answer
    worth: Answer
    n_to_decide: int | None
    """Questions that would decide it with 80 % power if what was measured holds; None where it is decided or no
    number of questions would (an unknown price, a difference exactly on the margin)."""

    @property
    def decomposer(self) -> str:
        """The name of the pair's decomposer."""
        return self.contrast.a.decomposer.name

    @property
    def solver(self) -> str:
        """The name of the pair's solver."""
        return self.contrast.a.solver.name

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        found, cost = self.contrast, self.cost
        a, b = found.names
        return {
            "dataset": found.matrix.label,
            "part": self.part,
            "strategy": found.a.strategy,
            "decomposer": self.decomposer,
            "solver": self.solver,
            "a": a,
            "b": b,
            "n": found.n,
            "value": found.value,
            "reference_value": found.reference_value,
            **found.interval_fields(),
            "confidence": found.confidence,
            "margin": self.margin,
            "usd_per_question": cost.usd,
            "reference_usd_per_question": cost.reference_usd,
            "usd_difference": cost.difference,
            "usd_ci_low": cost.ci_low,
            "usd_ci_high": cost.ci_high,
            "non_inferior": self.non_inferior,
            "cheaper": self.cheaper,
            "worth": self.worth,
            "n_to_decide": self.n_to_decide,
        }


@dataclass(frozen=True, slots=True)
class Benefit:
    """What decomposing itself does: the undistilled pair against its solver's best single-stage cell."""

    contrast: Contrast
    helps: Answer

    @property
    def baseline(self) -> str:
        """The single-stage strategy compared with: the better one where there are two."""
        return self.contrast.b.strategy

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them, marked as the part "decomposing"."""
        found = self.contrast
        a, b = found.names
        return {
            "part": "decomposing",
            "dataset": found.matrix.label,
            "strategy": found.a.strategy,
            "baseline": self.baseline,
            "a": a,
            "b": b,
            "n": found.n,
            "value": found.value,
            "reference_value": found.reference_value,
            **found.interval_fields(),
            "confidence": found.confidence,
            "helps": self.helps,
        }


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
    """Return the worthwhile finding that saves most dollars per question; ties go to the better outcome."""
    worthwhile = [finding for finding in findings if finding.worth == "yes"]
    return min(
        worthwhile,
        key=lambda one: (one.cost.difference or 0.0, -one.contrast.difference, one.contrast.names),
        default=None,
    )
