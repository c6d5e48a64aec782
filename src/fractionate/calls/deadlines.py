"""Timeouts for thousands of calls per second: one timer for all calls, since all have the same limit.

`asyncio.timeout` puts a timer of its own on the loop's heap for every call. Calls with the same limit expire in the
order in which they began, so one queue and one timer are enough.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Watch:
    """One call being watched: its task while it runs, whether it ran out of time."""

    __slots__ = ("at", "expired", "task")

    def __init__(self, at: float, task: asyncio.Task[Any]) -> None:
        self.at = at
        self.task: asyncio.Task[Any] | None = task
        self.expired = False


class Deadlines:
    """Gives every coroutine `seconds` and cancels what takes longer."""

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
