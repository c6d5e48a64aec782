"""Virtual time: an event loop whose clock jumps to the next timer, and a server that uses it.

What an engine does with a server that takes 200 ms a call then depends on the code alone, never on the machine.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fractionate.models.base import SingleModel
from fractionate.models.faults import Fault, TransientFault
from fractionate.types import Completion, Request, Usage

T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    """Waits for nothing: the clock moves by what would have been waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "everybody waits and no timer is set: a deadlock"
            self.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0 s."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as asyncio.run does, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class VirtualServer(SingleModel):
    """A model whose replies take `delay_s`; calls above `allowed` in flight are refused at once (429).

    `served` holds when each served call came. `away_s` is the way there: the server hears of a call that much later.
    While it has a `fault` it answers nothing but that. `heard` is all that came.
    """

    def __init__(self, allowed: int, delay_s: float = 0.2, away_s: float = 0.001, name: str = "") -> None:
        self.name = self.identity = name or f"virtual:{allowed}"
        self.allowed = allowed
        self.delay_s = delay_s
        self.away_s = away_s
        self.active = 0
        self.refused = 0
        self.served: list[float] = []
        self.heard: list[Request] = []
        self.fault: Fault | None = None

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(self.away_s)
        self.heard.append(request)
        if self.fault is not None:
            raise self.fault
        if self.active >= self.allowed:
            self.refused += 1
            raise TransientFault("429", "slow down", congested=True)
        self.active += 1
        self.served.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.active -= 1
        return Completion("yes", "stop", Usage(1, 4, 0, 1, 0))

    def full_at(self) -> float:
        """Return when the server was first serving all that it allows."""
        return next(
            last
            for first, last in zip(self.served, self.served[self.allowed - 1 :], strict=False)
            if last < first + self.delay_s
        )

    def busy(self, start: float, end: float) -> float:
        """Return the share of what it allows that the server was serving, on average, between two moments."""
        inside = sum(max(0.0, min(at + self.delay_s, end) - max(at, start)) for at in self.served)
        return inside / (end - start) / self.allowed


class VirtualReplicas(SingleModel):
    """One model on several virtual servers."""

    def __init__(self, *servers: VirtualServer) -> None:
        self.name = self.identity = ",".join(server.name for server in servers)
        self._servers = servers

    @property
    def servers(self) -> Sequence[VirtualServer]:
        return self._servers
