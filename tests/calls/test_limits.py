"""An endpoint limiter keeps its server busy, backs off when it complains, and never passes the user's limits."""

from __future__ import annotations

import asyncio

import pytest
from helpers import asking
from hypothesis import given
from hypothesis import strategies as st

from fractionate.calls.dispatch import Dispatcher
from fractionate.calls.drive import run_all
from fractionate.calls.endpoint import EndpointLimiter
from fractionate.calls.engine import Engine
from fractionate.calls.limits import (
    BURST_S,
    LONGEST_BACKOFF_S,
    SLOT_S,
    WINDOW_S,
    InFlightSlots,
    SlidingWindow,
    TokenBucket,
    backoff,
)
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.models.echo import EchoModel
from fractionate.models.openai.api import OpenAIModel
from servers.chat_server import ChatServer


@given(
    st.floats(1, 10_000),
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0.0, 1.0), st.floats(0, 1.0), st.floats(0, 90)), min_size=1, max_size=100
    ),
)
def test_no_minute_sees_more_than_the_limit(
    per_minute: float, arrivals: list[tuple[float, float, float, float]]
) -> None:
    """Amounts up to a whole minute's leave as early as they may; of each, a part turns out unused some time later."""
    bucket, now = TokenBucket(per_minute, 0.0), 0.0
    left: list[tuple[float, float]] = []
    back: list[tuple[float, float, float]] = []

    def give_back(until: float) -> None:
        for at, unused, left_at in sorted(one for one in back if one[0] <= until):
            bucket.give_back(unused, left_at, at)
        back[:] = [one for one in back if one[0] > until]

    for gap, part, unused, later in arrivals:
        amount = max(0.1, part * max(1.0, per_minute))
        now += gap
        give_back(now)
        while (wait := bucket.wait_s(amount, now)) > 0:
            # Nothing may come back earlier than it was left by the one before.
            now += wait
            give_back(now)
        bucket.take(amount, now)
        left.append((now, amount * (1 - unused)))
        back.append((now + later, amount * unused, now))
    for start, _ in left:
        inside = sum(amount for at, amount in left if start <= at < start + 59.999)
        assert inside <= max(per_minute, 1.0) * 1.001


def test_two_calls_of_most_of_a_minute_are_a_minute_apart() -> None:
    bucket = TokenBucket(600, 0.0)
    assert bucket.wait_s(400, 0.0) == 0
    bucket.take(400, 0.0)
    assert bucket.wait_s(400, 50.0) == pytest.approx(10.0)
    assert bucket.wait_s(150, 50.0) == 0
    bucket.give_back(300, 0.0, 50.0)
    assert bucket.wait_s(400, 50.0) == 0
    assert bucket.wait_s(1000, 50.0) == pytest.approx(10.0), "more than a whole minute's waits until it is alone"


def test_an_amount_over_the_burst_leaves_a_debt() -> None:
    bucket = TokenBucket(600, 0.0)
    assert bucket.wait_s(10 * bucket.burst, 0.0) == 0
    bucket.take(10 * bucket.burst, 0.0)
    assert bucket.wait_s(1, 0.0) > 9 * bucket.burst / bucket.per_second * 0.99


def test_the_burst_and_the_refill_of_a_minute_are_together_the_limit() -> None:
    for per_minute in (30, 600, 90_000):
        bucket = TokenBucket(per_minute, 0.0)
        assert bucket.burst == pytest.approx(max(1.0, per_minute * BURST_S / 60))
        assert bucket.burst + 60 * bucket.per_second == pytest.approx(per_minute)


def endpoint_of(concurrency: int) -> EndpointLimiter:
    return EndpointLimiter(
        EchoModel("echo:", ModelOptions()), LimitsConfig(concurrency=concurrency), InFlightSlots(concurrency)
    )


def test_the_limit_doubles_until_the_first_complaint_then_creeps() -> None:
    async def main() -> None:
        endpoint = endpoint_of(1000)
        for _ in range(4):
            before = endpoint.limit
            for _ in range(int(before)):
                endpoint.in_flight = int(endpoint.limit) - 1  # one came back, the others are still busy
                endpoint.succeeded()
            assert endpoint.limit == 2 * before
        for _ in range(10):
            endpoint.in_flight = 3  # far from the limit: nothing is learnt about the server
            endpoint.succeeded()
        assert endpoint.limit == 256
        loop = asyncio.get_running_loop()
        endpoint.in_flight = 100
        endpoint.congested(loop.time())
        assert endpoint.limit == 50
        endpoint.congested(loop.time() - 10)  # the same congestion: no second cut
        assert endpoint.limit == 50
        await asyncio.sleep(0.001)
        rounds = 0
        while endpoint.limit < 300:  # a passing complaint is not remembered for ever: the limit doubles again
            for _ in range(int(endpoint.limit)):
                endpoint.in_flight = int(endpoint.limit) - 1
                endpoint.succeeded()
            rounds += 1
        assert rounds < 100

    asyncio.run(main())


