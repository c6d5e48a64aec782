"""What a pair costs per question, and whether another costs less: dollars by the token and by the machine's hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fractionate.analysis.contrasts import clusters_of, mean, outcomes, pair_up
from fractionate.analysis.findings import Cost
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.statistics import CostDifference, Metered, metered_difference
from fractionate.types import Attempt, Cell, Component, Usage

Cheaper = Literal["yes", "no", "undecided", "unknown"]
_DOLLAR_DIGITS = 12
"""Dollars are rounded to 1e-12: below that they are what adding floats in another order leaves."""


def dollars(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing) -> list[float] | None:
    """Return the dollars of each attempt, both roles together; None where any price is not known."""
    totals = []
    for attempt in attempts:
        parts = [pricing.usd(component.model, usage) for component, usage in _roles(cell, attempt)]
        if None in parts:
            return None
        totals.append(round(sum(part for part in parts if part is not None), _DOLLAR_DIGITS))
    return totals


def unpriced(cells: Sequence[Cell], pricing: Pricing) -> tuple[str, ...]:
    """Return the models of cells whose dollars are not known."""
    names = [
        component.model
        for cell in cells
        for attempt in cell.attempts
        for component, usage in _roles(cell, attempt)
        if pricing.usd(component.model, usage) is None
    ]
    return tuple(dict.fromkeys(names))


def compare_costs(a: Cell, b: Cell, pricing: Pricing, confidence: float) -> Cost:
    """Return what a costs beside b over the questions they share; without an unknown price also the difference."""
    mine, theirs = pair_up(a, b)
    ours, others = dollars(a, mine, pricing), dollars(b, theirs, pricing)
    if ours is None or others is None or not mine:
        return Cost(None if ours is None else mean(ours), None if others is None else mean(others), cheaper="unknown")
    found = metered_difference(_metered(a, mine, pricing), _metered(b, theirs, pricing), confidence, clusters_of(mine))
    return Cost(
        found.a,
        found.b,
        round(found.difference, _DOLLAR_DIGITS),
        _finite(found.low),
        _finite(found.high),
        _cheaper(found),
        found.rounds,
    )


def _cheaper(found: CostDifference) -> Cheaper:
    """Return whether a is cheaper, by the ratio of both costs: what slows the whole machine cancels in it."""
    if found.a == found.b:
        return "no"
    low, high = found.ratio_low - 1, found.ratio_high - 1
    if not (found.a > 0 and found.b > 0):
        low, high = found.low, found.high
    if high < 0:
        return "yes"
    return "no" if low >= 0 else "undecided"


def _metered(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing) -> list[Metered]:
    """Return what each role takes: dollars by the token (at rate 1), tokens at the machine's dollars per token."""
    return [
        part
        for place, component in enumerate((cell.decomposer, cell.solver))
        for part in metered(pricing, component.model, [_roles(cell, attempt)[place][1] for attempt in attempts])
    ]


def metered(pricing: Pricing, model: str, usages: Sequence[Usage]) -> list[Metered]:
    """Return what a model takes, one usage a question: dollars by the token (at rate 1), and tokens by machine time.

    The rates of machine time are dollars per token, one for each round that the model's throughput was measured in.
    """
    parts = [Metered([_by_tokens(pricing, model, usage) for usage in usages], 1.0)]
    throughput, per_hour = pricing.throughput(model), pricing.per_hour(model)
    if throughput is not None and per_hour:
        per_core_second = per_hour / 3600 / throughput.cores
        for amounts, rates in (
            ([float(usage.input_tokens) for usage in usages], throughput.input_per_s),
            ([float(usage.output_tokens) for usage in usages], throughput.output_per_s),
        ):
            parts.append(Metered(amounts, [per_core_second / rate for rate in rates]))
    return parts


def _by_tokens(pricing: Pricing, model: str, usage: Usage) -> float:
    return round(pricing.by_tokens(model, usage) or 0.0, _DOLLAR_DIGITS)


def _roles(cell: Cell, attempt: Attempt) -> tuple[tuple[Component, Usage], tuple[Component, Usage]]:
    return (cell.decomposer, attempt.decomposer_usage), (cell.solver, attempt.solver_usage)


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def net_benefit(
    a: Cell, b: Cell, pricing: Pricing, usd_per_correct: float | None, confidence: float
) -> tuple[Cheaper, float | None]:
    """Return whether a is worth more than b to somebody who gives so much for a right answer, and by how many dollars.

    A wrong answer is charged like any other unit; the pair that loses less in all is worth more. ("unknown", None)
    where no value was given or a price is not known.
    """
    mine, theirs = pair_up(a, b)
    if usd_per_correct is None or not mine or unpriced([a, b], pricing):
        return "unknown", None
    sides = [
        [
            *_metered(cell, attempts, pricing),
            Metered([1 - value for value in outcomes(attempts, a.metric)], usd_per_correct),
        ]
        for cell, attempts in ((a, mine), (b, theirs))
    ]
    found = metered_difference(sides[0], sides[1], confidence, clusters_of(mine))
    answer: Cheaper = "yes" if found.high < 0 else "no" if found.low >= 0 else "undecided"
    return answer, -found.difference
