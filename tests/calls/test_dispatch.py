"""Dispatch to a model on several servers, in virtual time: shares, excluded servers, queues."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from helpers import ask, asking
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import VirtualReplicas, VirtualServer, run_virtually

from fractionate.calls.dispatch import AHEAD, Dispatcher, Route
from fractionate.calls.drive import run_all
from fractionate.calls.endpoint import FIRST_OUT_S, EndpointLimiter
from fractionate.calls.engine import Engine
from fractionate.calls.limits import InFlightSlots
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.faults import FatalFault, RateHeaders, TransientFault
from fractionate.types import Completion, Request

DOWN = TransientFault("connect", "cannot connect", systematic=True)


def servers(*allowed: int) -> list[VirtualServer]:
    return [VirtualServer(one, name=f"http://{letter}/v1#m") for one, letter in zip(allowed, "abcd", strict=False)]


def serve(
    store: Store, on: list[VirtualServer], texts: Iterable[str], heard: list[str] | None = None, **limits: Any
) -> tuple[Engine, float]:
    """Ask everything; every call has to succeed. Returns the engine and how long it took."""
    random.seed(7)  # back-offs are drawn
    engine = Engine(store, LimitsConfig(**limits), on_event=None if heard is None else heard.append)
    model = VirtualReplicas(*on)

    async def main() -> float:
        values = await run_all((asking(model, text) for text in texts), engine)
        assert all(values), "every call succeeds"
        return asyncio.get_running_loop().time()

    took = run_virtually(main())
    engine.close()
    return engine, took


def numbered(count: int) -> list[str]:
    return [f"question {number}" for number in range(count)]


def over_passages(passages: int, each: int) -> list[str]:
    return [f"Passage {one} tells much.\n\nQuestion {number}" for one in range(passages) for number in range(each)]


@pytest.mark.parametrize("allowed", [(16, 16), (4, 16), (4, 8, 16, 32), (1, 64)])
def test_every_server_is_kept_as_busy_as_it_allows(store: Store, allowed: tuple[int, ...]) -> None:
    on = servers(*allowed)
    serve(store, on, numbered(50 * sum(allowed)), concurrency=1024, attempts=30)
    full = max(server.full_at() for server in on)
    last = min(server.served[-1] for server in on) - 1.0  # at the very end some wait for their second try
    for server in on:
        assert server.busy(full, last) > 0.9
        assert len(server.served) / (50 * sum(allowed)) == pytest.approx(server.allowed / sum(allowed), rel=0.25)
        assert server.refused < 2 * server.allowed + 100


def test_a_slower_server_is_sent_fewer_though_neither_complains(store: Store) -> None:
    fast, slow = on = servers(1000, 1000)
    slow.delay_s = 4 * fast.delay_s
    serve(store, on, numbered(2000), concurrency=32)
    assert 2 < len(fast.served) / len(slow.served) < 5.5


@pytest.mark.parametrize(("concurrency", "least"), [(1024, 0.9), (24, 0.93)])
def test_what_shares_a_passage_goes_to_one_server(store: Store, concurrency: int, least: float) -> None:
    on = servers(16, 16, 16)
    serve(store, on, over_passages(200, 8), concurrency=concurrency, attempts=30)
    by_server = [Counter(request.messages[0].content.partition("\n\n")[0] for request in one.heard) for one in on]
    met = sum(count - 1 for passages in by_server for count in passages.values())
    again = sum(sum(passages.values()) for passages in by_server) - 200
    assert met / again > least


def test_where_calls_go_depends_on_the_prompt_and_the_addresses_alone() -> None:
    """With room everywhere: not on the order in which the addresses are written, nor on what came before."""

    async def where(names: str, texts: list[str]) -> dict[str, str]:
        dispatcher = Dispatcher(
            VirtualReplicas(*(VirtualServer(100, name=f"http://{one}/v1#m") for one in names)), LimitsConfig()
        )
        there = {}
        for text in texts:
            endpoint = await Route(dispatcher, ask(text)).enter(0)
            there[text] = endpoint.server.name
            endpoint.answered()
            endpoint.leave()
        return there

    texts = over_passages(20, 2)
    there = run_virtually(where("abc", texts))
    assert there == run_virtually(where("cab", texts[::-1]))
    assert [there[text] for text in texts[::2]] == [there[text] for text in texts[1::2]]
    assert len(set(there.values())) == 3


def test_calls_in_flight_keep_within_the_user_s_limit_over_all_servers(store: Store) -> None:
    under_way = most = 0

    class Watching(VirtualServer):
        async def complete(self, request: Request) -> Completion:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            completion = await super().complete(request)
            under_way -= 1
            return completion

    serve(store, [Watching(100, name=f"http://{letter}/v1#m") for letter in "abc"], numbered(500), concurrency=24)
    assert most == 24


def test_limits_a_minute_are_of_all_servers_together(store: Store) -> None:
    on = servers(1000, 1000)
    _, took = serve(store, on, numbered(1200), requests_per_minute=300)
    sent = sorted(at for server in on for at in server.served)
    assert all(len(server.served) > 300 for server in on)
    assert max(sum(start <= at < start + 59.99 for at in sent) for start in sent) <= 300
    assert took < 1.1 * 60 * 1200 / 300
    _, took = serve(store, on, [f"again {number}" for number in range(300)], tokens_per_minute=600)
    assert took > 60 * 300 * 5 / 600 - 10, "five tokens a call"


def test_a_server_that_asks_to_wait_pauses_itself_alone(store: Store) -> None:
    busy, free = on = servers(16, 16)
    busy.fault = TransientFault("429", "slow down", after_s=600, congested=True)
    engine, took = serve(store, on, numbered(200), attempts=2)
    assert len(busy.heard) <= 16, "those that were on their way when it said so"
    assert len(free.served) == 200
    assert took < 10
    assert engine.counters.failures == {}


def test_a_spent_allowance_of_one_server_pauses_it_alone(store: Store) -> None:
    spent, _ = on = servers(16, 16)
    spent.rate = RateHeaders(remaining_requests=0, reset_requests_s=100.0)
    _, took = serve(store, on, numbered(200))
    assert 0 < len(spent.served) <= 16
    assert took < 10


@pytest.mark.parametrize(
    "fault", [DOWN, FatalFault("not found", "the server does not know this model"), FatalFault("refused key", "no")]
)
def test_a_server_of_no_use_costs_no_attempt_and_is_told_once(store: Store, fault: Any) -> None:
    bad, good = on = servers(100, 100)
    bad.fault = fault
    heard: list[str] = []
    serve(store, on, numbered(3000), heard, attempts=1)  # 9 s of work
    assert len(good.served) == 3000
    trials = 0 if isinstance(fault, FatalFault) else 3  # after 1, 3 and 7 s; a wrong model is given longer
    assert len(bad.heard) <= 16 + trials
    assert [line for line in heard if "left out" in line] == [
        f"{fault.message}: left out for now, 1 of 2 servers go on"
    ]


@pytest.mark.parametrize("cause", ["500", "connection lost", "bad body"])
def test_a_server_that_keeps_failing_is_left_out_for_ever_longer(store: Store, cause: str) -> None:
    bad, good = on = servers(16, 16)
    bad.fault = TransientFault(cause, f"fails with {cause}")
    heard: list[str] = []
    serve(store, on, numbered(3000), heard, attempts=3)
    assert len(good.served) == 3000  # 40 s of work: 1 + 2 + 4 + 8 + 16 s out
    assert len(bad.heard) <= 2 * 16
    assert any("left out" in line for line in heard)


def test_a_server_that_hangs_is_left_out(store: Store) -> None:
    bad, good = on = servers(16, 16)
    bad.delay_s = 1e6
    serve(store, on, numbered(3000), timeout_s=5.0, attempts=3)
    assert len(good.served) == 3000
    assert len(bad.heard) <= 16 + 4, "those on their way, then a trial after 6, 13 and 22 s"


def test_a_server_that_is_only_busy_is_not_left_out(store: Store) -> None:
    """503 for what is too much, as some servers say it: a burst of them is no failure."""

    class Overloaded(VirtualServer):
        async def complete(self, request: Request) -> Completion:
            if self.active >= self.allowed:
                raise TransientFault("503", "overloaded", congested=True)
            return await super().complete(request)

    small, _ = on = [Overloaded(2, name="http://a/v1#m"), *servers(16, 16)[1:]]
    heard: list[str] = []
    serve(store, on, numbered(600), heard, concurrency=256, attempts=30)
    assert not [line for line in heard if "left out" in line]
    assert len(small.served) > 40


def test_a_server_that_comes_back_is_used_again(store: Store) -> None:
    gone, _ = on = servers(100, 100)
    gone.fault = DOWN
    heard: list[str] = []

    async def main() -> None:
        async def fix() -> None:
            await asyncio.sleep(10)
            gone.fault = None

        fixing = asyncio.create_task(fix())
        engine = Engine(store, LimitsConfig(concurrency=32, attempts=1), on_event=heard.append)
        values = await run_all((asking(VirtualReplicas(*on), text) for text in numbered(8000)), engine)
        assert all(values)
        await fixing
        engine.close()

    run_virtually(main())
    since = 10 + 2 * 8 * FIRST_OUT_S  # what the next trial may be away then, and some
    late = [sum(at > since for at in server.served) for server in on]
    assert late[0] / sum(late) > 0.4
    assert [line for line in heard if "answers again" in line] == ["http://a/v1#m answers again"]


def test_a_server_that_is_left_out_is_tried_in_time_though_the_other_has_no_room() -> None:
    dispatcher = Dispatcher(VirtualReplicas(*servers(1, 1)), LimitsConfig())

    async def main() -> float:
        for endpoint in dispatcher.endpoints:
            endpoint.limit = 1.0
        full = await dispatcher.enter(0, [0, 1])
        failed = await dispatcher.enter(0, [1, 0])
        failed.failed(DOWN, asyncio.get_running_loop().time())
        failed.answered()
        failed.leave()
        tried = await asyncio.wait_for(dispatcher.enter(0, [0, 1]), 10)
        assert (full, tried) == dispatcher.endpoints
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == pytest.approx(FIRST_OUT_S)


def test_when_all_are_down_the_run_stops_and_names_each(store: Store) -> None:
    on = servers(16, 16)
    for server in on:
        server.fault = TransientFault("connect", f"{server.name}: cannot connect", systematic=True)
    with pytest.raises(FractionateError) as caught:
        serve(store, on, numbered(300), attempts=3)
    said = str(caught.value)
    assert "http://a/v1#m: cannot connect; http://b/v1#m: cannot connect" in said or (
        "http://b/v1#m: cannot connect; http://a/v1#m: cannot connect" in said
    )
    assert "3 attempts" in said
    assert "\n" not in said


def test_servers_that_all_refuse_stop_the_run_at_once(store: Store) -> None:
    on = servers(16, 16)
    for server in on:
        server.fault = FatalFault("refused key", f"{server.name}: the server refuses the key")
    with pytest.raises(FractionateError, match=r"http://.*refuses the key; http://.*refuses the key"):
        serve(store, on, numbered(300), attempts=3)
    assert sum(len(server.heard) for server in on) <= 6 * 16


def test_a_dead_server_and_one_that_fails_now_and_then_do_the_work_together(store: Store) -> None:
    """All circuits may be open for a moment: the run goes on with whatever answers."""

    class Flaky(VirtualServer):
        async def complete(self, request: Request) -> Completion:
            if len(self.heard) % 50 in (46, 47, 48, 49):
                self.heard.append(request)
                raise TransientFault("500", "oops")
            return await super().complete(request)

    dead, flaky = on = [*servers(16), Flaky(16, name="http://b/v1#m")]
    dead.fault = DOWN
    serve(store, on, numbered(500), attempts=4)
    assert len(flaky.served) == 500


def test_who_waits_first_is_passed_by_within_bounds() -> None:
    """Calls that belong to the one server with room go first, but not for ever."""
    on = servers(1, 1)
    dispatcher = Dispatcher(VirtualReplicas(*on), LimitsConfig(concurrency=2))
    for endpoint in dispatcher.endpoints:
        endpoint.limit = 1.0
    own = {at: [text for text in numbered(600) if dispatcher.order(ask(text))[0] == at] for at in (0, 1)}

    async def main() -> None:
        endpoints = [await Route(dispatcher, ask(own[at][0])).enter(0) for at in (0, 1)]
        assert [endpoint.server for endpoint in endpoints] == on
        left: list[str] = []

        async def go(text: str) -> None:
            endpoint = await Route(dispatcher, ask(text)).enter(0)
            left.append(text)
            await asyncio.sleep(0.01)
            endpoint.answered()
            endpoint.leave()

        first = own[1][1]
        tasks = [asyncio.create_task(go(text)) for text in [first, *own[0][1 : 2 * AHEAD]]]
        await asyncio.sleep(0)
        endpoints[0].answered()
        endpoints[0].leave()
        await asyncio.gather(*tasks)
        assert left.index(first) == AHEAD
        endpoints[1].answered()
        endpoints[1].leave()

    run_virtually(main())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "answer", "fail", "refuse", "busy", "pause", "wait", "cancel"]), st.integers(0, 7)
    ),
    max_size=80,
)


@settings(max_examples=150)
@given(STEPS, st.integers(1, 3), st.integers(1, 6))
def test_whatever_happens_calls_leave_for_servers_that_may_be_asked(
    steps: list[tuple[str, int]], count: int, concurrency: int
) -> None:
    """Through any history: never to a full, paused or left out server while another is there; nobody waits for ever."""
    slots = InFlightSlots(concurrency)
    dispatcher = Dispatcher(VirtualReplicas(*servers(1, 1, 1)[:count]), LimitsConfig(concurrency=concurrency), slots)
    flying: list[tuple[EndpointLimiter, float]] = []
    waiting: list[asyncio.Task[EndpointLimiter]] = []

    def watch(endpoint: EndpointLimiter) -> None:
        enter = endpoint.enter

        def checked() -> None:
            now = asyncio.get_running_loop().time()
            assert endpoint.has_room
            assert slots.left
            assert endpoint.paused_until <= now
            others = [one for one in dispatcher.endpoints if one.circuit.closed]
            assert count == 1 or endpoint.circuit.takes(now) or not others
            enter()

        endpoint.enter = checked  # type: ignore[method-assign]

    def back(endpoint: EndpointLimiter) -> None:
        endpoint.answered()
        endpoint.leave()

    async def settle() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            waiting.remove(task)
            if not task.cancelled():
                flying.append((task.result(), asyncio.get_running_loop().time()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for what, number in steps:
            if what == "enter":
                waiting.append(loop.create_task(Route(dispatcher, ask(f"question {number}")).enter(0)))
            elif what == "wait":
                await asyncio.sleep(number)
            elif what == "pause":
                dispatcher.endpoints[number % count].pause(number)
            elif what == "cancel" and waiting:
                waiting.pop(number % len(waiting)).cancel()
            elif flying:
                endpoint, sent_at = flying.pop(number % len(flying))
                if what == "fail":
                    endpoint.failed(TransientFault("500", "oops"), sent_at)
                elif what == "refuse":
                    endpoint.failed(DOWN, sent_at)
                elif what == "busy":
                    endpoint.failed(TransientFault("429", "slow down", congested=True), sent_at)
                else:
                    endpoint.succeeded()
                back(endpoint)
            await settle()
        while waiting or flying:
            while flying:
                back(flying.pop()[0])
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await settle()
        assert slots.taken == 0
        assert dispatcher.in_flight == 0

    for endpoint in dispatcher.endpoints:
        watch(endpoint)
    run_virtually(main())


def test_limits_that_change_hold_from_then_on_for_all_servers(store: Store) -> None:
    on = servers(100, 100)
    engine = Engine(store, LimitsConfig(concurrency=32))
    most = 0

    async def main() -> None:
        nonlocal most
        asked = asyncio.create_task(run_all((asking(VirtualReplicas(*on), text) for text in numbered(400)), engine))
        await asyncio.sleep(1)
        assert engine.slots_taken == 32
        engine.change_limits(LimitsConfig(concurrency=6))
        await asyncio.sleep(0.5)
        while not asked.done():
            most = max(most, engine.slots_taken)
            await asyncio.sleep(0.01)
        assert all(await asked)

    run_virtually(main())
    engine.close()
    assert most == 6
