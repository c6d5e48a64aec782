"""The batch endpoint gives what direct calls give, is resumed after a restart, and survives partial failures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from helpers import ask, asking

from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig
from fractionate.errors import FractionateError
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.batch import OpenAIBatchModel
from fractionate.models.tokens import input_bound
from servers.batch_server import BatchServer


async def ask_all(
    server: BatchServer, store: Store, texts: list[str], largest: int = 50_000
) -> tuple[list[str], Engine]:
    model = OpenAIBatchModel(OpenAIModel(server.name), store, poll_s=0.01, largest=largest)
    try:
        async with Engine(store) as engine:
            return await run_all((asking(model, text, f"{text} again") for text in texts), engine), engine
    finally:
        await model.close()


def test_a_batch_gives_what_direct_calls_give_under_the_same_keys(tmp_path: Path) -> None:
    texts = [f"q{number}" for number in range(12)]

    async def main() -> None:
        async with BatchServer() as server:
            with Store(tmp_path / "batch.sqlite") as store:
                batched, engine = await ask_all(server, store, texts, largest=5)
                assert server.created == 6  # 12 questions in batches of 5, twice
                assert engine.counters.sent == 24
                direct = OpenAIModel(server.name)
                sent_before = len(server.bodies)
                async with Engine(store) as again:
                    replies = await run_all((asking(direct, text, f"{text} again") for text in texts), again)
                assert replies == batched
                assert len(server.bodies) == sent_before  # all from the store
                await direct.close()
            with Store(tmp_path / "direct.sqlite") as store:
                direct = OpenAIModel(server.name)
                async with Engine(store) as fresh:
                    replies = await run_all((asking(direct, text, f"{text} again") for text in texts), fresh)
                assert replies == batched
                await direct.close()

    asyncio.run(main())


def test_a_restart_polls_the_batch_it_has_paid_for(store: Store) -> None:
    async def main() -> None:
        async with BatchServer(polls=10**9) as server:
            task = asyncio.create_task(ask_all(server, store, ["a", "b"]))
            while not store.open_batches(OpenAIModel(server.name).identity) or not server.created:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.polls = 1
            values, engine = await ask_all(server, store, ["a", "b"])
            assert all(values)
            assert server.asked["a"] == server.asked["b"] == 1
            assert engine.counters.sent == 2  # the second step alone
            assert store.open_batches(OpenAIModel(server.name).identity) == []

    asyncio.run(main())


def test_a_batch_whose_id_was_never_heard_is_found_again(store: Store) -> None:
    async def main() -> None:
        async with BatchServer(polls=1) as server:
            server.lose_reply = True
            with pytest.raises(FractionateError, match="connection lost"):
                await ask_all(server, store, ["a"])
            values, _ = await ask_all(server, store, ["a"])
            assert all(values)
            assert server.asked["a"] == 1

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["fail", "drop", "expire"])
def test_what_a_batch_leaves_unanswered_is_submitted_again(store: Store, fault: str) -> None:
    async def main() -> None:
        async with BatchServer(polls=1) as server:
            values, engine = await ask_all(server, store, ["fine", f"[{fault}] q"])
            assert all(len(value) == 25 for value in values)
            assert server.asked["fine"] == 1
            assert server.asked[f"[{fault}] q"] == 2
            assert not engine.counters.failures

    asyncio.run(main())


def test_a_rejected_row_fails_alone(store: Store) -> None:
    async def main() -> None:
        async with BatchServer(polls=1) as server:
            model = OpenAIBatchModel(OpenAIModel(server.name), store, poll_s=0.01)
            engine = Engine(store)
            await run_all([asking(model, "[reject] q"), asking(model, "fine")], engine)
            assert engine.counters.failures.total() == 1
            assert store.get(model.key(ask("fine"))) is not None
            assert store.get(model.key(ask("[reject] q"))) is None
            await model.close()

    asyncio.run(main())


def test_a_refused_batch_stops_the_run_in_one_line(store: Store) -> None:
    async def main() -> None:
        async with BatchServer() as server:
            server.fail_create = True
            with pytest.raises(FractionateError, match="billing limit") as caught:
                await ask_all(server, store, ["a"])
            assert "\n" not in str(caught.value)

    asyncio.run(main())


def test_a_batch_holds_only_what_the_cap_has_room_for(store: Store) -> None:
    async def main() -> None:
        async with BatchServer(polls=1) as server:
            model = OpenAIBatchModel(OpenAIModel(server.name), store, poll_s=0.01)
            each = input_bound(ask("q0")) + 16
            async with Engine(store, budget=BudgetConfig(tokens=3 * each)) as engine:
                with pytest.raises(BudgetReached):
                    await run_all((asking(model, f"q{n}") for n in range(40)), engine)
            usages = [call.completion.usage for call in store.calls()]
            assert 3 <= len(usages) == server.asked.total() < 40
            assert sum(usage.input_tokens + usage.output_tokens for usage in usages) <= 3 * each
            await model.close()

    asyncio.run(main())
