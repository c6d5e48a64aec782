"""Which part to distill: the rule of docs/verdict.md, applied to measured cells. Change both or neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fractionate.analysis.contrasts import contrast, mean, misfit_in, outcomes, pair_up
from fractionate.analysis.corrections import differences_of, value_of
from fractionate.analysis.costs import compare_costs, dollars, net_value, unpriced
from fractionate.analysis.findings import (
    Answer,
    Control,
    Distill,
    Finding,
    Judgement,
    Part,
    decomposing_controls,
    joint,
    part_answer,
    training_controls,
)
from fractionate.analysis.limits import limits_of
from fractionate.analysis.matrix import Matrix, is_candidate_decomposer, is_candidate_solver, matrices
from fractionate.analysis.next_step import Place
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule
from fractionate.analysis.sentence import state
from fractionate.analysis.test_sets import Basis, Overall, agree, stack
from fractionate.columns import Columns
from fractionate.statistics import POWER, bonferroni_confidence, simultaneous_confidence
from fractionate.types import Cell

VERSION = 3
"""Of the rule in docs/verdict.md, which gives its date and the reasons for each change."""
_OPENED = "the sealed test set was opened by an earlier verdict, and no other one may rest on it: seal new questions"
_WAYS = 2
"""Ways to show that decomposing helps: by the undistilled pair, or by the configuration itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which part to distill, and the numbers. `datasets` holds each test set's own verdict.

    `because` is the answer with its figures, in at most 60 words; `action`, `effect` and `next` are its three lines,
    and the other fields what they state (`sentence.Statement`).
    """

    distill: Distill
    because: str
    action: str
    effect: str
    next: str
    recommended: dict[str, str] | None
    outcome: dict[str, Any] | None
    saving: dict[str, Any] | None
    evidence: list[dict[str, Any]]
    datasets: list[dict[str, Any]] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)
    basis: Basis = ""
    """What the answer over several test sets rests on: each of them alone, or all their questions together."""
    together: dict[str, Any] | None = None
    limits: list[dict[str, Any]] = field(default_factory=list)
    """What the verdict does not cover."""

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as results.json holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def decide(cells: Iterable[Cell], pricing: Pricing, rule: Rule, place: Place | None = None) -> Verdict:
    """Judge every test set by the rule of docs/verdict.md, and each configuration over all of them.

    `place` is where the run lies, for the command that comes next.
    """
    place = place or Place()
    measured = matrices(cells)
    judged = [judge(matrix, pricing, rule) for matrix in measured]
    overall = across(measured, judged, pricing, rule)
    evidence: list[dict[str, Any]] = []
    for judgement in judged:
        evidence += [finding.as_dict() for finding in judgement.findings]
        evidence += [
            {"part": "decomposing", "dataset": judgement.dataset, **control.as_dict()} for control in judgement.benefit
        ]
    said = state(overall, rule, place)
    return Verdict(
        overall.distill,
        said.because,
        said.action,
        said.effect,
        said.next,
        said.recommended,
        said.outcome,
        said.saving,
        evidence,
        [
            _of_test_set(one, _front(matrix, pricing), state(Overall(one.distill, (one,)), rule, place).because)
            for one, matrix in zip(judged, measured, strict=True)
        ],
        {
            "version": VERSION,
            "margin_points": rule.margin,
            "confidence": rule.confidence,
            "one_sided_level": (1 - rule.confidence) / 2,
            "usd_per_correct": rule.usd_per_correct,
            "power": POWER,
            "document": "docs/verdict.md",
            "looks": rule.looks,
            "error_spent": {
                matrix.label: rule.error_spent(matrix.label, _questions_of(matrix, rule)) for matrix in measured
            },
        },
        overall.basis,
        _together(overall),
        [limit.as_dict() for limit in limits_of(judged)],
    )


def across(measured: Sequence[Matrix], judged: Sequence[Judgement], pricing: Pricing, rule: Rule) -> Overall:
    """Return the answer over all test sets, given each one's own."""
    if not judged:
        return Overall("undecided", ())
    stacked = stack(measured)
    level = max(_level(matrix, rule) for matrix in measured)
    together = judge(stacked, pricing, rule, level) if stacked else None
    return agree(judged, together, lambda findings: _recommended(findings, rule))


