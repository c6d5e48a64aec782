"""A forecast counts what is still to be paid, bounds it, and refuses to start past a cap."""

from __future__ import annotations

import asyncio

import pytest
from helpers import FlatPricing, ask, asking

from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.forecast import forecast, plan_stage
from fractionate.calls.status import StatusLine
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.tokens import input_bound
from servers.chat_server import ChatServer

NAME = "http://127.0.0.1:9/v1#test"


def test_calls_tokens_and_dollars_add_up() -> None:
    model = OpenAIModel(NAME)
    requests = [ask(f"question {number % 10}", max_tokens=100) for number in range(20)]
    stage = plan_stage("solve", model, requests, expected_output=lambda _: 30)
    assert (stage.calls, stage.stored, stage.expected_output_tokens, stage.most_output_tokens) == (10, 0, 300, 1000)
    told = forecast([stage, stage], LimitsConfig(concurrency=5), FlatPricing(0.001))
    assert told.calls == 20
    assert told.usd() == pytest.approx(2 * 0.001 * (stage.input_tokens + 300), rel=0.01)
    assert told.most_usd == pytest.approx(2 * 0.001 * sum(input_bound(one) + 100 for one in requests[:10]))
    assert told.usd("decomposer") == 0
    assert told.seconds == pytest.approx(2 * 10 * stage.seconds_a_call / 5)
    assert any("solve" in line for line in told.lines())


def test_a_forecast_over_the_cap_refuses_to_start() -> None:
    stage = plan_stage("solve", OpenAIModel(NAME), [ask("q")], expected_output=lambda _: 10)
    told = forecast([stage], LimitsConfig(), FlatPricing(1.0))
    told.check(BudgetConfig())
    told.check(BudgetConfig(usd=1000.0, tokens=1000))
    for caps, name in ((BudgetConfig(usd=1.0), "usd"), (BudgetConfig(tokens=3), "tokens")):
        with pytest.raises(FractionateError, match=rf"passes budget\.{name} .*nothing has been sent"):
            told.check(caps)


def test_a_model_without_a_price_says_so() -> None:
    stage = plan_stage("solve", OpenAIModel(NAME), [ask("q")])
    told = forecast([stage], LimitsConfig(), FlatPricing(1.0, NAME))
    assert told.stages[0].expected_usd is None
    assert told.usd() is None
    assert told.most_usd is None
    assert "$" not in told.lines()[-1]
    assert f"dollars unknown (no price known for {NAME})" in told.lines()[-1]
    assert told.as_json()["expected_usd"] is None
    with pytest.raises(UsageError, match="no price is known"):
        told.check(BudgetConfig(usd=1000.0))


def test_limits_a_minute_lengthen_the_time() -> None:
    stage = plan_stage("solve", OpenAIModel(NAME), [ask(f"q{n}") for n in range(120)])
    assert forecast([stage], LimitsConfig(requests_per_minute=60)).seconds == pytest.approx(120)


def test_what_is_stored_costs_nothing_and_the_bound_holds(store: Store) -> None:
    """The forecast of a run's own requests bounds what the run then uses; afterwards it is zero calls."""
    spoken: list[str] = []

    async def main() -> None:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            requests = [ask(str(number)) for number in range(30)]
            before = plan_stage("solve", model, requests, store)
            async with Engine(store) as engine, StatusLine(engine, spoken.append, every_s=0.01):
                await run_all((asking(model, str(number)) for number in range(30)), engine)
                await asyncio.sleep(0.05)
            after = plan_stage("solve", model, requests, store)
            assert (before.calls, after.calls, after.stored) == (30, 0, 30)
            assert engine.counters.usage_by_role()["solver"].output_tokens <= before.most_output_tokens
            await model.close()

    asyncio.run(main())
    assert spoken[-1].startswith("30 calls")
