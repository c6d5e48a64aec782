"""What a pair costs per question, and whether another costs less: dollars by the token and by the machine's hour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from fractionate.analysis.contrasts import Contrast, mean, pair_up
from fractionate.analysis.corrections import differences_of
from fractionate.analysis.findings import Cost, NetValue
from fractionate.analysis.matrix import key_of
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import NO_CAPS, Caps
from fractionate.columns import Columns, tool_column
from fractionate.config.addresses import TOOL, tools_of
from fractionate.statistics import CostDifference, Metered, metered_difference
from fractionate.types import ROLES, Cell, Component, Role, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Places = NDArray[np.int64]

Cheaper = Literal["yes", "no", "undecided", "unknown"]
_DOLLAR_DIGITS = 12
"""Dollars are rounded to 1e-12: below that they are what adding floats in another order leaves."""
_ANY, _A_CALL = Usage(1, 1000, 0, 1000), Usage(calls=1)
_PRICED = ("calls", "input_tokens", "cached_input_tokens", "output_tokens")


def dollars(cell: Cell, columns: Columns, pricing: Pricing) -> Array | None:
    """Return the dollars of each attempt, both roles together; None where any price is not known."""
    import numpy as np

    (decomposed, mine), (solved, theirs) = (_used(columns, role) for role in ROLES)
    tools = _of_tools(cell, columns, pricing)
    by_decomposer = [pricing.usd(cell.decomposer.model, usage) for usage in decomposed]
    by_solver = [pricing.usd(cell.solver.model, usage) for usage in solved]
    pairs, places = np.unique(mine * max(len(solved), 1) + theirs, return_inverse=True)
    totals = []
    for pair in pairs.tolist():
        parts = [by_decomposer[pair // len(solved)], by_solver[pair % len(solved)]]
        if None in parts:
            return None
        totals.append(round(sum(part for part in parts if part is not None), _DOLLAR_DIGITS))
    return sum(tools.values(), np.asarray(totals, dtype=np.float64)[places])


def tool_calls(columns: Columns, component: Component) -> dict[str, Array]:
    """Return the calls of each tool that a component's model uses, an entry an attempt.

    A tool that is the component itself is not among them: its calls are the component's own.
    """
    tools = () if component.model.startswith(TOOL) else tools_of(component.model)
    return {tool: columns.column(tool_column(component.role, tool, "calls")) for tool in tools}


def _of_tools(cell: Cell, columns: Columns, pricing: Pricing) -> dict[str, Array]:
    """Return the dollars of each tool that a model of the cell uses, an entry an attempt."""
    found: dict[str, Array] = {}
    for component in (cell.decomposer, cell.solver):
        for tool, calls in tool_calls(columns, component).items():
            name = f"{TOOL}{tool}"
            found[name] = found.get(name, 0.0) + calls * (pricing.usd(name, _A_CALL) or 0.0)
    return found


def unpriced(cells: Sequence[Cell], pricing: Pricing) -> tuple[str, ...]:
    """Return the models of cells whose dollars are not known, in the order in which attempts used them."""
    import numpy as np

    found: dict[str, None] = {}
    for cell in cells:
        first: list[tuple[int, int, str]] = []
        for place, component in enumerate((cell.decomposer, cell.solver)):
            distinct, places = _used(cell.columns, component.role)
            unknown = [number for number, usage in enumerate(distinct) if pricing.usd(component.model, usage) is None]
            if unknown:
                first.append((int(np.isin(places, unknown).argmax()), place, component.model))
        found |= dict.fromkeys(model for *_, model in sorted(first))
    return tuple(found)


def compare_costs(a: Cell, b: Cell, pricing: Pricing, confidence: float, caps: Caps = NO_CAPS) -> Cost:
    """Return what a costs beside b over the questions they share; without an unknown price also the difference.

    `caps` are the most output tokens of a question, by cell and role. With them the interval allows for replies that
    run on to their cap and were not seen; `uncapped` names the models without one.
    """
    mine, theirs = pair_up(a, b)
    ours, others = dollars(a, mine, pricing), dollars(b, theirs, pricing)
    if ours is None or others is None or not len(mine):
        return Cost(None if ours is None else mean(ours), None if others is None else mean(others), cheaper="unknown")
    seeds = max(len(mine.runs), len(theirs.runs))
    metered_a, metered_b = _metered(a, mine, pricing, seeds, caps), _metered(b, theirs, pricing, seeds, caps)
    found = metered_difference(
        [part for _, part in metered_a], [part for _, part in metered_b], confidence, mine.clusters
    )
    uncapped = dict.fromkeys(model for model, part in (*metered_a, *metered_b) if part.most is None)
    return Cost(
        found.a,
        found.b,
        round(found.difference, _DOLLAR_DIGITS),
        _finite(found.low),
        _finite(found.high),
        _cheaper(found),
        found.rounds,
        _finite(found.ratio),
        _finite(found.ratio_low),
        _finite(found.ratio_high),
        confidence,
        tuple(uncapped),
        _correlation(a, b, mine, theirs, ours - others),
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


def _metered(cell: Cell, columns: Columns, pricing: Pricing, seeds: int, caps: Caps) -> list[tuple[str, Metered]]:
    """Return what each role takes, with its model: dollars by the token (at rate 1), tokens at the machine's dollars.

    Its most is that of a question whose replies reach their caps. The longest prompt is the longest that was seen, with
    room for a decomposition at its cap.
    """
    parts: list[tuple[str, Metered]] = []
    runs = columns.runs if seeds > 1 and len(columns.runs) == seeds else []
    capped = caps.get(key_of(cell), {})
    for component in (cell.decomposer, cell.solver):
        room = capped.get("decomposer", 0) if component.role == "solver" and cell.decomposer.model else 0
        largest = _largest_usage(columns, component.role, capped.get(component.role), room)
        for amount, rates in _meters(component.model, pricing):
            amounts = _amounts(columns, component.role, amount)
            by_seed = [mean(_amounts(run, component.role, amount)) for run in runs] if runs else None
            parts.append((component.model, Metered(amounts, rates, _most(amount, amounts, largest), by_seed)))
    seeds_of_tools = [_of_tools(cell, run, pricing) for run in runs]
    for tool, spent in _of_tools(cell, columns, pricing).items():
        most = None if pricing.usd(tool, _A_CALL) else 0.0
        parts.append((tool, Metered(spent, 1.0, most, [mean(run[tool]) for run in seeds_of_tools] or None)))
    return parts


def _largest_usage(columns: Columns, role: Role, cap: int | None, room: int) -> Usage | None:
    """Return the usage of a question whose replies reach their cap; None where there is none, or it does not hold."""
    calls, read, written = (columns.column(f"{role}_{name}") for name in ("calls", "input_tokens", "output_tokens"))
    if cap is None or written.max(initial=0) > cap:
        return None
    return Usage(max(math.ceil(calls.max(initial=1)), 1), int(read.max(initial=0)) + room, 0, cap)


def _most(amount: Callable[[Usage], float], amounts: Array, largest: Usage | None) -> float | None:
    """Return the most that a question can take. Without a cap it is known where tokens take nothing."""
    if largest is not None:
        return max(amount(largest), float(amounts.max()))
    return 0.0 if not amounts.any() and amount(_ANY) == 0 else None


def _amounts(columns: Columns, role: Role, amount: Callable[[Usage], float]) -> Array:
    import numpy as np

    distinct, places = _used(columns, role)
    return np.asarray([amount(usage) for usage in distinct], dtype=np.float64)[places]


def _used(columns: Columns, role: Role) -> tuple[list[Usage], Places]:
    """Return the distinct usages of one role, as far as prices depend on them, and which of them each attempt has."""
    import numpy as np

    amounts = [columns.column(f"{role}_{name}") for name in _PRICED]
    places = np.zeros(len(columns), dtype=np.int64)
    for each in amounts:
        values, numbers = np.unique(each, return_inverse=True)
        places = np.unique(places * len(values) + numbers, return_inverse=True)[1]
    _, first = np.unique(places, return_index=True)
    rows = zip(*(each[first].tolist() for each in amounts), strict=True)
    return [Usage(calls, read, cached, written) for calls, read, cached, written in rows], places


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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def net_value(outcome: Contrast, cost: Cost, usd_per_correct: float) -> NetValue:
    """Return what a is worth beside b, per question, at the dollars that one more right answer is worth.

    The interval joins those of outcome and cost by squares (MOVER: Zou & Donner, Statist. Med. 27 (2008) 1693), with
    the correlation of the two over questions, so that rare losses, passages, seeds and caps count here as they do for
    outcome and cost alone. "unknown" where a price is not known.
    """
    if cost.difference is None:
        return NetValue()
    net = usd_per_correct * outcome.difference - cost.difference
    if cost.ci_low is None or cost.ci_high is None:
        return NetValue("undecided", net)
    together = cost.correlation
    least = net - _joined(
        usd_per_correct * (outcome.difference - outcome.ci_low), cost.ci_high - cost.difference, together
    )
    most = net + _joined(
        usd_per_correct * (outcome.ci_high - outcome.difference), cost.difference - cost.ci_low, together
    )
    return NetValue("yes" if least > 0 else "no" if most <= 0 else "undecided", net, least, most)


def _joined(of_outcome: float, of_cost: float, correlation: float) -> float:
    """Return the distance of the bound of a difference: outcome less cost, which cancel where they go together."""
    square = of_outcome**2 + of_cost**2 - 2 * correlation * of_outcome * of_cost
    return math.sqrt(max(square, 0.0))


def _correlation(a: Cell, b: Cell, mine: Columns, theirs: Columns, costs: Array) -> float:
    """Return the correlation of the differences in outcome and in dollars over questions; 0 where one is constant."""
    import numpy as np

    differences = differences_of(mine, theirs, a.metric).values
    if len(costs) < 3 or np.ptp(costs) == 0 or np.ptp(differences) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(differences, costs)[0, 1], -1.0, 1.0))
