"""Exact dollars: what each role, tool, cap and machine's hour adds to a cost, one term at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from measured import STUDENT, TEACHER, cell_of, config_of

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.costs import (
    _cheaper,
    _correlation,
    _largest_usage,
    _metered,
    _meters,
    _most,
    compare_costs,
    dollars,
    net_value,
    tool_calls,
    unpriced,
)
from fractionate.analysis.findings import Cost, NetValue
from fractionate.analysis.matrix import Matrix, key_of
from fractionate.analysis.pricing import Pricing
from fractionate.statistics import CostDifference
from fractionate.types import Cell, Component, Throughput, ToolUse, Usage

PRICE = {"input_per_million": 1.0, "cached_input_per_million": 0.25, "output_per_million": 8.0}
PRICING = Pricing(config_of(prices={TEACHER: PRICE, STUDENT: PRICE}).prices)
LOOKED_UP = f"{TEACHER}[wiki]"


def used(cell: Cell, decomposed: Sequence[Usage], solved: Sequence[Usage]) -> Cell:
    attempts = zip(cell.attempts, decomposed, solved, strict=True)
    return replace(
        cell, attempts=tuple(replace(one, decomposer_usage=ours, solver_usage=theirs) for one, ours, theirs in attempts)
    )


def looking_up(calls: Sequence[int], role: str = "solver") -> Cell:
    """Return a cell whose solver (or decomposer) called the tool so often for each question."""
    cell = cell_of([1.0] * len(calls), **{role: Component("looks up", "model", role, LOOKED_UP)})
    tools = [{role: (ToolUse("wiki", count),)} for count in calls]
    return replace(cell, attempts=tuple(replace(one, tools=t) for one, t in zip(cell.attempts, tools, strict=True)))


def test_an_attempt_costs_each_kind_of_token_at_its_price() -> None:
    cell = used(cell_of([1.0, 0.0]), [Usage(1, 100, 40, 7)] * 2, [Usage(2, 1000, 0, 30), Usage(1, 11, 11, 0)])
    decomposed = (60 * 1.0 + 40 * 0.25 + 7 * 8.0) / 1e6
    assert dollars(cell, cell.columns, PRICING).tolist() == pytest.approx(
        [decomposed + (1000 + 30 * 8) / 1e6, decomposed + 11 * 0.25 / 1e6], abs=1e-12
    )


def test_dollars_below_what_adding_floats_leaves_are_rounded_away() -> None:
    tiny = Pricing(config_of(prices={TEACHER: {"input_per_million": 1e-6, "output_per_million": 0.0}}).prices)
    cell = used(cell_of([1.0] * 3), [Usage()] * 3, [Usage(1, read, 0, 0) for read in (0, 1, 7)])
    assert dollars(cell, cell.columns, tiny).tolist() == [0.0, 1e-12, 7e-12]


def priced_tools(per_call: float | None) -> Pricing:
    prices = config_of(prices={TEACHER: PRICE, LOOKED_UP: PRICE}).prices
    return Pricing(prices, tools={} if per_call is None else {"wiki": per_call})


def test_a_tools_calls_cost_their_price_and_without_a_price_nothing() -> None:
    cell = looking_up([0, 2, 5])
    bare = dollars(cell, cell.columns, priced_tools(None))
    assert tool_calls(cell.columns, cell.solver)["wiki"].tolist() == [0, 2, 5]
    assert tool_calls(cell.columns, Component("t", "model", "solver", "tool:wiki")) == {}
    assert dollars(cell, cell.columns, priced_tools(0.01)).tolist() == pytest.approx(
        bare + np.asarray([0.0, 0.02, 0.05])
    )
    both = replace(looking_up([1, 1]), decomposer=Component("l", "model", "decomposer", LOOKED_UP))
    tools = {role: (ToolUse("wiki", 1), ToolUse("other", 9)) for role in ("decomposer", "solver")}
    both = replace(both, attempts=tuple(replace(one, tools=tools) for one in both.attempts))
    extra = dollars(both, both.columns, priced_tools(0.01)) - dollars(both, both.columns, priced_tools(None))
    assert extra.tolist() == pytest.approx([0.02, 0.02]), "the calls of both roles"


def test_a_tool_with_a_price_has_no_cap_and_one_without_needs_none() -> None:
    cell = looking_up([0, 2])
    for price, most in ((0.01, None), (None, 0.0)):
        pricing = priced_tools(price)
        tool = dict(_metered(cell, cell.columns, pricing, 1, {}))["tool:wiki"]
        assert (tool.most, tool.rates, list(tool.amounts)) == (most, 1.0, pytest.approx([0.0, 2 * (price or 0.0)]))
        assert tool.by_seed is None


def test_the_most_of_a_question_is_its_longest_prompt_and_a_reply_at_its_cap() -> None:
    cell = used(
        cell_of([1.0] * 3), [Usage(1, 100 + n, 0, 7) for n in range(3)], [Usage(2, 90, 0, 30 + n) for n in range(3)]
    )
    assert _largest_usage(cell.columns, "solver", 64, 5) == Usage(2, 95, 0, 64)
    assert _largest_usage(cell.columns, "decomposer", 7, 0) == Usage(1, 102, 0, 7)
    assert _largest_usage(cell.columns, "decomposer", 6, 0) is None
    assert _largest_usage(cell.columns, "decomposer", None, 0) is None
    unasked = used(cell_of([1.0]), [Usage(0, 0, 0, 0)], [Usage(1, 5, 0, 0)])
    assert _largest_usage(unasked.columns, "decomposer", 0, 0) == Usage(1, 0, 0, 0)
    empty = cell_of([])
    assert _largest_usage(empty.columns, "solver", 9, 0) == Usage(1, 0, 0, 9)


def test_most_is_at_least_what_was_seen_and_known_without_a_cap_where_tokens_are_free() -> None:
    free, dear = (lambda usage: 0.0), (lambda usage: float(usage.output_tokens))
    some, none = np.asarray([2.0, 9.0]), np.zeros(2)
    assert _most(dear, some, Usage(1, 0, 0, 5)) == 9.0
    assert _most(dear, some, Usage(1, 0, 0, 50)) == 50.0
    assert _most(free, none, None) == 0.0
    assert _most(dear, none, None) is None
    assert _most(free, some, None) is None


def test_a_solvers_prompt_has_room_for_a_decomposition_at_its_cap() -> None:
    caps = {"decomposer": 70, "solver": 200}
    for cell, room in ((cell_of([1.0] * 2), 70), (cell_of([1.0] * 2, "single", "none"), 0)):
        parts = _metered(cell, cell.columns, PRICING, 1, {key_of(cell): caps})
        most = [part.most for _, part in parts]
        assert most[-1] == pytest.approx((301 + room + 200 * 8) / 1e6)
        assert len(most) == 2
    cell = cell_of([1.0] * 2)
    (_, decomposing), (_, solving) = _metered(cell, cell.columns, PRICING, 1, {key_of(cell): {"solver": 200}})
    assert decomposing.most is None
    assert solving.most == pytest.approx((301 + 200 * 8) / 1e6), "no cap of the decomposer, so no room for it"


def test_a_machines_hour_is_metered_only_where_it_has_a_price_and_a_speed() -> None:
    speed = Throughput(input_per_s=(100.0,), output_per_s=(10.0,), cores=2)
    for per_hour, known, meters in ((3.6, True, 3), (0.0, True, 1), (3.6, False, 1)):
        prices = config_of(prices={STUDENT: {"per_hour": per_hour}}).prices
        found = _meters(STUDENT, Pricing(prices, throughput={STUDENT: speed} if known else {}))
        assert len(found) == meters
    found = _meters(
        STUDENT, Pricing(config_of(prices={STUDENT: {"per_hour": 3.6}}).prices, throughput={STUDENT: speed})
    )
    assert [rates for _, rates in found] == [
        1.0,
        pytest.approx([3.6 / 3600 / 2 / 100]),
        pytest.approx([3.6 / 3600 / 2 / 10]),
    ]
    assert [amount(Usage(1, 30, 10, 5)) for amount, _ in found] == [0.0, 30.0, 5.0]


def test_the_first_model_without_a_price_is_named_first() -> None:
    cell = used(cell_of([1.0] * 3), [Usage(), Usage(1, 5, 0, 5), Usage(1, 5, 0, 5)], [Usage(1, 5, 0, 5)] * 3)
    unknown = [Component("x", "model", role, f"openai:no-{role}") for role in ("decomposer", "solver")]
    cell = replace(cell, decomposer=unknown[0], solver=unknown[1])
    named = unpriced([cell], PRICING)
    assert set(named) == {"openai:no-decomposer", "openai:no-solver"}
    assert unpriced([cell_of([1.0])], PRICING) == ()
    both = used(cell, [Usage(1, 5, 0, 5)] * 3, [Usage(1, 5, 0, 5)] * 3)
    assert unpriced([both], PRICING) == ("openai:no-decomposer", "openai:no-solver")


def found(a: float, b: float, low: float, high: float, ratio_low: float, ratio_high: float) -> CostDifference:
    return CostDifference(a, b, a - b, low, high, math.nan, ratio_low, ratio_high, 10, 0)


@pytest.mark.parametrize(
    ("difference", "answer"),
    [
        (found(1.0, 1.0, -1.0, 1.0, 0.5, 0.9), "no"),
        (found(1.0, 2.0, -2.0, 0.5, 0.4, 0.999), "yes"),
        (found(1.0, 2.0, -2.0, -0.5, 0.4, 1.0), "undecided"),
        (found(2.0, 1.0, 0.1, 2.0, 0.999, 2.0), "undecided"),
        (found(2.0, 1.0, -0.1, 2.0, 1.0, 2.0), "no"),
        (found(0.0, 1.0, -2.0, -0.1, 0.0, math.inf), "yes"),
        (found(0.0, 1.0, -2.0, 0.0, 0.0, 0.5), "undecided"),
        (found(1.0, 0.0, 0.0, 2.0, 0.0, 0.5), "no"),
        (found(1.0, 0.0, -0.1, 2.0, 0.0, 0.5), "undecided"),
    ],
)
def test_cheaper_goes_by_the_ratio_and_by_the_difference_where_one_costs_nothing(
    difference: CostDifference, answer: str
) -> None:
    assert _cheaper(difference) == answer


def outcome_of(difference: float, low: float, high: float) -> Contrast:
    cells = cell_of([1.0, 0.0, 1.0], decomposer="D-R"), cell_of([1.0, 0.0, 0.0])
    whole = contrast(Matrix("atlas", cells), *cells, 0.95)
    return replace(whole, difference=difference, ci_low=low, ci_high=high)


@pytest.mark.parametrize(
    ("correlation", "least", "most"),
    [
        (0.0, -math.hypot(0.1 * 0.02, 0.003), math.hypot(0.2 * 0.02, 0.001)),
        (1.0, -abs(0.1 * 0.02 - 0.003), abs(0.2 * 0.02 - 0.001)),
        (-1.0, -(0.1 * 0.02 + 0.003), 0.2 * 0.02 + 0.001),
        (0.5, -math.sqrt(0.002**2 + 0.003**2 - 0.002 * 0.003), math.sqrt(0.004**2 + 0.001**2 - 0.004 * 0.001)),
    ],
)
def test_the_net_values_interval_joins_both_by_squares_with_their_correlation(
    correlation: float, least: float, most: float
) -> None:
    cost = Cost(0.1, 0.1, 0.005, 0.004, 0.008, "undecided", correlation=correlation)
    net = net_value(outcome_of(0.3, 0.2, 0.5), cost, 0.02)
    assert (net.usd, net.ci_low, net.ci_high) == (
        pytest.approx(0.001),
        pytest.approx(0.001 + least),
        pytest.approx(0.001 + most),
    )
    assert net.answer == NetValue("undecided").answer or correlation == 1.0


def test_a_net_value_without_a_known_cost_is_unknown_and_without_its_interval_undecided() -> None:
    outcome = outcome_of(0.3, 0.2, 0.5)
    assert net_value(outcome, Cost(None, 0.1, cheaper="unknown"), 0.02) == NetValue()
    for bounds in ((None, 0.008), (0.004, None)):
        cost = Cost(0.1, 0.1, 0.005, *bounds, "undecided")
        assert net_value(outcome, cost, 0.02) == NetValue("undecided", pytest.approx(0.001))
    certain = Cost(0.1, 0.1, 0.0, 0.0, 0.0, "no")
    assert net_value(outcome_of(0.0, 0.0, 0.0), certain, 0.02).answer == "no", "0 is no gain"


def test_outcome_and_cost_go_together_over_questions() -> None:
    solved = [Usage(1, 0, 0, tokens) for tokens in (10, 20, 30, 40)]
    none = [Usage()] * 4
    a, b = used(cell_of([0.0, 0.0, 1.0, 1.0]), none, solved), used(cell_of([0.0] * 4), none, [Usage(1, 0, 0, 5)] * 4)
    costs = dollars(a, a.columns, PRICING) - dollars(b, b.columns, PRICING)
    expected = np.corrcoef([0, 0, 1, 1], [10, 20, 30, 40])[0, 1]
    assert _correlation(a, b, a.columns, b.columns, costs) == pytest.approx(expected)
    assert _correlation(b, a, b.columns, a.columns, costs) == pytest.approx(-expected)
    assert _correlation(a, b, a.columns, b.columns, np.ones(4)) == 0.0
    assert _correlation(b, b, b.columns, b.columns, costs) == 0.0
    two = [replace(cell, attempts=cell.attempts[1:3]) for cell in (a, b)]
    assert _correlation(*two, *(cell.columns for cell in two), costs[1:3]) == 0.0
    three = [replace(cell, attempts=cell.attempts[1:]) for cell in (a, b)]
    assert _correlation(*three, *(cell.columns for cell in three), costs[1:]) == pytest.approx(
        np.corrcoef([0, 1, 1], [20, 30, 40])[0, 1]
    )
    assert compare_costs(a, b, PRICING, 0.95).correlation == pytest.approx(expected)


def test_a_comparison_says_each_figure_of_its_two_sides() -> None:
    none = [Usage()] * 4
    a = used(cell_of([1.0] * 4, decomposer="D-R"), none, [Usage(1, 0, 0, tokens) for tokens in (10, 20, 30, 40)])
    b = used(cell_of([1.0] * 4), none, [Usage(1, 0, 0, tokens) for tokens in (40, 50, 40, 70)])
    cost = compare_costs(a, b, PRICING, 0.9)
    assert (cost.usd, cost.reference_usd) == (pytest.approx(25 * 8e-6), pytest.approx(50 * 8e-6))
    assert (cost.difference, cost.ratio, cost.rounds) == (pytest.approx(-25 * 8e-6), pytest.approx(0.5), 0)
    assert cost.confidence == 0.9
    assert cost.uncapped == (STUDENT, TEACHER)
    other = replace(b, attempts=tuple(replace(one, problem=replace(one.problem, id="x")) for one in b.attempts[:1]))
    apart = compare_costs(a, other, PRICING, 0.9)
    assert (apart.cheaper, apart.difference) == ("unknown", None), "no question in common"