def judge(matrix: Matrix, pricing: Pricing, rule: Rule, level: float | None = None) -> Judgement:
    """Judge one test set. `level` is the confidence that all its intervals hold with; None for the rule's own."""
    reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
    if reference is None or not reference.attempts:
        return Judgement(matrix.label, "undecided", obstacle=_missing_reference(matrix, reference, rule))
    if rule.standing(matrix.label).opened:
        return Judgement(matrix.label, "undecided", obstacle=_OPENED)
    if not rule.has_all_runs(reference):
        return Judgement(matrix.label, "undecided", obstacle=_too_few_runs(reference, rule))
    level = level or _level(matrix, rule)
    benefit = decomposing_controls(matrix, reference, reference.solver, rule, bonferroni_confidence(level, _WAYS))
    candidates = candidates_of(matrix, reference)
    levels = [(level, level)] * len(candidates)
    if not rule.in_order:
        levels = _levels(level, reference, [cell for _, cell in candidates])
    findings = tuple(
        _finding(matrix, part, cell, reference, benefit, pricing, rule, of_outcome, of_cost)
        for (part, cell), (of_outcome, of_cost) in zip(candidates, levels, strict=True)
    )
    if rule.in_order:
        findings = _in_order(findings)
    misfit = misfit_in(reference)
    chosen = None if misfit else _recommended(findings, rule)
    without: Distill = "undecided" if misfit else _without_a_choice(findings, benefit, matrix)
    return Judgement(
        matrix.label,
        chosen.part if chosen else without,
        findings,
        chosen,
        tuple(benefit),
        _obstacle(findings, benefit, matrix, reference),
        unpriced([reference, *(cell for _, cell in candidates)], pricing) if _any_unknown(findings) else (),
        misfit,
    )


def _level(matrix: Matrix, rule: Rule) -> float:
    """Return the confidence of a test set's verdict, given the interim analyses before it."""
    return rule.confidence_at(matrix.label, _questions_of(matrix, rule))


def _questions_of(matrix: Matrix, rule: Rule) -> int:
    reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
    return len(reference.attempts) if reference else 0


def _together(overall: Overall) -> dict[str, Any] | None:
    """Return the judgement over the questions of all test sets as results.json holds it; None for a single set."""
    found = overall.together
    if found is None:
        return None
    return {
        "distill": found.distill,
        "recommended": found.chosen.contrast.names[0] if found.chosen else None,
        "evidence": [finding.as_dict() for finding in found.findings],
    }


