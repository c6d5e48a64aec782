"""How a run's calls go, said every few seconds: what a person watches while money is spent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from fractionate.calls.engine import Engine


class StatusLine:
    """Says one line about an engine every `every_s` seconds while its `async with` block runs.

    The line has calls made and their rate, calls served from the store, calls waiting for a reply, retries and
    failures, and what the budget has spent.
    """

    def __init__(self, engine: Engine, say: Callable[[str], None], every_s: float = 2.0) -> None:
        self._engine = engine
        self._say = say
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._started = time.monotonic()
        self._sent_before = engine.counters.sent

    async def __aenter__(self) -> StatusLine:
        self._task = asyncio.get_running_loop().create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def line(self) -> str:
        """Return the line as of now."""
        counters, budget = self._engine.counters, self._engine.budget
        rate = (counters.sent - self._sent_before) / max(1e-9, time.monotonic() - self._started)
        parts = [f"{counters.sent:,} calls ({rate:,.1f}/s)", f"{self._engine.in_flight:,} in flight"]
        if counters.served:
            parts.append(f"{counters.served:,} from the store")
        for name, counter in (("retries", counters.retries), ("failed", counters.failures)):
            if counter:
                parts.append(f"{counter.total():,} {name}")
        if budget.needs_dollars:
            parts.append(f"${budget.total_usd():.4f} spent")
        return ", ".join(parts)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._say(self.line())
