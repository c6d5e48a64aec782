"""Counters of an engine, and the status line that a person watches while money is spent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import TYPE_CHECKING

from fractionate.types import CallRole, Completion, Usage

if TYPE_CHECKING:
    from fractionate.calls.engine import Engine


@dataclass(slots=True)
class Counters:
    """Counters of one engine.

    `sent`: calls that left for a model, retries and local rows included. `served`: completions read from the store.
    `joined`: requests that shared an identical one in flight. `stored`: rows committed. `retries` by cause; `failures`:
    calls given up, by cause; `endings`: finish reasons other than "stop". `usage`: calls made now, by model and role.
    `cuts`: times that the number of calls in flight was cut because a server complained.
    """

    sent: int = 0
    served: int = 0
    joined: int = 0
    stored: int = 0
    cuts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    usage: dict[tuple[str, CallRole], Usage] = field(default_factory=dict)

    def completed(self, model: str, role: CallRole, completion: Completion) -> None:
        """Count a completion that a model has just given."""
        self.usage[model, role] = self.usage.get((model, role), Usage()) + completion.usage
        if completion.finish_reason != "stop":
            self.endings[completion.finish_reason] += 1

    def add(self, now: Counters, before: Counters) -> None:
        """Add what other counters have counted between two readings."""
        for name in ("sent", "served", "joined", "stored", "cuts"):
            setattr(self, name, getattr(self, name) + getattr(now, name) - getattr(before, name))
        for name in ("retries", "failures", "endings"):
            getattr(self, name).update(getattr(now, name) - getattr(before, name))
        for key, usage in now.usage.items():
            old = before.usage.get(key, Usage())
            since = Usage(*(getattr(usage, each.name) - getattr(old, each.name) for each in fields(Usage)))
            self.usage[key] = self.usage.get(key, Usage()) + since

    def usage_by_role(self) -> dict[CallRole, Usage]:
        """Return the usage of calls made now, by role."""
        total: dict[CallRole, Usage] = {}
        for (_, role), usage in self.usage.items():
            total[role] = total.get(role, Usage()) + usage
        return total

    def line(self) -> str:
        """Return one line for a person: calls sent, served, retries and failures by cause, tokens by role."""
        parts = [f"{self.sent:,} model calls", f"{self.served:,} from the store"]
        if self.joined:
            parts.append(f"{self.joined:,} shared in flight")
        for name, counter in (("retries", self.retries), ("failed", self.failures), ("endings", self.endings)):
            if counter:
                causes = ", ".join(f"{count} {cause}" for cause, count in sorted(counter.items()))
                parts.append(f"{counter.total():,} {name} ({causes})")
        for role, usage in sorted(self.usage_by_role().items()):
            guessed = f", {usage.counted:,} calls counted here" if usage.counted else ""
            parts.append(f"{role} {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out{guessed}")
        return "; ".join(parts)


class StatusLine:
    """Reports one line about an engine every `every_s` seconds while its `async with` block runs.

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