def _in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Test the dearest candidate first and go on while candidates pass: none shares its error with another.

    A candidate after one that does not pass is not shown, whatever its intervals say (Maurer, Hothorn & Lehmacher,
    Biometrie in der chemisch-pharmazeutischen Industrie 6 (1995) 3).
    """
    held = ""
    judged = {}
    for finding in sorted(findings, key=lambda one: -(one.cost.usd or 0.0)):
        passes: Answer = "undecided" if held and finding.passes == "yes" else finding.passes
        judged[finding.contrast.names] = replace(finding, passes=passes, held_by=held)
        held = held or ("" if finding.passes == "yes" else finding.contrast.names[0])
    return tuple(judged[finding.contrast.names] for finding in findings)


def _any_unknown(findings: Sequence[Finding]) -> bool:
    return any(finding.cost.cheaper == "unknown" for finding in findings)


def candidates_of(matrix: Matrix, reference: Cell) -> list[tuple[Part, Cell]]:
    """Return the distilled configurations of a test set, each with the part that it has distilled."""
    return [(part, cell) for cell in matrix.cells if cell.attempts and (part := _part(cell, reference))]


def _part(cell: Cell, reference: Cell) -> Part | None:
    """Return which part of the undistilled pair a cell has distilled, None if it is no such configuration."""
    decomposer, solver = is_candidate_decomposer(cell.decomposer), is_candidate_solver(cell.solver)
    if cell.stages == "single":
        return "solver" if cell.solver.variant.startswith("S-") else None
    if cell.strategy != reference.strategy:
        return None
    if decomposer and solver:
        return "both"
    if decomposer and cell.solver == reference.solver:
        return "decomposer"
    if solver and cell.decomposer == reference.decomposer:
        return "solver"
    return None


def _levels(level: float, reference: Cell, cells: Sequence[Cell]) -> list[tuple[float, float]]:
    """Return the confidence of each candidate's outcome and of its cost, so that all hold together with `level`.

    Outcomes share the reference and the questions, which makes their errors go together; where candidates answered
    other questions, for dollars, and over several seeds, whose chance each student has of its own, the error is shared
    out evenly. So it is for the controls: students that do alike may have bases that do not.
    """
    even = bonferroni_confidence(level, len(cells))
    pairs = [pair_up(cell, reference) for cell in cells]
    outcome = even
    one_seed = all(mine.seeds == theirs.seeds == 1 for mine, theirs in pairs)
    if len(cells) > 1 and one_seed and _asked_alike([mine for mine, _ in pairs]):
        metric = reference.metric
        differences = [differences_of(mine, theirs, metric).values for mine, theirs in pairs]
        outcome = simultaneous_confidence(level, differences, pairs[0][0].clusters)
    return [(outcome, even)] * len(cells)


def _asked_alike(several: Sequence[Columns]) -> bool:
    """Return whether all were asked the same questions, and any at all."""
    import numpy as np

    first, *others = [columns.ids for columns in several]
    return len(first) > 0 and all(other is first or np.array_equal(first, other) for other in others)


def _finding(
    matrix: Matrix,
    part: Part,
    cell: Cell,
    reference: Cell,
    benefit: Sequence[Control],
    pricing: Pricing,
    rule: Rule,
    level: float,
    even: float,
) -> Finding:
    outcome = contrast(matrix, cell, reference, level, worst=rule.seeds == "worst")
    margin = rule.margin / 100
    non_inferior = _beyond(outcome.ci_low + margin, outcome.ci_high + margin)
    superior: Answer = "yes" if outcome.ci_low > 0 else "no" if outcome.ci_high <= 0 else "undecided"
    cost = compare_costs(cell, reference, pricing, even, rule.caps)
    net = None if rule.usd_per_correct is None else net_value(outcome, cost, rule.usd_per_correct)
    controls = [
        *_decomposing(matrix, cell, reference, benefit, rule, even),
        *training_controls(matrix, cell, rule, even),
    ]
    shown = [net.answer] if net else [non_inferior, cost.cheaper]
    passes = joint([*shown, *(control.passed for control in controls)])
    return Finding(
        part=part,
        contrast=outcome,
        cost=cost,
        margin=margin,
        non_inferior=non_inferior,
        superior=superior,
        net=net,
        controls=tuple(controls),
        passes="undecided" if passes == "unknown" else passes,
    )


def _decomposing(
    matrix: Matrix, cell: Cell, reference: Cell, benefit: Sequence[Control], rule: Rule, level: float
) -> list[Control]:
    """Return the controls that decomposing helps: by the undistilled pair or by the configuration, what shows more.

    Each of these two ways has half of the error. What one has failed to show, the other may still. The configuration
    has to beat the same single-stage cells, and those of its own solver where it has another. A single-stage student
    too: to be no worse than a pair that answering in one stage beats by far recommends nothing.
    """
    if joint([control.passed for control in benefit]) == "yes":
        return list(benefit)
    each = bonferroni_confidence(level, _WAYS)
    own = decomposing_controls(matrix, cell, reference.solver, rule, each)
    if cell.solver != reference.solver and cell.stages != "single":
        measured = matrix.single_stage(cell.solver)
        own += decomposing_controls(matrix, cell, cell.solver, rule, each) if measured else []
    rank = ("no", "unknown", "undecided", "yes").index
    return max(list(benefit), own, key=lambda way: rank(joint([control.passed for control in way])))


def _recommended(findings: Sequence[Finding], rule: Rule) -> Finding | None:
    """Return the configuration to recommend: of those that pass the one of most net value, or else the cheapest."""
    passing = [finding for finding in findings if finding.passes == "yes"]
    if rule.usd_per_correct is not None:
        return max(passing, key=lambda one: (one.net.usd or 0.0 if one.net else 0.0, one.contrast.names), default=None)
    return min(
        passing, key=lambda one: (one.cost.usd or 0.0, -one.contrast.difference, one.contrast.names), default=None
    )


def _without_a_choice(findings: Sequence[Finding], benefit: Sequence[Control], matrix: Matrix) -> Distill:
    if _nothing_works(matrix):
        return "neither"
    all_fail = bool(findings) and all(finding.passes == "no" for finding in findings)
    if all_fail and joint([control.passed for control in benefit]) == "no":
        return "neither"
    parts = {part: part_answer([one for one in findings if one.part == part]) for part in ("decomposer", "solver")}
    both = part_answer([one for one in findings if one.part == "both"])
    return "neither" if set(parts.values()) == {"no"} and both in ("no", "unknown") else "undecided"


def _obstacle(findings: Sequence[Finding], benefit: Sequence[Control], matrix: Matrix, reference: Cell) -> str:
    if _nothing_works(matrix):
        return f"nothing works here: 0 of {len(reference.attempts):,} right in every cell"
    return "" if findings else "nothing was distilled: no student decomposer or solver was measured"


def _nothing_works(matrix: Matrix) -> bool:
    return not any(outcomes(cell.columns, cell.metric).any() for cell in matrix.cells)


def _missing_reference(matrix: Matrix, reference: Cell | None, rule: Rule) -> str:
    if reference is not None:
        return "the undistilled pair holds no question"
    solver = matrix.reference_solver(rule)
    named = solver.name if solver else rule.solver or "solver"
    strategy = matrix.judged_strategy(rule) or "a two-stage strategy"
    return f"the undistilled pair (teacher, {named}) under {strategy} was not measured"


def _too_few_runs(reference: Cell, rule: Rule) -> str:
    there = reference.columns.seeds
    return f"{there} of {rule.runs} runs (verdict.runs) is there: pool all of them with fractionate report RUN1 RUN2 …"


def _front(matrix: Matrix, pricing: Pricing) -> list[str]:
    """Return the cells that no other beats in both outcome and cost (Pareto), cheapest first."""
    priced = [
        (mean(usd), -value_of(cell), matrix.name(cell))
        for cell in matrix.cells
        if cell.attempts and (usd := dollars(cell, cell.columns, pricing)) is not None
    ]
    front: list[tuple[float, float, str]] = []
    for entry in sorted(priced):
        if not front or entry[1] < front[-1][1]:
            front.append(entry)
    return [name for _, _, name in front]


def _of_test_set(judgement: Judgement, front: list[str], because: str) -> dict[str, Any]:
    chosen = judgement.chosen
    return {
        "dataset": judgement.dataset,
        "distill": judgement.distill,
        "because": because,
        "recommended": chosen.contrast.names[0] if chosen else None,
        "front": front,
    }


def _beyond(low: float, high: float) -> Answer:
    """Return whether an interval lies at or above 0 ("yes"), wholly below it ("no"), or holds it."""
    if low >= 0:
        return "yes"
    return "no" if high < 0 else "undecided"
