"""Which part to distill: the rule of docs/verdict.md, applied to measured cells. Change both or neither."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fractionate.analysis.findings import (
    Answer,
    Benefit,
    Distill,
    Finding,
    Judgement,
    Part,
    cheapest,
    part_answer,
)
from fractionate.analysis.pairs import (
    TestSet,
    by_test_set,
    has_student_decomposer,
    has_student_solver,
    judged_strategy,
    outcomes,
    pair_up,
    reference_solver,
    undistilled,
)
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.sentence import because
from fractionate.analysis.statistics import Interval, mean_t_interval, paired_difference, sample_size
from fractionate.config import Config
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


def decide(cells: Iterable[Cell], pricing: Pricing, config: Config) -> Verdict:
    """Judge every test set by the rule of docs/verdict.md; over several, the answer is theirs only if they agree."""
    judged = [_judge(test, pricing, config) for test in by_test_set(cells)]
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
            "margin_points": config.verdict.margin,
            "confidence": config.verdict.confidence,
            "one_sided_level": (1 - config.verdict.confidence) / 2,
            "power": 0.8,
            "document": "docs/verdict.md",
        },
    )


def _judge(test: TestSet, pricing: Pricing, config: Config) -> Judgement:
    strategy = judged_strategy(test, config)
    reference = undistilled(test, strategy, config)
    if reference is None or not reference.attempts:
        return Judgement(test.label, "undecided", obstacle=_missing_reference(test, strategy, reference, config))
    benefit = _benefit(test, reference, config)
    found = _findings(test, reference, pricing, config)
    parts = {part: [one for one in found if one.part == part] for part in ("decomposer", "solver", "pair")}
    distill, chosen, pair_failed = _combine(parts["decomposer"], parts["solver"], parts["pair"])
    unpriced = _unpriced(test, [reference, *_candidates(test, reference, config)], pricing)
    obstacle = "" if found else "nothing was distilled: no student decomposer or solver was measured"
    return Judgement(test.label, distill, tuple(found), chosen, pair_failed, benefit, obstacle, unpriced)


def _missing_reference(test: TestSet, strategy: str, reference: Cell | None, config: Config) -> str:
    if reference is not None:
        return "the undistilled pair holds no question"
    wanted = f"(teacher, {reference_solver(test, config) or 'solver'}) under {strategy or 'a two-stage strategy'}"
    return f"the undistilled pair {wanted} was not measured"


def _candidates(test: TestSet, reference: Cell, config: Config) -> list[Cell]:
    return [
        cell
        for cell in test.two_stage()
        if cell is not reference and cell.strategy == reference.strategy and _part(cell, reference, config)
    ]


def _part(cell: Cell, reference: Cell, config: Config) -> Part | None:
    """Return which part of the undistilled pair a cell replaces by a student, None if it does something else."""
    student_decomposer, student_solver = has_student_decomposer(cell, config), has_student_solver(cell, config)
    if student_decomposer and student_solver:
        return "pair"
    if student_decomposer and cell.solver == reference.solver:
        return "decomposer"
    if student_solver and cell.decomposer == reference.decomposer:
        return "solver"
    return None


def _findings(test: TestSet, reference: Cell, pricing: Pricing, config: Config) -> list[Finding]:
    candidates = [(cell, _part(cell, reference, config)) for cell in _candidates(test, reference, config)]
    found = []
    for part in ("decomposer", "solver", "pair"):
        cells = [cell for cell, replaced in candidates if replaced == part and cell.attempts]
        # Bonferroni: each of k candidates of a part has k chances to pass by luck.
        confidence = 1 - (1 - config.verdict.confidence) / max(len(cells), 1)
        found += [_finding(test, part, cell, reference, confidence, pricing, config) for cell in cells]
    return found


def _finding(
    test: TestSet, part: Part, cell: Cell, reference: Cell, confidence: float, pricing: Pricing, config: Config
) -> Finding:
    mine, theirs = pair_up(cell, reference)
    ours, others = outcomes(mine, cell.metric), outcomes(theirs, cell.metric)
    outcome = paired_difference(ours, others, confidence)
    margin = config.verdict.margin / 100
    non_inferior = _beyond(outcome.low + margin, outcome.high + margin)
    usd, reference_usd = dollars(cell, mine, pricing), dollars(reference, theirs, pricing)
    saved = _dollar_differences(usd, reference_usd)
    usd_ci = mean_t_interval(saved, confidence) if saved is not None else None
    cheaper = _cheaper(usd_ci)
    worth = _both(non_inferior, cheaper)
    needed: list[int | None] = []
    if worth == "undecided" and non_inferior == "undecided":
        distance = outcome.difference + margin
        room = 1 + outcome.difference if distance > 0 else 1 - outcome.difference
        needed.append(sample_size(distance, outcome.variance, confidence, room=room))
    if worth == "undecided" and cheaper == "undecided":
        needed.append(_dollar_sample_size(saved or [], confidence))
    if cheaper == "unknown":
        needed.append(None)
    known = [n for n in needed if n is not None]
    decided_at = max(max(known), len(mine) + 1) if known and len(known) == len(needed) else None
    return Finding(
        test.label, part, cell.strategy, cell.decomposer, cell.solver, test.name(cell), test.name(reference),
        len(mine), _mean(ours), _mean(others), outcome.difference, outcome.low, outcome.high, confidence, margin,
        _mean(usd) if usd is not None else None,
        _mean(reference_usd) if reference_usd is not None else None,
        _mean(saved) if saved is not None else None,
        _finite(usd_ci.low) if usd_ci else None,
        _finite(usd_ci.high) if usd_ci else None,
        non_inferior, cheaper, worth, decided_at,
    )  # fmt: skip


def dollars(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing) -> list[float] | None:
    """Return the dollars of each attempt, both roles together; None where any price is not known."""
    totals = []
    for attempt in attempts:
        decomposing = pricing.usd(cell.decomposer_model, attempt.decomposer_usage)
        solving = pricing.usd(cell.solver_model, attempt.solver_usage)
        if decomposing is None or solving is None:
            return None
        totals.append(decomposing + solving)
    return totals


def _dollar_differences(a: list[float] | None, b: list[float] | None) -> list[float] | None:
    if a is None or b is None:
        return None
    return [round(mine - theirs, _DOLLAR_DIGITS) for mine, theirs in zip(a, b, strict=True)]


def _dollar_sample_size(differences: list[float], confidence: float) -> int | None:
    if len(differences) < 2:
        return 2
    mean = _mean(differences)
    variance = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    return sample_size(mean, variance, confidence, room=None)


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


def _benefit(test: TestSet, reference: Cell, config: Config) -> Benefit | None:
    baselines = [cell for cell in test.single_stage(reference.solver) if cell.attempts]
    if not baselines:
        return None
    best = max(baselines, key=lambda cell: _mean(cell.values()))
    mine, theirs = pair_up(reference, best)
    ours, others = outcomes(mine, reference.metric), outcomes(theirs, reference.metric)
    found = paired_difference(ours, others, config.verdict.confidence)
    helps: Answer = "yes" if found.low > 0 else "no" if found.high < 0 else "undecided"
    return Benefit(
        test.label, reference.strategy, best.strategy, test.name(reference), test.name(best),
        len(mine), _mean(ours), _mean(others), found.difference, found.low, found.high,
        config.verdict.confidence, helps,
    )  # fmt: skip


def _unpriced(test: TestSet, cells: Sequence[Cell], pricing: Pricing) -> tuple[str, ...]:
    """Return the models of the judged pairs whose dollars are not known."""
    names = []
    for cell in cells:
        for attempt in cell.attempts:
            names += [
                model
                for model, usage in (
                    (cell.decomposer_model, attempt.decomposer_usage),
                    (cell.solver_model, attempt.solver_usage),
                )
                if pricing.usd(model, usage) is None
            ]
    return tuple(dict.fromkeys(names))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
