"""Limits at their edges: the very second at which a departure leaves the window, the very amount that still fits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fractionate.calls import limits as module
from fractionate.calls.limits import Deadlines, InFlightSlots, RateLimiter, SlidingWindow, TokenBucket, backoff
from fractionate.config import LimitsConfig


def test_a_departure_joins_the_slot_of_less_than_a_second_before() -> None:
    window = SlidingWindow()
    window.add(1.0, 10.0)
    window.add(2.0, 10.999)
    window.add(4.0, 11.0)
    assert list(window._slots) == [(10.0, 10.999, 3.0), (11.0, 11.0, 4.0)]


def test_a_window_waits_until_the_last_departure_of_a_slot_is_a_minute_ago() -> None:
    window = SlidingWindow()
    window.add(3.0, 10.0)
    window.add(3.0, 10.5)
    window.add(3.0, 20.0)
    assert window.wait_s(1.0, 10.0, 30.0) == 0.0
    assert window.wait_s(1.0000001, 10.0, 30.0) == pytest.approx(10.5 + 60 - 30)
    assert window.wait_s(7.1, 10.0, 30.0) == pytest.approx(20.0 + 60 - 30)
    assert window.wait_s(99.0, 10.0, 30.0) == pytest.approx(50.0), "the window is empty then"
    assert window.wait_s(5.0, 10.0, 69.999) == pytest.approx(10.5 + 60 - 69.999)
    assert window.wait_s(7.0, 10.0, 70.0) == 0.5
    assert window.wait_s(7.0, 10.0, 70.5) == 0.0, "a slot leaves a minute after its last departure"


def test_an_amount_comes_back_to_the_slot_in_which_it_left() -> None:
    window = SlidingWindow()
    for at in (10.0, 20.0, 30.0):
        window.add(5.0, at)
    window.give_back(2.0, 20.0)
    window.give_back(1.0, 29.9)
    window.give_back(4.0, 9.9)
    assert [left for _, _, left in window._slots] == [5.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("per_minute", "burst", "per_second", "most"),
    [(600.0, 20.0, 580 / 60, 600.0), (60.0, 2.0, 58 / 60, 60.0), (6.0, 1.0, 5 / 60, 6.0), (1.0, 1.0, 0.5 / 60, 1.0),
     (0.5, 1.0, 0.25 / 60, 1.0)],
)  # fmt: skip
def test_a_bucket_has_two_seconds_of_its_rate_and_refills_with_the_rest(
    per_minute: float, burst: float, per_second: float, most: float
) -> None:
    bucket = TokenBucket(per_minute, 5.0)
    assert (bucket.burst, bucket._most) == (pytest.approx(burst), most)
    assert bucket.per_second == pytest.approx(per_second)
    assert bucket.wait_s(burst, 5.0) == 0.0
    bucket.take(burst, 5.0)
    assert bucket.wait_s(1.0, 5.0) == pytest.approx(max(1 / per_second, 0.0 if burst + 1 <= most else 60.0), rel=1e-6)


def test_an_empty_bucket_fills_from_the_moment_it_was_made_and_never_beyond_its_burst() -> None:
    bucket = TokenBucket(600, 5.0, full=False)
    assert bucket.wait_s(1.0, 5.0) == pytest.approx(60 / 580)
    assert bucket.wait_s(20.0, 6.0) == pytest.approx(20 * 60 / 580 - 1)
    assert bucket.wait_s(1000.0, 500.0) == 0.0
    bucket.take(30.0, 500.0)
    assert bucket.debt_s(500.0) == pytest.approx(10 * 60 / 580)
    assert bucket.debt_s(500.5) == pytest.approx(10 * 60 / 580 - 0.5)
    assert bucket.debt_s(600.0) == 0.0


def test_what_comes_back_fills_the_bucket_at_once() -> None:
    bucket = TokenBucket(600, 0.0)
    bucket.take(20.0, 0.0)
    bucket.give_back(15.0, 0.0, 0.0)
    assert bucket.wait_s(15.0, 0.0) == 0.0
    assert bucket.wait_s(16.0, 0.0) == pytest.approx(60 / 580)
    bucket.give_back(100.0, 0.0, 0.0)
    assert bucket.wait_s(21.0, 0.0) == 0.0, "an amount over the burst leaves when the bucket is full"
    bucket.take(21.0, 0.0)
    assert bucket.debt_s(0.0) == pytest.approx(60 / 580)


def test_another_rate_begins_with_an_empty_bucket_and_keeps_the_debt() -> None:
    bucket = TokenBucket(600, 0.0)
    bucket.change(60, 0.0)
    assert (bucket.burst, bucket._most) == (2.0, 60.0)
    assert bucket.wait_s(1.0, 0.0) == pytest.approx(60 / 58)
    bucket.take(3.0, 0.0)
    bucket.change(600, 0.0)
    assert bucket.debt_s(0.0) == pytest.approx(3 * 60 / 580)


class Clock:
    """The loop's time of a test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "loop_time", clock)
    return clock


