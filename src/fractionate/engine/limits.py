"""How many calls may be in flight, and how fast they may leave: one lane per model, and places that all lanes share.

A call has a place from before it leaves until its reply is committed, so that no more than `limits.concurrency` calls
are ever paid for and not stored, whatever the models and however long the store is locked. Within that, each lane
finds out how much its server takes.

Concurrency adapts as TCP does (additive increase, multiplicative decrease, slow start; Chiu and Jain 1989): it doubles
every round trip until the server first complains, falls to half of what the server was really serving, doubles up to
that and then creeps up by one, more slowly each time the server refuses that one more. Where the server takes the one
more, two are tried, then four, until it doubles again. The requests- and tokens-per-minute limits are token buckets
whose burst is part of the minute's allowance, so that no window of 60 s ever sees more than the limit.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import partial

from fractionate.config import LimitsConfig
from fractionate.models.base import Model
from fractionate.models.faults import RateHeaders

START = 16
"""Calls in flight at most before the first reply has come."""
DECREASE, DECREASE_NEAR = 0.5, 0.95
"""What remains of the limit after a complaint: while it was doubling, and once it creeps around what a server takes."""
PATIENCE = 16
"""Round trips at most between two tries at one more call in flight than the server last took."""
LONGEST_PAUSE_S = 120.0
"""Seconds that a spent x-ratelimit allowance is waited for at most before a call tries again."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Seconds that a call's first retry waits at most, and any."""
_ROUNDING = 1e-9
"""What sums of floats may be short of a whole call: waiting for it would move no clock."""
BURST_S = 2.0
"""Seconds' worth of a rate that may leave at once."""


class Bucket:
    """A token bucket that never lets more than `per_minute` through in any 60 s."""

    def __init__(self, per_minute: float, now: float, *, full: bool = True) -> None:
        self.burst = max(1.0, per_minute * BURST_S / 60)
        self.per_second = max(per_minute - self.burst, per_minute / 2) / 60
        self._level = self.burst if full else 0.0
        self._at = now

    def change(self, per_minute: float, now: float) -> None:
        """Let another number through from now on, beginning with nothing saved up.

        Else a share that goes from one process to another and back would let its burst through each time.
        """
        self._fill(now)
        fresh = Bucket(per_minute, now)
        self.burst, self.per_second = fresh.burst, fresh.per_second
        self._level = min(self._level, 0.0)

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may leave, 0 if it may now.

        An amount over the burst may leave when the bucket is full, and leaves a debt.
        """
        self._fill(now)
        short = min(amount, self.burst) - self._level
        return 0.0 if short < _ROUNDING else short / self.per_second

    def take(self, amount: float, now: float) -> None:
        """Take an amount out (a negative one gives back what was not used)."""
        self._fill(now)
        self._level = min(self.burst, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now


class Places:
    """What all lanes share: at most `ceiling` calls that have left and are not committed yet."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.taken = 0
        self._lanes: deque[Lane] = deque()

    def add(self, lane: Lane) -> None:
        """Let a lane know of free places."""
        self._lanes.append(lane)

    def free(self) -> None:
        """Give a place back. Lanes take turns at it."""
        self.taken -= 1
        for _ in range(len(self._lanes)):
            self._lanes.rotate(-1)
            self._lanes[-1].wake()
            if self.taken >= self.ceiling:
                return


