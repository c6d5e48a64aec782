"""Groups of completions, committed together: what 2,000 replies per second need of one disk.

Replies that the event loop has in hand together share a transaction: under load these are many, and where they are few
none waits for another. It runs on the loop itself: with WAL and `synchronous=NORMAL` it takes less than a thread's
hand-over would, and it never waits for another process's lock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from fractionate.calls.budget import Budget
from fractionate.calls.store import Holds, Store, StoreBusy, StoredCall, locked_out
from fractionate.calls.store_file import BUSY_S
from fractionate.errors import FractionateError
from fractionate.types import Completion

GROUP = 64
"""Rows that are committed without waiting for more."""
LAST_TRY_S = 5.0
"""Seconds that the end of a run waits for a locked store."""
_Waiter = asyncio.Future[Completion | None]


class Committer:
    """Writes rows, and what the budget holds, in groups; the writer of a row is woken after its commit."""

    def __init__(self, store: Store, run: str, budget: Budget) -> None:
        self._store = store
        self._run = run
        self._budget = budget
        self._rows: list[tuple[StoredCall, _Waiter]] = []
        self._holds: list[_Waiter] = []
        self._unsaved: list[StoredCall] = []
        self._failed = False
        self._soon: asyncio.Handle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def put(self, call: StoredCall) -> Completion:
        """Commit a row and return its completion: another process's, if that one was stored first."""
        done: _Waiter = asyncio.get_running_loop().create_future()
        self._rows.append((call, done))
        if len(self._rows) >= GROUP:
            self._flush()
        else:
            self._flush_soon()
        return await done or call.completion

    async def put_together(self, calls: Sequence[StoredCall]) -> list[Completion]:
        """Commit rows in one transaction and return their completions as `put` does."""
        loop = asyncio.get_running_loop()
        rows: list[tuple[StoredCall, _Waiter]] = [(call, loop.create_future()) for call in calls]
        self._rows += rows
        self._flush()
        return [await done or call.completion for call, done in rows]

    async def holds(self) -> None:
        """Return once the store knows what the budget holds now."""
        done: _Waiter = asyncio.get_running_loop().create_future()
        self._holds.append(done)
        self._flush_soon()
        await done

    def close(self) -> None:
        """Commit what is left, and what the budget holds at the end: nothing, or calls that may yet be billed.

        What could not be written before is tried once more; that it fails again is no news.
        """
        left = self._unsaved + [call for call, _ in self._rows]
        self._unsaved, self._rows = [], []
        if not left and not self._budget.active:
            return
        try:
            self._store.put_many(left, holds=self._holding(), patience_s=LAST_TRY_S)
        except FractionateError:
            if not self._failed:
                raise

    def _flush_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another run of the same engine, after one that was cut off
            self._loop, self._soon, self._writing = loop, None, None
        if self._writing is None and self._soon is None:
            self._soon = loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._writing is None and not self._write_once():
            self._writing = asyncio.get_running_loop().create_task(self._write_until_free())

    def _holding(self) -> tuple[str, Holds] | None:
        return (self._run, self._budget.holds_to_write()) if self._budget.active else None

    def _write_once(self) -> bool:
        """Commit what has gathered. Returns False if another process is in the middle of a transaction."""
        rows, waiting, holding = self._rows, self._holds, self._holding()
        if not rows and not waiting:
            return True
        try:
            others = self._store.put_many([call for call, _ in rows], holds=holding, patience_s=0)
        except StoreBusy:
            return False
        except Exception as error:
            self._fail(error)
            return True
        if holding is not None:
            self._budget.written(holding[1])
        self._rows, self._holds = [], []
        for call, done in rows:
            if not done.done():
                done.set_result(others.get(call.key) if others else None)
        for done in waiting:
            if not done.done():
                done.set_result(None)
        return True

    def _fail(self, error: Exception) -> None:
        waiting = [done for _, done in self._rows] + self._holds
        self._failed = True
        self._unsaved += [call for call, _ in self._rows]
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
                self._flush_soon()
