"""Coroutines run concurrently; batches depend on the coroutines alone; an interrupted run resumes to equal results."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import ask, asking
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.calls.drive import Call, run_all, run_with, stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, SingleModel
from fractionate.models.openai.api import OpenAIModel
from fractionate.types import Completion, Request
from servers.chat_server import ChatServer


class Batched(BatchModel):
    """A model in this process whose replies depend on the whole batch, as padded local generation does."""

    def __init__(self, size: int = 4, fail_at: int | None = None, name: str = "local:x") -> None:
        self.name = self.identity = name
        self.size = size
        self.fail_at = fail_at
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        order = sorted(range(len(requests)), key=lambda row: (len(requests[row].messages[0].content), row))
        return [order[start : start + self.size] for start in range(0, len(order), self.size)]

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        self.threads.add(threading.get_ident())
        if len(self.batches) == self.fail_at:
            raise MemoryError("out of memory")
        texts = [request.messages[0].content for request in requests]
        self.batches.append(texts)
        whole = hashlib.sha256("|".join(texts).encode()).hexdigest()[:6]
        return [Completion(f"{text}@{whole}") for text in texts]


class Instant(SingleModel):
    """A model of one call at a time, which may take a while for some questions."""

    name = identity = "echo:"

    def __init__(self, slow: str = "") -> None:
        self.slow = slow
        self.order: list[str] = []

    async def complete(self, request: Request) -> Completion:
        text = request.messages[0].content
        await asyncio.sleep(0.2 if text == self.slow else 0)
        self.order.append(text)
        return Completion(text.upper())


def run(programs: Any, store: Store, window: int = 4096) -> list[Any]:
    async def main() -> list[Any]:
        async with Engine(store) as engine:
            return await run_all(programs, engine, window)

    return asyncio.run(main())


def test_values_come_in_order_whatever_finishes_first(store: Store) -> None:
    model = Instant(slow="a")
    assert run((asking(model, text) for text in "abc"), store) == ["A", "B", "C"]
    assert model.order == ["b", "c", "a"]


def test_one_slow_call_does_not_hold_up_the_rest(store: Store) -> None:
    model = Instant(slow="0")
    run((asking(model, str(number), f"{number}!") for number in range(50)), store)
    assert model.order[-2:] == ["0", "0!"]


def test_lists_of_calls_come_back_in_their_order(store: Store) -> None:
    def program(single: Instant, batch: Batched) -> Any:
        replies = yield [Call(batch, ask("b")), Call(single, ask("s")), Call(batch, ask("c"))]
        nothing = yield []
        return [reply.text[0] for reply in replies], nothing

    assert run([program(Instant(), Batched())], store) == [(["b", "S", "c"], [])]


def test_the_window_bounds_live_programs(store: Store) -> None:
    live, most = 0, 0

    def program(model: Instant, text: str) -> Any:
        nonlocal live, most
        live += 1
        most = max(most, live)
        yield [Call(model, ask(text))]
        live -= 1

    model = Instant()
    run((program(model, str(number)) for number in range(100)), store, window=7)
    assert most == 7


def test_programs_are_made_as_they_are_needed(store: Store) -> None:
    made = 0

    def programs() -> Iterator[Any]:
        nonlocal made
        while True:  # endless: only a stream can take it
            made += 1
            yield asking(Instant(), str(made))

    async def main() -> None:
        stream = stream_all(programs(), Engine(store), window=10)
        assert [await anext(stream) for _ in range(3)] == ["1", "2", "3"]
        await stream.aclose()

    asyncio.run(main())
    assert made <= 13


def test_batches_are_gathered_over_all_programs(store: Store) -> None:
    model, helper = Batched(size=100), Instant(slow="3")

    def program(number: int) -> Any:
        if number % 2:
            yield [Call(helper, ask(str(number)))]
        (first,) = yield [Call(model, ask(f"q{number}"))]
        return first.text

    run((program(number) for number in range(10)), store)
    assert model.batches == [[f"q{number}" for number in range(10)]]
    assert threading.get_ident() not in model.threads


def test_equal_requests_of_a_batch_are_generated_once(store: Store) -> None:
    model = Batched()
    values = run((asking(model, "same") for _ in range(5)), store)
    assert model.batches == [["same"]]
    assert len(set(values)) == 1
    assert len(store) == 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=12), st.data())
def test_resuming_equals_never_having_been_interrupted(
    tmp_path_factory: pytest.TempPathFactory, questions: list[list[int]], data: st.DataObject
) -> None:
    """Whichever batch dies, the second run ends with the results and batches of an uninterrupted one."""
    folder = tmp_path_factory.mktemp("resume")
    window = data.draw(st.integers(1, 12))

    def programs(model: Batched) -> list[Any]:
        return [asking(model, *("x" * number for number in numbers)) for numbers in questions]

    whole = Batched(size=3)
    with Store(folder / "whole.sqlite") as store:
        expected = run(programs(whole), store, window)
    dies_at = data.draw(st.integers(0, len(whole.batches) - 1))
    with Store(folder / "halved.sqlite") as store:
        broken = Batched(size=3, fail_at=dies_at)
        with pytest.raises(FractionateError, match="out of memory"):
            run(programs(broken), store, window)
        rest = Batched(size=3)
        assert run(programs(rest), store, window) == expected
        assert broken.batches + rest.batches == whole.batches
        again = Batched(size=3)
        assert run(programs(again), store, window) == expected
        assert again.batches == []


def test_a_program_that_fails_ends_the_run_and_closes_the_others(store: Store) -> None:
    closed = []

    def bad() -> Any:
        yield [Call(Instant(), ask("bad"))]
        raise ValueError("a bug in a strategy")

    def waiting() -> Any:
        try:
            yield [Call(Instant(slow="w"), ask("w"))]
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="a bug"):
        run([waiting(), bad()], store)
    assert closed == [True]
    assert len(store) == 2  # what was in flight came back and was kept


def test_cancelling_keeps_what_comes_back_within_the_grace(store: Store) -> None:
    """Ctrl-C cancels the main task: calls in flight are stored, nothing new is sent."""

    async def main() -> ChatServer:
        async with ChatServer(delay_s=0.3) as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, LimitsConfig(concurrency=4))
            task = asyncio.create_task(run_all((asking(model, str(n), f"{n}!") for n in range(100)), engine))
            while server.active < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await model.close()
            return server

    server = asyncio.run(main())
    assert server.asked.total() == 4
    assert len(store) == 4


def test_cancelling_leaves_a_batch_at_the_next_safe_point(store: Store) -> None:
    class Interruptible(Batched):
        stop = False

        def interrupt(self) -> None:
            self.stop = True

        def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
            while not self.stop:
                time.sleep(0.01)
            raise FractionateError("interrupted")

    model = Interruptible()

    async def main() -> None:
        task = asyncio.create_task(run_all([asking(model, "q")], Engine(store)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert model.stop
    assert len(store) == 0


def test_identical_requests_in_flight_are_sent_once(store: Store) -> None:
    async def main() -> tuple[Engine, ChatServer]:
        async with ChatServer(delay_s=0.05) as server:
            model = OpenAIModel(server.name)
            engine = Engine(store)
            values = await run_all((asking(model, "same") for _ in range(20)), engine)
            assert len(set(values)) == 1
            await model.close()
            return engine, server

    engine, server = asyncio.run(main())
    assert server.asked.total() == 1
    assert engine.counters.joined == 19
    assert len(store) == 1


def test_samples_of_one_request_are_rows_of_their_own(store: Store) -> None:
    async def main() -> ChatServer:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store)
            await asyncio.gather(*(engine.complete(model, ask("q", sample=n, temperature=0.7)) for n in range(5)))
            await model.close()
            return server

    assert asyncio.run(main()).asked.total() == 5
    assert len(store) == 5


def test_a_caller_that_goes_away_does_not_take_the_paid_call_along(store: Store) -> None:
    async def main() -> ChatServer:
        async with ChatServer(delay_s=0.1) as server:
            model = OpenAIModel(server.name)
            engine = Engine(store)
            gone = asyncio.create_task(engine.complete(model, ask("q")))
            stays = asyncio.create_task(engine.complete(model, ask("q")))
            await asyncio.sleep(0.02)
            gone.cancel()
            assert (await stays).finish_reason == "stop"
            await model.close()
            return server

    assert asyncio.run(main()).asked.total() == 1


def test_a_second_run_makes_no_calls(tmp_path: Path) -> None:
    async def main(store: Store) -> tuple[list[str], Engine]:
        async with Engine(store) as engine:
            model = OpenAIModel(server.name)
            values = await run_all((asking(model, f"{n}", f"{n}?") for n in range(30)), engine)
            await model.close()
            return values, engine

    async def both() -> None:
        nonlocal server
        async with ChatServer() as server:
            with Store(tmp_path / "calls.sqlite") as store:
                first, _ = await main(store)
            with Store(tmp_path / "calls.sqlite") as store:
                second, engine = await main(store)
            assert first == second
            assert server.asked.total() == 60
            assert engine.counters.sent == 0
            assert engine.counters.served == 60

    server: Any = None
    asyncio.run(both())


def test_a_coroutine_that_yields_bare_calls_runs_with_a_line_that_names_the_new_form() -> None:
    def old_form(model: Instant) -> Any:
        first = yield Call(model, ask("a"))
        second, third = yield [Call(model, ask(text)) for text in ("b", "c")]
        last = yield Call(model, ask("d"))
        return [first.text, second.text, third.text, last.text]

    with pytest.warns(FutureWarning, match=r"old_form yields a bare Call.*\(completion,\) = yield \[call\]"):
        values = run_with(old_form(Instant()), lambda call: Completion(call.request.messages[0].content))
    assert values == ["a", "b", "c", "d"]
