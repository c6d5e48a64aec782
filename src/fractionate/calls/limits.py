"""The user's limits: calls in flight, requests per minute, tokens per minute, seconds per attempt.

A call has an in-flight slot from before it leaves until its reply is committed, so that no more than
`limits.concurrency` calls are ever paid for and not stored, over all models, even while the store is locked.
The limits per minute belong to a model, however many endpoints serve it. `endpoint` finds out how much each endpoint
takes within these limits.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fractionate.config import LimitsConfig

T = TypeVar("T")

BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Seconds that a call's first retry waits at most, and any retry at most."""
_ROUNDING = 1e-9
"""Tolerance for sums of floats: a wait shorter than this would not move any clock."""
BURST_S = 2.0
"""Seconds' worth of a rate that may leave at once."""
WINDOW_S, SLOT_S = 60.0, 1.0
"""Seconds that a limit per minute covers, and the resolution in which departures are remembered."""


class SlidingWindow:
    """The amounts that left in the last 60 s. Times are a clock's seconds, never earlier than before."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, float, float]] = deque()  # time of the first and last departure, amount

    def add(self, amount: float, now: float) -> None:
        """Note a departure."""
        start, before = now, 0.0
        if self._slots and now - self._slots[-1][0] < SLOT_S:
            start, _, before = self._slots.pop()
        self._slots.append((start, now, before + amount))

    def give_back(self, amount: float, left_at: float) -> None:
        """Note that part of an amount that left at a time was not used; beyond the window it makes no difference."""
        for at in reversed(range(len(self._slots))):
            start, end, left = self._slots[at]
            if start <= left_at:
                self._slots[at] = start, end, left - amount
                return

    def wait_s(self, amount: float, most: float, now: float) -> float:
        """Return the seconds until an amount keeps the window within `most`, or the window is empty."""
        while self._slots and self._slots[0][1] <= now - WINDOW_S:
            self._slots.popleft()
        over, wait = sum(left for _, _, left in self._slots) + amount - most * (1 + _ROUNDING), 0.0
        for _, end, left in self._slots:
            if over <= 0:
                break
            over, wait = over - left, end + WINDOW_S - now
        return wait


class TokenBucket:
    """A token bucket that never lets more than `per_minute` through in any 60 s.

    For amounts within its burst the bucket alone would do. A larger amount leaves a debt, and two such amounts could
    leave within a minute, so a sliding window bounds them too. An amount above a whole minute's leaves alone.
    """

    def __init__(self, per_minute: float, now: float, *, full: bool = True) -> None:
        self.burst = max(1.0, per_minute * BURST_S / 60)
        # A full burst and a minute of refill together stay within the limit.
        self.per_second = max(per_minute - self.burst, per_minute / 2) / 60
        self._level = self.burst if full else 0.0
        self._at = now
        self._most = max(1.0, per_minute)
        self._window = SlidingWindow()

    def change(self, per_minute: float, now: float) -> None:
        """Let another rate through from now on, beginning with an empty bucket.

        A quota that moves between processes would otherwise let its burst through at each move.
        """
        self._fill(now)
        fresh = TokenBucket(per_minute, now)
        self.burst, self.per_second, self._most = fresh.burst, fresh.per_second, fresh._most
        self._level = min(self._level, 0.0)

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may leave, 0 if it may now.

        An amount over the burst may leave when the bucket is full, and leaves a debt.
        """
        self._fill(now)
        short = min(amount, self.burst) - self._level
        filled = 0.0 if short < _ROUNDING else short / self.per_second
        return max(filled, self._window.wait_s(amount, self._most, now))

    def take(self, amount: float, now: float) -> None:
        """Take an amount out."""
        self._fill(now)
        self._level -= amount
        self._window.add(amount, now)

    def give_back(self, amount: float, left_at: float, now: float) -> None:
        """Give back the unused part of an amount that left at a time."""
        self._fill(now)
        self._level = min(self.burst, self._level + amount)
        self._window.give_back(amount, left_at)

    def debt_s(self, now: float) -> float:
        """Return the seconds until nothing is owed for amounts over the burst."""
        self._fill(now)
        return max(0.0, -self._level / self.per_second)

    def _fill(self, now: float) -> None:
        self._level = min(self.burst, self._level + (now - self._at) * self.per_second)
        self._at = now


