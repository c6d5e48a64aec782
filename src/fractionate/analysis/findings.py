"""What was found on one test set: each distilled configuration against the undistilled pair, with its controls.

"No worse than the undistilled pair" says nothing where that pair is itself no better than answering in one stage, or
where the student does as well before any training (assay sensitivity). So each configuration also has to beat its
controls, or the verdict says which control failed or was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fractionate.analysis.contrasts import Contrast, Split, contrast, pair_up, split_gain
from fractionate.analysis.corrections import differences_of
from fractionate.analysis.gates import gates_of
from fractionate.analysis.matrix import Matrix
from fractionate.analysis.rule import Rule
from fractionate.statistics import POWER, Needed, questions_to_decide
from fractionate.types import Cell, Component, Role

Distill = Literal["decomposer", "solver", "both", "neither", "undecided"]
Part = Literal["decomposer", "solver", "both"]
Answer = Literal["yes", "no", "undecided", "unknown"]
"""What was shown of a claim; "unknown" where what it takes was not measured or has no price."""
Claim = Literal["decomposing", "decomposer", "solver"]
"""What a control is about: that decomposing helps, or that training a part does."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The dollars per question of a pair beside the undistilled one's, and the difference with its interval.

    Every figure is None where a price is not known; the interval also where too few questions give none. `cheaper` is
    judged by the ratio of the two, in which what slows the whole machine cancels. `rounds` counts the calibration
    rounds that measured speeds rest on, 0 where every price is known.
    """

    usd: float | None = None
    reference_usd: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    cheaper: Answer = "unknown"
    rounds: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    """The pair's dollars over the reference's, with the interval; None where it has no end or a cost is 0."""
    confidence: float | None = None
    uncapped: tuple[str, ...] = ()
    """The models whose replies have no known cap: the interval does not cover replies that run on unseen."""
    correlation: float = 0.0
    """Of the differences in dollars and in outcome, over questions."""


@dataclass(frozen=True, slots=True)
class NetValue:
    """What a pair is worth beside the reference, in dollars per question: outcome at the user's value, less the cost.

    `answer` is "unknown" where no value was given or a price is not known.
    """

    answer: Answer = "unknown"
    usd: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """One control: does decomposing, or the training of a part, bring anything at all?

    `passed` is "yes" where the better of the two was shown to be better, "no" where it was shown to bring no more than
    the margin, "unknown" where the control was not measured: then `missing` says which cell it takes.
    """

    claim: Claim
    passed: Answer
    contrast: Contrast | None = None
    missing: str = ""
    split: Split | None = None
    """Of a trained part's gain over its untrained base, where answers have a lenient reading."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        found = self.contrast
        fields: dict[str, Any] = {"claim": self.claim, "passed": self.passed, "missing": self.missing}
        if found is None:
            return fields
        a, b = found.names
        return {
            **fields,
            "a": a,
            "b": b,
            "n": found.n,
            "value": found.value,
            "reference_value": found.reference_value,
            **found.interval_fields(),
            "confidence": found.confidence,
            "form": self.split.formatting.interval_fields() if self.split else None,
            "substance": self.split.content.interval_fields() if self.split else None,
        }


@dataclass(frozen=True)
class Finding:
    """One distilled configuration against the undistilled pair: outcome, cost, controls, and whether it passes.

    `margin` is a share of 1. `non_inferior` and `superior` say what was shown of the outcome. `net` is None where the
    user gave no value of a right answer: outcome and cost are then two conditions.
    """

    part: Part
    contrast: Contrast
    cost: Cost
    margin: float
    non_inferior: Answer
    superior: Answer
    net: NetValue | None
    controls: tuple[Control, ...]
    passes: Answer
    held_by: str = ""
    """The dearer configuration that did not pass, where candidates are tested in order."""

    @cached_property
    def needed(self) -> Needed | None:
        """Return the range of questions that would decide the outcome, None where it is decided."""
        if self.non_inferior != "undecided":
            return None
        outcome = self.contrast
        mine, theirs = pair_up(outcome.a, outcome.b)
        found = differences_of(mine, theirs, outcome.a.metric)
        bounds = (found.least, found.most)
        return questions_to_decide(found.values, -self.margin, outcome.confidence, POWER, mine.clusters, bounds)

    @property
    def decomposer(self) -> str:
        """The name of the configuration's decomposer."""
        return self.contrast.a.decomposer.name

    @property
    def solver(self) -> str:
        """The name of the configuration's solver."""
        return self.contrast.a.solver.name

    @property
    def controlled(self) -> Answer:
        """Whether every control of the configuration passed: "no" if one failed, "unknown" if one is missing."""
        return joint([control.passed for control in self.controls])

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
            "uncapped": list(cost.uncapped),
            "non_inferior": self.non_inferior,
            "superior": self.superior,
            "cheaper": cost.cheaper,
            "net": self.net.answer if self.net else "unknown",
            "net_usd": self.net.usd if self.net else None,
            "controls": [control.as_dict() for control in self.controls],
            "worth": self.passes,
            "by_seed": list(found.by_seed),
            "gates": [gate.as_dict() for gate in gates_of(self)],
            "n_to_decide": self.needed.likely if self.needed else None,
            "n_to_decide_low": self.needed.low if self.needed else None,
            "n_to_decide_high": self.needed.high if self.needed else None,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """One test set judged: what to distill there and all that it rests on. `obstacle` says why nothing could be."""

    dataset: str
    distill: Distill
    findings: tuple[Finding, ...] = ()
    chosen: Finding | None = None
    """The configuration that is recommended."""
    benefit: tuple[Control, ...] = ()
    """The undistilled pair against each single-stage cell of its solver."""
    obstacle: str = ""
    unpriced: tuple[str, ...] = ()
    misfit: str = ""
    """Says that the scorer does not fit: more than half of the undistilled pair's outputs are unparsed."""


