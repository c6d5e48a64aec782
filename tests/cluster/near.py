"""Workers in this process, in virtual time: the run's own crew and its workers' own engines, and nothing of Ray."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from virtual import VirtualServer

from fractionate.analysis.pricing import Pricing
from fractionate.calls.drive import Call
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.cluster.cluster import Cluster
from fractionate.cluster.hiring import Place
from fractionate.cluster.programs import NamedModel
from fractionate.cluster.worker import Setup, Worker
from fractionate.config import BudgetConfig, LimitsConfig, PriceConfig
from fractionate.models.base import Model
from fractionate.strategies.base import CallCoroutine
from fractionate.types import Completion, Message, Request, Usage

AWAY_S = 0.002
"""Seconds that a word takes to a worker, and back."""


class PaidServer(VirtualServer):
    """A server in virtual time that costs money; `calls` are those answered, by what they asked."""

    paid = True

    def __init__(self, allowed: int = 1 << 30, delay_s: float = 0.2) -> None:
        super().__init__(allowed, delay_s)
        self.calls: dict[str, int] = {}
        self.most = 0

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(self.away_s)
        self.active += 1
        self.most = max(self.most, self.active)
        self.served.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.active -= 1
        asked = request.messages[0].content
        self.calls[asked] = self.calls.get(asked, 0) + 1
        return Completion(f"yes {asked}", "stop", Usage(1, 10, 0, 5, 0), 0.2)

    def most_usage(self, request: Request) -> Usage:
        return Usage(1, 20, 0, 20)


class NearWorker(Worker):
    """A worker that shares its server with the run, instead of opening it by name."""

    server: PaidServer

    def _open(self, wanted: NamedModel) -> Model:
        return self.server


@dataclass
class _Method:
    call: Callable[..., Awaitable[Any]]
    line: Line
    words: ClassVar[Counter[str]] = Counter()

    def remote(self, *given: Any, **named: Any) -> asyncio.Task[Any]:
        _Method.words[self.call.__name__] += 1

        async def away() -> Any:
            await asyncio.sleep(AWAY_S)
            await self.line.carry()
            answering = asyncio.ensure_future(self.call(*given, **named))
            dismissed = asyncio.ensure_future(self.line.dismissed.wait())
            await asyncio.wait({answering, dismissed}, return_when=asyncio.FIRST_COMPLETED)
            dismissed.cancel()
            await asyncio.sleep(AWAY_S)
            await self.line.carry()
            return await answering

        return asyncio.get_running_loop().create_task(away())


@dataclass
class Line:
    """The line between a run and a worker. `said` is how it is cut: words vanish (None), or the error that tells it."""

    cut: bool = False
    said: type[Exception] | None = None
    dismissed: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self) -> None:
        from ray.exceptions import RayActorError

        if self.cut and self.said is not None and not self.dismissed.is_set():
            raise self.said("the line is cut", None)
        if self.cut:
            await self.dismissed.wait()
            raise RayActorError


class _Actor:
    def __init__(self, worker: Worker, line: Line) -> None:
        self._worker = worker
        self.line = line

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._worker, name), self.line)


@dataclass
class NearHiring:
    """Begins workers here, `count` of them; the line to the first is cut after some seconds, in either way."""

    server: PaidServer
    count: int
    cut_after_s: float | None = None
    said: type[Exception] | None = None
    begun: list[NearWorker] = field(default_factory=list)

    def places(self, count: int, most: int) -> list[Place]:
        return [Place(str(number), "here") for number in range(min(self.count, most))]

    def again(self, node: str, turn: int) -> Place:
        return Place(node, "here")

    def begin(self, place: Place, setup: Setup) -> Any:
        worker = NearWorker(setup)
        worker.server = self.server
        line = Line(said=self.said)
        if self.cut_after_s is not None and not self.begun:
            asyncio.get_running_loop().call_later(self.cut_after_s, setattr, line, "cut", True)
        self.begun.append(worker)
        return _Actor(worker, line)

    def dismiss(self, actor: Any) -> None:
        """The cluster holds it for dead; the worker itself hears nothing, since its line is cut."""
        actor.line.dismissed.set()


def asking(model: Model, text: str, more: int) -> CallCoroutine[str]:
    """Ask, and ask `more` times for what came of it."""
    for turn in range(more + 1):
        (completion,) = yield [Call(model, Request((Message("user", f"{text} {turn}"),), "solver", max_tokens=20))]
        if completion.error:
            return completion.error
    return completion.text


async def run_near(
    server: PaidServer,
    workers: int,
    questions: int,
    limits: LimitsConfig,
    budget: BudgetConfig,
    folder: Path,
    more: int = 0,
    tell: dict[str, Any] | None = None,
    hiring: NearHiring | None = None,
) -> tuple[list[str], Engine]:
    """Run programs on workers in this process; returns their values and the run's engine.

    `tell` is told how many words passed between the run and its workers.
    """
    _Method.words.clear()
    pricing = Pricing({server.name: PriceConfig(input_per_million=1000.0, output_per_million=2000.0)})
    scratch = Path(tempfile.mkdtemp(dir=folder))
    with Store(folder / "run.sqlite") as store, _closing(Engine(store, limits, budget, pricing, run="r")) as engine:
        active = engine.budget.needs_dollars
        caps = BudgetConfig(
            decomposer_usd=0.0 if active else None,
            solver_usd=0.0 if active else None,
            tokens=None if budget.tokens is None else 0,
        )
        setup = Setup("r", limits, caps, pricing, Path(), scratch / "workers")
        cluster = Cluster(engine, setup, workers, hiring=hiring or NearHiring(server, workers))
        starts = (partial(asking, server, f"question {number}", more) for number in range(questions))
        try:
            values = [value async for value in cluster.stream(starts, engine)]
        finally:
            await cluster.end()
            if tell is not None:
                tell["words"] = Counter(_Method.words)
        return values, engine


class _closing:  # noqa: N801 - as contextlib has it
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.close()
