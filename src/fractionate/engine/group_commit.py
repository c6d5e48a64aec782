"""Groups of completions, committed together: what 2,000 replies a second need of one disk.

Replies that arrive within a few milliseconds share a transaction. It runs on the event loop itself: with WAL and
`synchronous=NORMAL` it takes less than a thread's hand-over would, and it never waits for another process's lock.
"""

from __future__ import annotations

import asyncio
import random

from fractionate.engine.budget import Budget
from fractionate.engine.store import BUSY_S, Hold, Store, StoreBusy, StoredCall, locked_out
from fractionate.types import Completion, Role

GATHER_S = 0.004
"""Seconds that a reply may wait for others to be committed with."""
GROUP = 64
"""Rows that are committed without waiting for more."""
_Waiter = asyncio.Future[Completion | None]


class Committer:
    """Writes rows, and what the budget holds, in groups; whoever put a row in is woken after its commit."""

    def __init__(self, store: Store, run: str, holder: str, budget: Budget) -> None:
        self._store = store
        self._run = run
        self._holder = holder
        self._budget = budget
        self._rows: list[tuple[StoredCall, _Waiter]] = []
        self._holds: list[_Waiter] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    async def put(self, call: StoredCall) -> Completion:
        """Commit a row and return its completion: another process's, if that one was stored first."""
        done: _Waiter = asyncio.get_running_loop().create_future()
        self._rows.append((call, done))
        if len(self._rows) >= GROUP:
            self._flush()
        else:
            self._flush_in(GATHER_S)
        return await done or call.completion

    def put_now(self, calls: list[StoredCall]) -> dict[str, Completion]:
        """Commit rows in a transaction of their own; return those that another process had stored first."""
        return self._store.put_many(calls)

    async def holds(self) -> None:
        """Return once the store knows what the budget holds now."""
        done: _Waiter = asyncio.get_running_loop().create_future()
        self._holds.append(done)
        self._flush_in(0)
        await done

    def close(self) -> None:
        """Commit what is left, and what the budget holds at the end: nothing, or calls that may yet be billed."""
        if self._rows or self._budget.active:
            self._store.put_many([call for call, _ in self._rows], holds=self._holding())
        self._rows = []

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and not self._write_once():
            self._writing = asyncio.get_running_loop().create_task(self._write_until_free())

    def _holding(self) -> tuple[str, str, dict[Role, Hold]] | None:
        return (self._run, self._holder, self._budget.stored_holds()) if self._budget.active else None

    def _write_once(self) -> bool:
        """Commit what has gathered. Returns False if another process is in the middle of a transaction."""
        rows, holds = self._rows, self._holds
        if not rows and not holds:
            return True
        try:
            others = self._store.put_many([call for call, _ in rows], holds=self._holding(), wait=False)
        except StoreBusy:
            return False
        except Exception as error:
            self._fail(error)
            return True
        self._rows, self._holds = [], []
        for call, done in rows:
            if not done.done():
                done.set_result(others.get(call.key) if others else None)
        for done in holds:
            if not done.done():
                done.set_result(None)
        return True

    def _fail(self, error: Exception) -> None:
        waiting = [done for _, done in self._rows] + self._holds
        self._rows, self._holds = [], []
        for done in waiting:
            if not done.done():
                done.set_exception(error)

    async def _write_until_free(self) -> None:
        """Try again in a moment, for as long as another process keeps the store locked."""
        deadline = asyncio.get_running_loop().time() + BUSY_S
        try:
            while not self._write_once():
                if asyncio.get_running_loop().time() > deadline:
                    self._fail(locked_out(self._store.path))
                    return
                await asyncio.sleep(random.uniform(0.001, 0.01))
        finally:
            self._writing = None
            if self._rows or self._holds:
                self._flush_in(0)