def joint(answers: Sequence[Answer]) -> Answer:
    """Return whether all of several claims hold: "no" by any, "unknown" by any that could not be looked at."""
    for answer in ("no", "unknown", "undecided"):
        if answer in answers:
            return answer
    return "yes"


def part_answer(findings: Sequence[Finding]) -> Answer:
    """Return whether a part is worth distilling: "yes" by any candidate, "no" by all, "unknown" without any."""
    answers = {finding.passes for finding in findings}
    if not answers:
        return "unknown"
    if "yes" in answers:
        return "yes"
    return "no" if answers == {"no"} else "undecided"


CLAIMS: tuple[Role, Role] = ("decomposer", "solver")
SINGLE_STAGE = ("single", "single-cot")
"""The single-stage baselines that decomposing has to beat, both of them. Others, such as a vote, cost several calls."""


def decomposing_controls(matrix: Matrix, cell: Cell, solver: Component, rule: Rule, level: float) -> list[Control]:
    """Return a two-stage cell against a solver's single-stage cells, direct and with chain of thought."""
    measured = {one.strategy: one for one in matrix.single_stage(solver) if one.attempts}
    controls = []
    for strategy in SINGLE_STAGE:
        if strategy in measured:
            controls.append(_control("decomposing", matrix, cell, measured[strategy], rule, level))
        else:
            controls.append(Control("decomposing", "unknown", missing=f"{strategy} by {solver.name}"))
    return controls


def training_controls(matrix: Matrix, cell: Cell, rule: Rule, level: float) -> list[Control]:
    """Return a distilled cell against the same cell with each trained part's untrained base in its place."""
    controls = []
    for claim in CLAIMS:
        part = cell.decomposer if claim == "decomposer" else cell.solver
        if part.trained_for != claim:
            continue
        bases = untrained_in_place(matrix, cell, claim)
        if not bases:
            controls.append(Control(claim, "unknown", missing=f"the untrained model in the place of {part.name}"))
        controls += [_control(claim, matrix, cell, base, rule, level) for base in bases]
    return controls


def untrained_in_place(matrix: Matrix, cell: Cell, claim: Role) -> list[Cell]:
    """Return the cells that differ from `cell` only in having an untrained model where it has a trained one.

    A single-stage student is laid beside every single-stage strategy of its base.
    """
    part, partner = (cell.decomposer, cell.solver) if claim == "decomposer" else (cell.solver, cell.decomposer)
    if part.trained_for != claim or not part.model:
        return []
    found = []
    for other in matrix.cells:
        theirs, beside = (other.decomposer, other.solver) if claim == "decomposer" else (other.solver, other.decomposer)
        untrained = not theirs.trained_for and theirs.model == (part.base or part.model)
        same_form = other.stages == "single" if cell.stages == "single" else other.strategy == cell.strategy
        if untrained and same_form and beside == partner and other.attempts:
            found.append(other)
    return found


def _control(claim: Claim, matrix: Matrix, cell: Cell, baseline: Cell, rule: Rule, level: float) -> Control:
    found = contrast(matrix, cell, baseline, level)
    split = split_gain(matrix, cell, baseline, level) if claim != "decomposing" else None
    return Control(claim, _shown_better(found, rule), found, split=split)


def _shown_better(found: Contrast, rule: Rule) -> Answer:
    """Return "yes" where a was shown better, "no" where it was shown to bring no more than the margin."""
    if found.ci_low > 0:
        return "yes"
    return "no" if found.ci_high <= rule.margin / 100 else "undecided"