class RateLimiter:
    """The limits per minute of one model: requests and tokens."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._full = True
        self._requests: TokenBucket | None = None
        self._tokens: TokenBucket | None = None

    def change(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on."""
        self._limits = limits
        self._full = False
        for bucket, per_minute in (
            (self._requests, limits.requests_per_minute),
            (self._tokens, limits.tokens_per_minute),
        ):
            if bucket is not None and per_minute:
                bucket.change(per_minute, loop_time())

    def wait_s(self, tokens: float) -> float:
        """Return the seconds until a call that uses at most so many tokens may leave, 0 if it may now."""
        delay = 0.0
        if self._limits.requests_per_minute:
            self._requests = self._requests or TokenBucket(
                self._limits.requests_per_minute, loop_time(), full=self._full
            )
            delay = self._requests.wait_s(1, loop_time())
        if self._limits.tokens_per_minute:
            self._tokens = self._tokens or TokenBucket(self._limits.tokens_per_minute, loop_time(), full=self._full)
            delay = max(delay, self._tokens.wait_s(tokens, loop_time()))
        return delay

    def take(self, tokens: float) -> None:
        """Count a call that leaves."""
        for bucket, amount in ((self._requests, 1.0), (self._tokens, tokens)):
            if bucket is not None and amount:
                bucket.take(amount, loop_time())

    def debt_s(self) -> float:
        """Return the seconds until a rate limiter that begins empty could take this one's place."""
        return max((one.debt_s(loop_time()) for one in (self._requests, self._tokens) if one), default=0.0)

    def give_back(self, tokens: float, requests: float, left_at: float) -> None:
        """Give back the unused part of a call that left at a time (loop time)."""
        for bucket, amount in ((self._requests, requests), (self._tokens, tokens)):
            if bucket is not None and amount:
                bucket.give_back(amount, left_at, loop_time())


class InFlightSlots:
    """The slots that all models share: at most `ceiling` calls that have left and are not committed yet.

    While they are `held`, no call leaves.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.held = False
        self.taken = 0
        self._wake: deque[Callable[[], None]] = deque()

    @property
    def left(self) -> bool:
        """Whether a slot is free."""
        return not self.held and self.taken < self.ceiling

    def add(self, wake: Callable[[], None]) -> None:
        """Register a model's queue, which is woken when a slot becomes free."""
        self._wake.append(wake)

    def free(self) -> None:
        """Give a slot back. The models' queues take turns at free slots, so that none of them starves."""
        self.taken -= 1
        for _ in range(len(self._wake)):
            self._wake.rotate(-1)
            self._wake[-1]()
            if not self.left:
                return


class _Watch:
    """One call being watched: its task while it runs, whether it ran out of time."""

    __slots__ = ("at", "expired", "task")

    def __init__(self, at: float, task: asyncio.Task[Any]) -> None:
        self.at = at
        self.task: asyncio.Task[Any] | None = task
        self.expired = False


class Deadlines:
    """Gives every coroutine `seconds` and cancels it after that, with one timer for thousands of calls per second.

    `asyncio.timeout` puts a timer of its own on the loop's heap for every call. Calls with the same limit expire in the
    order in which they began, so one queue and one timer are enough.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._watched: deque[_Watch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, work: Coroutine[Any, Any, T], task: asyncio.Task[Any]) -> T:
        """Await `work` in `task`, the current one. Raises TimeoutError when it takes too long."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another run of the same engine
            self._loop, self._timer = loop, None
            self._watched.clear()
        watch = _Watch(loop.time() + self.seconds, task)
        self._watched.append(watch)
        if self._timer is None:
            self._timer = loop.call_at(watch.at, self._check)
        try:
            return await work
        except asyncio.CancelledError:
            # uncancel() is above 0 where the task was also cancelled from outside: that cancellation goes on.
            if watch.expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            watch.task = None
            while self._watched and self._watched[0].task is None:
                self._watched.popleft()

    def _check(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._timer = None
        while self._watched and (self._watched[0].task is None or self._watched[0].at <= now):
            watch = self._watched.popleft()
            if watch.task is not None:
                watch.expired = True
                watch.task.cancel()
        if self._watched:
            self._timer = self._loop.call_at(self._watched[0].at, self._check)


def backoff(first_s: float, attempt: int) -> float:
    """Return the seconds that a call waits after its failed attempt (from 1): exponential, with jitter.

    The jitter keeps calls that failed together from coming back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return random.uniform(0.2, 1.0) * min(LONGEST_BACKOFF_S, first_s * 2.0 ** (attempt - 1))


def loop_time() -> float:
    """Return the running event loop's time, in seconds."""
    return asyncio.get_running_loop().time()
