"""Which part to distill: the rule of docs/verdict.md, applied to measured cells. Change both or neither."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fractionate.analysis.contrasts import Contrast, contrast, mean, pair_up
from fractionate.analysis.findings import (
    Answer,
    Benefit,
    Cost,
    Distill,
    Finding,
    Judgement,
    Part,
    cheapest,
    part_answer,
)
from fractionate.analysis.matrix import Matrix, is_candidate_decomposer, is_candidate_solver, matrices
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule
from fractionate.analysis.sentence import because
from fractionate.analysis.statistics import Interval, mean_t_interval, sample_size
from fractionate.types import Attempt, Cell

_DOLLAR_DIGITS = 12
"""Dollar differences are rounded to 1e-12: below that they are what adding floats in another order leaves."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which part to distill, one sentence why, and the numbers. `datasets` holds each test set's own verdict."""

    distill: Distill
    because: str
    evidence: list[dict[str, Any]]
    datasets: list[dict[str, Any]] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as results.json holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def decide(cells: Iterable[Cell], pricing: Pricing, rule: Rule) -> Verdict:
    """Judge every test set by the rule of docs/verdict.md; over several, the answer is theirs only if they agree."""
    judged = [_judge(matrix, pricing, rule) for matrix in matrices(cells)]
    answers = {judgement.distill for judgement in judged}
    overall: Distill = answers.pop() if len(answers) == 1 else "undecided"
    evidence: list[dict[str, Any]] = []
    for judgement in judged:
        evidence += [finding.as_dict() for finding in judgement.findings]
        evidence += [judgement.benefit.as_dict()] if judgement.benefit else []
    return Verdict(
        overall,
        because(judged, overall),
        evidence,
        [{"dataset": one.dataset, "distill": one.distill, "because": because([one], one.distill)} for one in judged],
        {
            "margin_points": rule.margin,
            "confidence": rule.confidence,
            "one_sided_level": (1 - rule.confidence) / 2,
            "power": 0.8,
            "document": "docs/verdict.md",
        },
    )


def _judge(matrix: Matrix, pricing: Pricing, rule: Rule) -> Judgement:
    strategy = matrix.judged_strategy(rule)
    reference = matrix.undistilled(strategy, rule)
    if reference is None or not reference.attempts:
        return Judgement(matrix.label, "undecided", obstacle=_missing_reference(matrix, strategy, reference, rule))
    benefit = _benefit(matrix, reference, rule)
    found = _findings(matrix, reference, pricing, rule)
    parts = {part: [one for one in found if one.part == part] for part in ("decomposer", "solver", "pair")}
    distill, chosen, pair_failed = _combine(parts["decomposer"], parts["solver"], parts["pair"])
    unpriced = _unpriced([reference, *_candidates(matrix, reference)], pricing)
    obstacle = "" if found else "nothing was distilled: no student decomposer or solver was measured"
    return Judgement(matrix.label, distill, tuple(found), chosen, pair_failed, benefit, obstacle, unpriced)


def _missing_reference(matrix: Matrix, strategy: str, reference: Cell | None, rule: Rule) -> str:
    if reference is not None:
        return "the undistilled pair holds no question"
    solver = matrix.reference_solver(rule)
    named = solver.name if solver else rule.solver or "solver"
    return f"the undistilled pair (teacher, {named}) under {strategy or 'a two-stage strategy'} was not measured"


def _candidates(matrix: Matrix, reference: Cell) -> list[Cell]:
    return [
        cell
        for cell in matrix.two_stage()
        if cell is not reference and cell.strategy == reference.strategy and _part(cell, reference)
    ]


def _part(cell: Cell, reference: Cell) -> Part | None:
    """Return which part of the undistilled pair a cell replaces by a student, None if it does something else."""
    decomposer, solver = is_candidate_decomposer(cell.decomposer), is_candidate_solver(cell.solver)
    if decomposer and solver:
        return "pair"
    if decomposer and cell.solver == reference.solver:
        return "decomposer"
    if solver and cell.decomposer == reference.decomposer:
        return "solver"
    return None


def _findings(matrix: Matrix, reference: Cell, pricing: Pricing, rule: Rule) -> list[Finding]:
    candidates = [(cell, _part(cell, reference)) for cell in _candidates(matrix, reference)]
    found = []
    for part in ("decomposer", "solver", "pair"):
        cells = [cell for cell, replaced in candidates if replaced == part and cell.attempts]
        # Bonferroni: each of k candidates of a part has k chances to pass by luck.
        confidence = 1 - (1 - rule.confidence) / max(len(cells), 1)
        found += [_finding(part, contrast(matrix, cell, reference, rule, confidence), pricing, rule) for cell in cells]
    return found


def _finding(part: Part, outcome: Contrast, pricing: Pricing, rule: Rule) -> Finding:
    margin = rule.margin / 100
    non_inferior = _beyond(outcome.ci_low + margin, outcome.ci_high + margin)
    cost, saved = _cost(outcome, pricing)
    interval = None if saved is None else mean_t_interval(saved, outcome.confidence)
    cheaper = _cheaper(interval)
    worth = _both(non_inferior, cheaper)
    needed = _needed(outcome, margin, saved, non_inferior, cheaper) if worth == "undecided" else None
    return Finding(part, outcome, cost, margin, non_inferior, cheaper, worth, needed)


