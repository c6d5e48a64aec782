"""What a pair costs per question, and whether another costs less: dollars by the token and by the machine's hour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from fractionate.analysis.contrasts import Contrast, clusters_of, mean, pair_up
from fractionate.analysis.findings import Cost
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.statistics import CostDifference, Metered, metered_difference
from fractionate.types import Attempt, Cell, Component, Usage

Cheaper = Literal["yes", "no", "undecided", "unknown"]
_DOLLAR_DIGITS = 12
"""Dollars are rounded to 1e-12: below that they are what adding floats in another order leaves."""


def dollars(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing) -> list[float] | None:
    """Return the dollars of each attempt, both roles together; None where any price is not known."""
    models = (cell.decomposer.model, cell.solver.model)
    known: dict[tuple[Usage, Usage], float] = {}
    totals = []
    for attempt in attempts:
        usages = (attempt.decomposer_usage, attempt.solver_usage)
        total = known.get(usages)
        if total is None:
            parts = [pricing.usd(model, usage) for model, usage in zip(models, usages, strict=True)]
            if None in parts:
                return None
            total = known[usages] = round(sum(part for part in parts if part is not None), _DOLLAR_DIGITS)
        totals.append(total)
    return totals


def unpriced(cells: Sequence[Cell], pricing: Pricing) -> tuple[str, ...]:
    """Return the models of cells whose dollars are not known."""
    used = dict.fromkeys(
        (component.model, usage)
        for cell in cells
        for attempt in cell.attempts
        for component, usage in _roles(cell, attempt)
    )
    return tuple(dict.fromkeys(model for model, usage in used if pricing.usd(model, usage) is None))


def compare_costs(a: Cell, b: Cell, pricing: Pricing, confidence: float) -> Cost:
    """Return what a costs beside b over the questions they share; without an unknown price also the difference."""
    mine, theirs = pair_up(a, b)
    ours, others = dollars(a, mine, pricing), dollars(b, theirs, pricing)
    if ours is None or others is None or not mine:
        return Cost(None if ours is None else mean(ours), None if others is None else mean(others), cheaper="unknown")
    seeds = max(len(attempt.usage_by_run) for attempt in (*mine, *theirs))
    found = metered_difference(
        _metered(a, mine, pricing, seeds), _metered(b, theirs, pricing, seeds), confidence, clusters_of(mine)
    )
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


def _metered(cell: Cell, attempts: Sequence[Attempt], pricing: Pricing, seeds: int) -> list[Metered]:
    """Return what each role takes: dollars by the token (at rate 1), tokens at the machine's dollars per token."""
    parts: list[Metered] = []
    for place, component in enumerate((cell.decomposer, cell.solver)):
        usages = [_roles(cell, attempt)[place][1] for attempt in attempts]
        runs: list[list[Usage]] = []
        if seeds > 1 and len(attempts[0].usage_by_run) == seeds:
            runs = [[attempt.usage_by_run[seed][place] for attempt in attempts] for seed in range(seeds)]
        parts += metered(pricing, component.model, usages, runs)
    return parts


def metered(
    pricing: Pricing, model: str, usages: Sequence[Usage], runs: Sequence[Sequence[Usage]] = ()
) -> list[Metered]:
    """Return what a model takes, one usage per question: dollars by the token (at rate 1), and tokens by machine time.

    The rates of machine time are dollars per token, one for each round that the model's throughput was measured in.
    `runs` are the usages of each pooled run, from which seeds get a mean each.
    """
    parts = []
    for amount, rates in _meters(model, pricing):
        by_seed = [mean([amount(usage) for usage in run]) for run in runs] if runs else None
        parts.append(Metered([amount(usage) for usage in usages], rates, None, by_seed))
    return parts


def _meters(model: str, pricing: Pricing) -> list[tuple[Callable[[Usage], float], float | list[float]]]:
    """Return what is metered of a model's usage, each with its dollars per unit or those of each calibration round."""
    known: dict[Usage, float] = {}

    def by_tokens(usage: Usage) -> float:
        usd = known.get(usage)
        if usd is None:
            usd = known[usage] = round(pricing.by_tokens(model, usage) or 0.0, _DOLLAR_DIGITS)
        return usd

    meters: list[tuple[Callable[[Usage], float], float | list[float]]] = [(by_tokens, 1.0)]
    throughput, per_hour = pricing.throughput(model), pricing.per_hour(model)
    if throughput is not None and per_hour:
        per_core_second = per_hour / 3600 / throughput.cores
        meters += [
            (lambda usage: float(usage.input_tokens), [per_core_second / rate for rate in throughput.input_per_s]),
            (lambda usage: float(usage.output_tokens), [per_core_second / rate for rate in throughput.output_per_s]),
        ]
    return meters


def _roles(cell: Cell, attempt: Attempt) -> tuple[tuple[Component, Usage], tuple[Component, Usage]]:
    return (cell.decomposer, attempt.decomposer_usage), (cell.solver, attempt.solver_usage)


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def net_benefit(outcome: Contrast, cost: Cost, usd_per_correct: float | None) -> tuple[Cheaper, float | None]:
    """Return whether a is worth more than b to somebody who gives so much for a right answer, and by how many dollars.

    It is where the least that its outcome may be worth is more than the most that it may cost: two bounds, each of its
    own interval, so that rare losses, passages and seeds count here as they do for the outcome alone, however outcome
    and cost go together. ("unknown", None) where no value was given or a price is not known.
    """
    if usd_per_correct is None or cost.difference is None:
        return "unknown", None
    net = usd_per_correct * outcome.difference - cost.difference
    if cost.ci_low is None or cost.ci_high is None:
        return "undecided", net
    least = usd_per_correct * outcome.ci_low - cost.ci_high
    most = usd_per_correct * outcome.ci_high - cost.ci_low
    return "yes" if least > 0 else "no" if most <= 0 else "undecided", net
