"""The cap is never passed, for any config and any server reply: the bill is the server's own.

Every test bills as a provider would, by its own count, and compares that with the cap at the end.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web
from helpers import ask, asking

from fractionate.analysis.pricing import Pricing
from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store, StoredCall
from fractionate.cli import main
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions, PriceConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import SingleModel
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.batch import OpenAIBatchModel
from fractionate.models.tokens import input_bound
from fractionate.types import Completion, Request, Usage
from servers.batch_server import BatchServer
from servers.chat_server import ChatServer

INPUT_USD, OUTPUT_USD = 1e-5, 1e-4
PRICES = PriceConfig(input_per_million=10.0, output_per_million=100.0)


class Billing(ChatServer):
    """A server that says what `usage_of` makes of a body, and bills what `bill_of` makes of it."""

    def __init__(self, usage_of: Callable[[dict[str, Any]], Any], bill_of: Callable[[dict[str, Any]], float]) -> None:
        super().__init__()
        self.usage_of = usage_of
        self.bill_of = bill_of
        self.billed = 0.0

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        await asyncio.sleep(0.002)
        self.billed += self.bill_of(body)
        message = {"role": "assistant", "content": "It is four."}
        reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": self.usage_of(body)}
        return web.json_response(reply)


def size(body: dict[str, Any]) -> int:
    """Return the bytes of all that a body asks to be read: no vocabulary makes more tokens of it."""
    return len(json.dumps([body["messages"], body.get("tools")]).encode())


def plain(body: dict[str, Any]) -> dict[str, int]:
    inputs, outputs = size(body) // 4, body["max_tokens"]
    return {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}


def bill(usage: dict[str, Any]) -> float:
    return float(INPUT_USD * usage["prompt_tokens"] + OUTPUT_USD * usage["completion_tokens"])


def spend(
    store: Store,
    server: Billing,
    cap: float,
    *,
    options: ModelOptions | None = None,
    prices: PriceConfig = PRICES,
    starts: int = 1,
) -> str:
    """Ask 400 questions under a cap, `starts` times; return what ended it ("" if nothing did)."""

    async def ask_all(model: OpenAIModel) -> str:
        limits, budget = LimitsConfig(concurrency=16, attempts=2), BudgetConfig(usd=cap)
        try:
            async with Engine(store, limits, budget, Pricing({server.name: prices}), run="r") as engine:
                await run_all((asking(model, f"question {number}") for number in range(400)), engine)
        except FractionateError as error:
            return str(error)
        return ""

    async def work() -> str:
        async with server:
            model = OpenAIModel(server.name, options)
            try:
                ends = [await ask_all(model) for _ in range(starts)]
            finally:
                await model.close()
            return ends[-1]

    return asyncio.run(work())


def test_a_server_that_keeps_to_its_word_is_billed_up_to_the_cap(store: Store) -> None:
    server = Billing(plain, lambda body: bill(plain(body)))
    said = spend(store, server, 0.2)
    assert "budget.usd is reached" in said
    assert 0.19 < server.billed <= 0.2


@pytest.mark.parametrize(
    "extra",
    [
        {"max_tokens": 100_000},
        {"max_completion_tokens": 100_000},
        {"n": 100},
        {"best_of": 20},
        {"messages": []},
        {"model": "dearer"},
    ],
)
def test_what_multiplies_the_cost_of_a_call_is_refused_unsent(extra: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"extra_body\.{next(iter(extra))} cannot be set") as caught:
        OpenAIModel("http://127.0.0.1:9/v1#m", ModelOptions(extra_body=extra))
    assert "\n" not in str(caught.value)
    OpenAIModel("http://127.0.0.1:9/v1#m", ModelOptions(extra_body={"n": 1, "top_p": 0.5}))


def test_tools_count_as_part_of_the_prompt(store: Store) -> None:
    tools = [{"type": "function", "function": {"name": f"f{n}", "description": "x" * 200}} for n in range(50)]
    server = Billing(plain, lambda body: bill(plain(body)))
    said = spend(store, server, 0.5, options=ModelOptions(extra_body={"tools": tools}))
    assert "budget.usd is reached" in said
    assert 0 < server.billed <= 0.5


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
        {"models": ["dearer"]},
        {"service_tier": "priority"},
    ],
)
def test_what_makes_the_cost_unknowable_is_refused_under_a_cap(store: Store, extra: dict[str, Any]) -> None:
    server = Billing(plain, lambda body: 1000.0)
    said = spend(store, server, 0.5, options=ModelOptions(extra_body=extra))
    assert "cannot be known beforehand" in said
    assert server.billed == 0


def apart_by_total(body: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": size(body) // 4, "completion_tokens": 4}
    return {**usage, "total_tokens": usage["prompt_tokens"] + 4 + body["max_tokens"] // 2}


def apart_by_details(body: dict[str, Any]) -> dict[str, Any]:
    details = {"reasoning_tokens": body["max_tokens"] // 2}
    return {"prompt_tokens": size(body) // 4, "completion_tokens": 4, "completion_tokens_details": details}


@pytest.mark.parametrize("usage_of", [apart_by_total, apart_by_details])
def test_thoughts_beside_the_output_are_paid_for_too(store: Store, usage_of: Callable[[Any], Any]) -> None:
    server = Billing(usage_of, lambda body: INPUT_USD * (size(body) // 4) + OUTPUT_USD * (4 + body["max_tokens"] // 2))
    assert "budget.usd is reached" in spend(store, server, 0.2)
    assert 0.15 < server.billed <= 0.2
    assert {call.completion.usage.output_tokens for call in store.calls()} == {4 + 8}


def test_cached_input_may_cost_more_than_fresh(store: Store) -> None:
    def usage_of(body: dict[str, Any]) -> dict[str, Any]:
        return {**plain(body), "prompt_tokens_details": {"cached_tokens": plain(body)["prompt_tokens"]}}

    dear = PriceConfig(input_per_million=10.0, cached_input_per_million=10_000.0, output_per_million=100.0)
    server = Billing(usage_of, lambda body: 1e-2 * plain(body)["prompt_tokens"] + 1e-4 * body["max_tokens"])
    assert "budget.usd is reached" in spend(store, server, 20.0, prices=dear)
    assert 10 < server.billed <= 20.0


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": 10**15, "completion_tokens": 1}])
def test_a_server_that_does_not_say_what_it_used_may_have_used_all_it_could(store: Store, usage: Any) -> None:
    """It bills a token per byte, as some vocabularies of other scripts do; the estimate is a quarter of that."""
    server = Billing(lambda _: usage, lambda body: INPUT_USD * size(body) + OUTPUT_USD * body["max_tokens"])
    assert "budget.usd is reached" in spend(store, server, 0.2, starts=3)
    assert 0 < server.billed <= 0.2


def test_usage_that_no_model_can_have_is_not_booked(store: Store) -> None:
    server = Billing(lambda _: {"prompt_tokens": 20, "completion_tokens": 10**15}, lambda _: 0.0)
    spend(store, server, 1000.0)
    for call in store.calls():
        assert call.completion.usage.output_tokens < 100
        assert call.completion.usage.counted == 1


def test_a_server_that_writes_more_than_it_may_is_stopped_at_its_first_reply(store: Store) -> None:
    def usage_of(body: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_tokens": size(body) // 4, "completion_tokens": 100 * body["max_tokens"]}

    server = Billing(usage_of, lambda body: bill(usage_of(body)))
    said = spend(store, server, 3.0)
    assert "used" in said
    assert "max_tokens = 16" in said
    assert "\n" not in said
    assert server.asked.total() <= 16, "those in flight at the first, and no more"
    assert len(store) == server.asked.total(), "what was paid for is kept"


class Paid(SingleModel):
    """A provider that bills all that a call may cost; `billed` is its book."""

    paid = True
    name = identity = "openai:paid"

    def __init__(self) -> None:
        self.billed = 0

    async def complete(self, request: Request) -> Completion:
        used = Usage(1, input_bound(request), 0, request.max_tokens)
        self.billed += used.input_tokens + used.output_tokens
        return Completion("paid", usage=used)


def test_purging_does_not_refill_a_budget(tmp_path: Path) -> None:
    model, path = Paid(), tmp_path / "calls.sqlite"
    each = input_bound(ask("question 10")) + 16

    async def work(store: Store, run: str, scope: Literal["store", "run"] = "store") -> None:
        async with Engine(store, budget=BudgetConfig(tokens=5 * each, scope=scope), run=run) as engine:
            await run_all((asking(model, f"question {number}") for number in range(50)), engine)

    for run in ("r", "r", "another"):
        with Store(path) as store, pytest.raises(BudgetReached):
            asyncio.run(work(store, run))
        assert model.billed <= 5 * each
        assert main(["store", "purge", str(path), "--all", "--yes"]) == 0
    with Store(path) as store, pytest.raises(BudgetReached):
        asyncio.run(work(store, "another", "run"))
    assert 5 * each < model.billed <= 10 * each, "a run with a cap of its own"


def test_one_run_s_calls_serve_another_and_are_paid_for_once(tmp_path: Path) -> None:
    model = Paid()

    async def work(run: str) -> int:
        with Store(tmp_path / "calls.sqlite") as store:
            async with Engine(store, budget=BudgetConfig(tokens=10**6), run=run) as engine:
                await run_all((asking(model, f"question {number}") for number in range(20)), engine)
                return engine.budget.total_tokens()

    first = asyncio.run(work("first"))
    assert first == model.billed
    assert asyncio.run(work("second")) == first, "the cap is the store's"
    assert model.billed == first


def test_calls_that_cost_nothing_do_not_count_after_a_restart(tmp_path: Path) -> None:
    """A recorded teacher beside a paid solver: only the solver's calls are of the budget, before and after."""
    completion = Completion("x", usage=Usage(1, 10**6, 0, 10**6))
    with Store(tmp_path / "calls.sqlite") as store:
        store.put_many([StoredCall("ff", "recorded:x", "recorded:x", "r", ask("old"), completion, paid=False)])
        Engine(store, budget=BudgetConfig(usd=1.0, tokens=100), pricing=Pricing({}), run="r").close()