def _cost(outcome: Contrast, pricing: Pricing) -> tuple[Cost, list[float] | None]:
    """Return the dollars of both pairs, and the paired differences; (no figures, None) where a price is not known."""
    mine, theirs = pair_up(outcome.a, outcome.b)
    usd, reference = dollars(outcome.a, mine, pricing), dollars(outcome.b, theirs, pricing)
    if usd is None or reference is None:
        return Cost(None if usd is None else mean(usd), None if reference is None else mean(reference)), None
    saved = [round(ours - others, _DOLLAR_DIGITS) for ours, others in zip(usd, reference, strict=True)]
    interval = mean_t_interval(saved, outcome.confidence)
    return Cost(mean(usd), mean(reference), mean(saved), _finite(interval.low), _finite(interval.high)), saved


def _needed(
    outcome: Contrast, margin: float, saved: list[float] | None, non_inferior: Answer, cheaper: Answer
) -> int | None:
    """Return the questions that would decide what is open, None where no number of them would."""
    needed: list[int | None] = []
    if non_inferior == "undecided":
        distance = outcome.difference + margin
        room = 1 + outcome.difference if distance > 0 else 1 - outcome.difference
        needed.append(sample_size(distance, outcome.variance, outcome.confidence, room=room))
    if cheaper == "undecided":
        needed.append(_dollar_sample_size(saved or [], outcome.confidence))
    if cheaper == "unknown":
        needed.append(None)
    known = [n for n in needed if n is not None]
    return max(max(known), outcome.n + 1) if known and len(known) == len(needed) else None


def dollars(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing) -> list[float] | None:
    """Return the dollars of each attempt, both roles together; None where any price is not known."""
    totals = []
    for attempt in attempts:
        decomposing = pricing.usd(cell.decomposer.model, attempt.decomposer_usage)
        solving = pricing.usd(cell.solver.model, attempt.solver_usage)
        if decomposing is None or solving is None:
            return None
        totals.append(decomposing + solving)
    return totals


def _dollar_sample_size(differences: list[float], confidence: float) -> int | None:
    if len(differences) < 2:
        return 2
    centre = mean(differences)
    variance = sum((value - centre) ** 2 for value in differences) / (len(differences) - 1)
    return sample_size(centre, variance, confidence, room=None)


def _beyond(low: float, high: float) -> Answer:
    """Return whether an interval lies at or above 0 ("yes"), wholly below it ("no"), or holds it."""
    if low >= 0:
        return "yes"
    return "no" if high < 0 else "undecided"


def _cheaper(interval: Interval | None) -> Answer:
    if interval is None:
        return "unknown"
    if interval.high < 0:
        return "yes"
    return "no" if interval.low >= 0 else "undecided"


def _both(non_inferior: Answer, cheaper: Answer) -> Answer:
    if "no" in (non_inferior, cheaper):
        return "no"
    return "yes" if non_inferior == cheaper == "yes" else "undecided"


def _combine(
    decomposers: list[Finding], solvers: list[Finding], pairs: list[Finding]
) -> tuple[Distill, Finding | None, bool]:
    decomposer, solver = part_answer(decomposers), part_answer(solvers)
    if decomposer == solver == "yes":
        good = {finding.decomposer for finding in decomposers if finding.worth == "yes"}
        able = {finding.solver for finding in solvers if finding.worth == "yes"}
        together = [pair for pair in pairs if pair.decomposer in good and pair.solver in able]
        if part_answer(together) == "yes":
            return "both", cheapest(together), False
        best = cheapest([*decomposers, *solvers])
        return ("solver" if best and best.part == "solver" else "decomposer"), best, True
    if decomposer == "yes":
        return "decomposer", cheapest(decomposers), False
    if solver == "yes":
        return "solver", cheapest(solvers), False
    return ("neither" if decomposer == solver == "no" else "undecided"), None, False


def _benefit(matrix: Matrix, reference: Cell, rule: Rule) -> Benefit | None:
    baselines = [cell for cell in matrix.single_stage(reference.solver) if cell.attempts]
    if not baselines:
        return None
    best = max(baselines, key=lambda cell: mean(cell.values()))
    found = contrast(matrix, reference, best, rule)
    helps: Answer = "yes" if found.ci_low > 0 else "no" if found.ci_high < 0 else "undecided"
    return Benefit(found, helps)


def _unpriced(cells: Sequence[Cell], pricing: Pricing) -> tuple[str, ...]:
    """Return the models of the judged pairs whose dollars are not known."""
    names = [
        component.model
        for cell in cells
        for attempt in cell.attempts
        for component, usage in ((cell.decomposer, attempt.decomposer_usage), (cell.solver, attempt.solver_usage))
        if pricing.usd(component.model, usage) is None
    ]
    return tuple(dict.fromkeys(names))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