class Lane:
    """The way to one model: at most `limit` calls in flight, paused while the server asks for it.

    `in_flight` counts calls that have left and not come back, `settling` those that have come back and keep their place
    until `leave`. `on_change` is told of every new limit after a complaint.
    """

    def __init__(
        self, limits: LimitsConfig, on_change: Callable[[int], None] | None = None, places: Places | None = None
    ) -> None:
        self.places = places or Places(limits.concurrency)
        self.places.add(self)
        self.ceiling = limits.concurrency
        self.limit = float(min(START, limits.concurrency))
        self.in_flight = 0
        self.settling = 0
        self.paused_until = 0.0
        self._threshold = float("inf")
        self._patience = 1
        self._cut_at = -1.0
        self._on_change = on_change
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped: BaseException | None = None
        self._limits = limits
        self._full = True
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None

    async def enter(self, tokens: float) -> None:
        """Wait for a place, in order of arrival. `tokens`: what the call will use at most, for the token limit."""
        if self._stopped is not None:
            raise self._stopped
        if not self._waiting and self._delay(tokens) == 0.0:
            self._take(tokens)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((place, tokens))
        self.wake()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.answered()
                self.leave()
            raise

    def answered(self, unsent: float | None = None) -> None:
        """Note that a call has come back and keeps its place until it leaves.

        One that was not sent after all gives back its share of the minute (its tokens: `unsent`).
        """
        self.in_flight -= 1
        self.settling += 1
        if unsent is not None:
            for bucket, amount in ((self._requests, 1.0), (self._tokens, unsent)):
                if bucket is not None:
                    bucket.take(-amount, _now())
        self.wake()

    def leave(self) -> None:
        """Give the place of an answered call back: its reply is committed, or there is nothing to commit."""
        self.settling -= 1
        self.places.free()

    def succeeded(self, tokens_unused: float = 0.0) -> None:
        """Note a reply: the server keeps up, more may be asked of it. Unused tokens go back to the bucket."""
        if tokens_unused and self._tokens is not None:
            self._tokens.take(-tokens_unused, _now())
        if self.limit >= self.ceiling or self.in_flight + self.settling + 2 < self.limit:
            return  # at the ceiling, or not asking for as much as the limit allows
        if self.limit < self._threshold:
            self.limit = min(self.ceiling, self._threshold, self.limit + 1.0)
            return
        taken = self.limit - self._threshold  # more than the server took when it complained
        step = taken if taken >= 1.0 else 1.0 / self._patience
        self.limit = min(self.ceiling, self.limit + step / self.limit)
        if self.limit > 1.5 * self._threshold + 2:
            # The server takes far more than it did when it complained: find anew how much.
            self._threshold, self._patience = float("inf"), 1

    def congested(self, sent_at: float) -> None:
        """Note a complaint (429, 503, a timeout) about a call sent at `sent_at` (loop time) that still has its place.

        Complaints about calls sent before the last cut are part of the same congestion. What the server was serving
        is what is still in flight: that is where slow growth begins; the limit itself falls lower at first, so that
        the server recovers.
        """
        others = float(self.in_flight - 1)
        if sent_at <= self._cut_at:
            self._threshold = max(1.0, min(self._threshold, others))
        else:
            near = self.limit >= self._threshold
            share = DECREASE_NEAR if near else DECREASE
            self._patience = min(PATIENCE, 2 * self._patience) if near else 1
            self._threshold = max(1.0, others)
            self._cut_at = _now()
            self.limit = max(1.0, min(self.limit, others + 1.0) * share)
            if self._on_change is not None:
                self._on_change(int(self.limit))

    def pause(self, seconds: float) -> None:
        """Let nothing leave for some seconds (Retry-After)."""
        self.paused_until = max(self.paused_until, _now() + seconds)
        self.wake()

    def heed(self, rate: RateHeaders) -> None:
        """Wait for the reset when the server says that nothing remains."""
        if rate.remaining_requests == 0 and rate.reset_requests_s > 0:
            self.pause(min(rate.reset_requests_s, LONGEST_PAUSE_S))
        if rate.remaining_tokens == 0 and rate.reset_tokens_s > 0:
            self.pause(min(rate.reset_tokens_s, LONGEST_PAUSE_S))

    def change(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on. Calls that have left already stay."""
        self._limits = limits
        self.ceiling = limits.concurrency
        self.limit = min(self.limit, float(self.ceiling))
        self._full = False
        for bucket, per_minute in (
            (self._requests, limits.requests_per_minute),
            (self._tokens, limits.tokens_per_minute),
        ):
            if bucket is not None and per_minute:
                bucket.change(per_minute, _now())
        self.wake()

    def stop(self, reason: BaseException) -> None:
        """Turn away everyone who waits and everyone who comes."""
        self._stopped = reason
        while self._waiting:
            place, _ = self._waiting.popleft()
            if not place.done():
                place.set_exception(reason)

    def _delay(self, tokens: float) -> float:
        """Return seconds until a call may leave by the clock's limits; infinity while there is no free place."""
        if self.in_flight >= int(self.limit) or self.places.taken >= self.places.ceiling:
            return float("inf")
        if not (self.paused_until or self._limits.requests_per_minute or self._limits.tokens_per_minute):
            return 0.0
        now = _now()
        delay = max(0.0, self.paused_until - now)
        if self._limits.requests_per_minute:
            self._requests = self._requests or Bucket(self._limits.requests_per_minute, now, full=self._full)
            delay = max(delay, self._requests.wait_s(1, now))
        if self._limits.tokens_per_minute:
            self._tokens = self._tokens or Bucket(self._limits.tokens_per_minute, now, full=self._full)
            delay = max(delay, self._tokens.wait_s(tokens, now))
        return delay

    def _take(self, tokens: float) -> None:
        self.in_flight += 1
        self.places.taken += 1
        if self._requests is not None:
            self._requests.take(1, _now())
        if self._tokens is not None:
            self._tokens.take(tokens, _now())

    def wake(self) -> None:
        """Let those who wait in, in order, as far as there is a place and the clock allows it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            place, tokens = self._waiting[0]
            if place.done():  # cancelled while it waited
                self._waiting.popleft()
                continue
            delay = self._delay(tokens)
            if delay == float("inf"):
                return
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self.wake)
                return
            self._waiting.popleft()
            self._take(tokens)
            place.set_result(None)


class Lanes(dict[str, Lane]):
    """The lane to every model, by its identity. `on_cut` is told a model's name and its new limit after a complaint."""

    def __init__(self, limits: LimitsConfig, on_cut: Callable[[str, int], None]) -> None:
        super().__init__()
        self._limits = limits
        self._on_cut = on_cut
        self._changed = False
        self.places = Places(limits.concurrency)

    def of(self, model: Model) -> Lane:
        """Return the lane to a model; one is made for a new model."""
        if model.identity not in self:
            self[model.identity] = lane = Lane(self._limits, partial(self._on_cut, model.name), self.places)
            if self._changed:
                lane.change(self._limits)
        return self[model.identity]

    def change(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on."""
        self._limits = limits
        self._changed = True
        self.places.ceiling = limits.concurrency
        for lane in self.values():
            lane.change(limits)

    def stop(self, reason: BaseException) -> None:
        """Turn away everyone who waits for any of them and everyone who comes."""
        for lane in self.values():
            lane.stop(reason)


def backoff(first_s: float, attempt: int) -> float:
    """Return the seconds that a call waits after its failed attempt (from 1): exponential, with jitter."""
    return random.uniform(0.2, 1.0) * min(LONGEST_BACKOFF_S, first_s * 2.0 ** (attempt - 1))


def _now() -> float:
    return asyncio.get_running_loop().time()