async def ask_in_batches(store: Store, server: BatchServer, cap: int, calls: int, killed: bool = False) -> Engine:
    model = OpenAIBatchModel(OpenAIModel(server.name), store, poll_s=0.01)
    engine = Engine(store, budget=BudgetConfig(tokens=cap), run="r")
    try:
        await run_all((asking(model, f"q{number}") for number in range(calls)), engine)
        return engine
    finally:
        await model.close()
        # Of a killed process the kernel drops the locks, and nothing else is done.
        engine._locks.close() if killed else engine.close()


def test_a_batch_that_is_cut_off_again_and_again_is_held_once(store: Store) -> None:
    """13 interruptions, half of them as kills leave them: the reservation outlives its process, and the next has it."""

    async def work() -> None:
        cap = 12 * (input_bound(ask("q1")) + 16)
        async with BatchServer(polls=10**9) as server:
            for number in range(13):
                task = asyncio.create_task(ask_in_batches(store, server, cap, 10, killed=number % 2 == 0))
                while not server.created:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                held = store.held("r")["solver"].tokens
                assert held == 10 * (input_bound(ask("q1")) + 16)
            assert server.created == 1
            server.polls = 1
            engine = await ask_in_batches(store, server, cap, 10)
            used = sum(
                call.completion.usage.input_tokens + call.completion.usage.output_tokens for call in store.calls()
            )
            assert engine.budget.total_tokens() == used
            assert store.held("r")["solver"].tokens == 0
            assert server.created == 1

    asyncio.run(work())