def test_a_server_that_keeps_refusing_one_more_is_asked_ever_less_often() -> None:
    async def main() -> None:
        endpoint, loop = endpoint_of(100), asyncio.get_running_loop()
        refusals: list[int] = []
        for trip in range(200):
            slots = int(endpoint.limit)
            if slots > 10:
                refusals.append(trip)
                endpoint.in_flight = 11
                endpoint.congested(loop.time())
                await asyncio.sleep(0.001)
                continue
            for _ in range(slots):
                endpoint.in_flight = int(endpoint.limit) - 1
                endpoint.succeeded()
        assert 4 <= len(refusals) <= 30  # doubling and halving alone would make it a hundred
        assert refusals[-1] - refusals[-2] > 10 > refusals[1] - refusals[0]
        assert endpoint.limit >= 9.5

    asyncio.run(main())


def test_waiting_is_in_order_and_cancelled_waiters_take_no_place() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(EchoModel("echo:", ModelOptions()), LimitsConfig(concurrency=1))
        first = await dispatcher.enter(0)
        order: list[int] = []

        async def wait(number: int) -> None:
            endpoint = await dispatcher.enter(0)
            order.append(number)
            endpoint.answered()
            endpoint.leave()

        tasks = [asyncio.create_task(wait(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        first.answered()
        first.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3]
        assert dispatcher.in_flight == 0

    asyncio.run(main())


def test_a_stopped_road_turns_everyone_away() -> None:
    async def main() -> None:
        dispatcher = Dispatcher(EchoModel("echo:", ModelOptions()), LimitsConfig(concurrency=1))
        await dispatcher.enter(0)
        waiting = asyncio.create_task(dispatcher.enter(0))
        await asyncio.sleep(0)
        dispatcher.stop(RuntimeError("over"))
        with pytest.raises(RuntimeError, match="over"):
            await waiting
        with pytest.raises(RuntimeError, match="over"):
            await dispatcher.enter(0)

    asyncio.run(main())


def run(store: Store, server: ChatServer, calls: int, limits: LimitsConfig) -> tuple[Engine, list[str]]:
    async def main() -> tuple[Engine, list[str]]:
        async with server:
            model = OpenAIModel(server.name)
            engine = Engine(store, limits, backoff_s=0.005)
            values = await run_all((asking(model, str(number)) for number in range(calls)), engine)
            await model.close()
            return engine, values

    return asyncio.run(main())


def test_concurrency_is_never_passed(store: Store) -> None:
    server = ChatServer(delay_s=0.005)
    run(store, server, 100, LimitsConfig(concurrency=7))
    assert server.peak == 7


def test_a_server_that_allows_much_is_asked_much(store: Store) -> None:
    server = ChatServer(delay_s=0.1)
    engine, _ = run(store, server, 400, LimitsConfig(concurrency=100))
    (client,) = engine._clients.values()
    (endpoint,) = client.dispatcher.endpoints
    assert endpoint.limit == 100
    assert 16 < server.peak <= 100


def test_a_server_that_allows_little_is_saturated_and_every_call_succeeds(store: Store) -> None:
    server = ChatServer(delay_s=0.02, concurrency=5)
    engine, values = run(store, server, 200, LimitsConfig(concurrency=64, attempts=50))
    assert all(values)
    assert server.peak == 5
    assert engine.counters.cuts >= 1
    assert server.refused < 400  # it is not hammered: a fixed 64 in flight would be refused thousands of times


def test_requests_a_minute_are_kept(store: Store) -> None:
    """600 a minute: a burst of 20, then one every 103 ms."""

    async def main() -> float:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, LimitsConfig(requests_per_minute=600))
            started = asyncio.get_running_loop().time()
            await run_all((asking(model, str(number)) for number in range(26)), engine)
            await model.close()
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) >= 0.6


def test_tokens_a_minute_are_kept(store: Store) -> None:
    async def main() -> float:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, LimitsConfig(tokens_per_minute=1500))
            started = asyncio.get_running_loop().time()
            await run_all((asking(model, str(number)) for number in range(6)), engine)
            await model.close()
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) >= 0.5


@pytest.mark.parametrize(("attempt", "most"), [(1, 0.5), (2, 1.0), (4, 4.0), (30, LONGEST_BACKOFF_S)])
def test_a_call_waits_between_a_fifth_and_the_whole_of_a_wait_that_doubles(attempt: int, most: float) -> None:
    waits = [backoff(0.5, attempt) for _ in range(200)]
    assert 0.2 * most <= min(waits) < 0.4 * most
    assert 0.8 * most < max(waits) <= most


def test_departures_of_one_second_are_remembered_as_one() -> None:
    window = SlidingWindow()
    for tenth in range(3000):
        window.add(1.0, 1000 + tenth / 50)
    assert len(window._slots) <= WINDOW_S / SLOT_S + 1
    assert window.wait_s(1.0, 3000.0, 1060.0) == pytest.approx(SLOT_S, abs=0.03)


def test_the_slowest_rate_lets_one_request_leave_at_once() -> None:
    bucket = TokenBucket(6.0, 0.0)
    assert bucket.wait_s(1.0, 0.0) == 0.0
    bucket.take(1.0, 0.0)
    assert bucket.wait_s(1.0, 0.0) > 5.0