def test_a_call_waits_for_the_later_of_both_rates(clock: Clock) -> None:
    limiter = RateLimiter(LimitsConfig(requests_per_minute=60, tokens_per_minute=6000))
    assert (limiter.wait_s(200), limiter.debt_s()) == (0.0, 0.0)
    limiter.take(200)
    assert limiter.wait_s(100) == pytest.approx(100 / (5800 / 60))
    limiter.take(0)
    assert limiter.wait_s(0) == pytest.approx(60 / 58), "two requests are the burst"
    limiter.take(58)
    assert limiter.debt_s() == pytest.approx(60 / 58)
    limiter.give_back(58.0, 0.0, clock.now)
    assert limiter.wait_s(0) == pytest.approx(120 / 58)
    limiter.give_back(0.0, 1.0, clock.now)
    assert limiter.wait_s(0) == pytest.approx(60 / 58)
    clock.now += 2.0
    assert limiter.wait_s(180) == 0.0


def test_a_rate_that_is_not_limited_is_not_waited_for(clock: Clock) -> None:
    assert RateLimiter(LimitsConfig()).wait_s(1e9) == 0.0
    assert RateLimiter(LimitsConfig()).debt_s() == 0.0
    only_requests = RateLimiter(LimitsConfig(requests_per_minute=6))
    assert only_requests.wait_s(1e9) == 0.0
    only_requests.take(1e9)
    assert only_requests.wait_s(1e9) == pytest.approx(12.0)
    only_tokens = RateLimiter(LimitsConfig(tokens_per_minute=6000))
    for _ in range(2):
        assert only_tokens.wait_s(100) == 0.0
        only_tokens.take(100)
    assert only_tokens.wait_s(100) == pytest.approx(100 / (5800 / 60))


def test_limits_that_change_apply_to_what_is_there_and_to_what_comes(clock: Clock) -> None:
    limiter = RateLimiter(LimitsConfig(requests_per_minute=600))
    assert limiter.wait_s(0) == 0.0
    limiter.change(LimitsConfig(requests_per_minute=60, tokens_per_minute=6000))
    assert limiter.wait_s(0) == pytest.approx(60 / 58), "not the new rate's burst"
    assert limiter.wait_s(100) == pytest.approx(100 / (5800 / 60)), "the bucket for tokens begins empty too"


def test_free_slots_are_offered_to_the_queues_in_turn() -> None:
    slots, woken = InFlightSlots(2), []

    def queue(name: str, takes: bool) -> Callable[[], None]:
        def wake() -> None:
            woken.append(name)
            slots.taken += takes

        return wake

    for name, takes in (("a", True), ("b", False), ("c", True)):
        slots.add(queue(name, takes))
    slots.taken = 2
    assert not slots.left
    slots.free()
    assert (woken, slots.taken) == (["a"], 2)
    slots.free()
    assert (woken[1:], slots.taken) == (["b", "c"], 2), "b has nothing to send"
    slots.held = True
    slots.free()
    assert (woken[3:], slots.taken, slots.left) == (["a"], 2, False)
    slots.held = False
    slots.taken = 1
    assert slots.left


def test_of_several_calls_only_those_that_took_too_long_are_ended() -> None:
    async def main() -> None:
        deadlines, ended = Deadlines(0.05), []

        async def call(name: str, work: Awaitable[object]) -> None:
            async def awaited() -> object:
                return await work

            task = asyncio.current_task()
            assert task is not None
            try:
                await deadlines.run(awaited(), task)
                ended.append(f"{name} returned")
            except TimeoutError:
                ended.append(f"{name} expired")

        never = asyncio.get_running_loop().create_future
        await asyncio.gather(call("slow", never()), call("quick", asyncio.sleep(0)), call("slow too", never()))
        assert sorted(ended) == ["quick returned", "slow expired", "slow too expired"]
        assert not deadlines._watched
        await call("later", never())
        assert ended[-1] == "later expired", "the timer is set again"
        task = asyncio.create_task(call("cancelled", never()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not deadlines._watched

    asyncio.run(main())


def test_a_wait_lies_between_a_fifth_and_the_whole_of_a_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (0.2, 1.0):
        monkeypatch.setattr(module.random, "uniform", lambda low, high, part=part: low if part == 0.2 else high)
        assert [backoff(0.5, attempt) for attempt in (1, 2, 3, 7, 9)] == [part * s for s in (0.5, 1.0, 2.0, 30.0, 30.0)]
        assert backoff(0.25, 7) == part * 16.0