def test_what_another_link_to_the_store_spends_counts(tmp_path: Path) -> None:
    """Two engines that reach one file by two names exclude each other, as two processes do."""
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "calls.sqlite", tmp_path / "link.sqlite"
    with Store(path) as store:
        link.symlink_to(path)
        first = Engine(store, budget=BudgetConfig(usd=1.0), pricing=Pricing({}), run="r")
        with Store(link) as other, pytest.raises(FractionateError, match="another process spends the budget"):
            Engine(other, budget=BudgetConfig(usd=1.0), pricing=Pricing({}), run="r")
        first.close()


def test_a_store_of_two_names_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "calls.sqlite").close()
    (tmp_path / "other.sqlite").hardlink_to(tmp_path / "calls.sqlite")
    with pytest.raises(FractionateError, match="2 hard links"):
        Store(tmp_path / "other.sqlite")


def test_a_file_of_locks_that_cannot_be_had_stops_the_run(tmp_path: Path) -> None:
    with Store(tmp_path / "calls.sqlite") as store:
        store.locks.mkdir()
        with pytest.raises(FractionateError, match="cannot be locked"):
            Engine(store, budget=BudgetConfig(usd=1.0), pricing=Pricing({}), run="r")
        model = Paid()
        with pytest.raises(FractionateError, match="cannot be locked"):
            asyncio.run(run_all([asking(model, "q")], Engine(store)))
        assert model.billed == 0


def test_locks_that_are_deleted_midway_do_not_let_a_second_spender_in(tmp_path: Path) -> None:
    """The second may begin; the first then notices before its next call."""
    model = Paid()
    each = input_bound(ask("question 10")) + 16
    path = tmp_path / "calls.sqlite"
    with Store(path) as store, Store(path) as other:
        first = Engine(store, budget=BudgetConfig(tokens=10 * each), run="r")
        asyncio.run(first.complete(model, ask("question 1")))  # type: ignore[arg-type]  # a coroutine
        store.locks.unlink()
        second = Engine(other, budget=BudgetConfig(tokens=10 * each), run="r")
        with pytest.raises(FractionateError, match="was deleted, and another process"):
            asyncio.run(first.complete(model, ask("question 2")))  # type: ignore[arg-type]  # a coroutine
        with pytest.raises(BudgetReached):
            asyncio.run(run_all((asking(model, f"question {n}") for n in range(30)), second))
        second.close()
        first.close()
    assert model.billed <= 10 * each


def test_what_was_spent_survives_a_move_to_the_newest_schema(tmp_path: Path) -> None:
    """Rows of before know nothing of who paid: what is local or recorded cost nothing, all else did."""
    from fractionate.calls import store_file

    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    for step in store_file.STEPS[:3]:
        for statement in step:
            connection.execute(statement)
    for key, model in (("a", "openai:m"), ("b", "local:m"), ("c", "recorded:r.jsonl"), ("d", "http://h/v1#m")):
        values = (key, model, model, "r", "solver", "{}", "old", "", "stop", "", 1, 2, 0, 3, 0, 0.0, 0, 0.1, 9.0)
        connection.execute(f"INSERT INTO calls VALUES ({', '.join('?' * 19)})", values)
    connection.execute("PRAGMA user_version = 3")
    connection.commit()
    connection.close()
    with Store(path) as store:
        assert sorted(spent.model for spent in store.spent("r")) == ["http://h/v1#m", "openai:m"]
