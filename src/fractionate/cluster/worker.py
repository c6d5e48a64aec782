"""One worker: an engine of its own over a store of its own, which runs the ranges that it is given.

It makes calls as any run does, within its share of the limits and what it was lent of the budget, and commits each
reply to its store before the reply is used. The run fetches what was committed from there (`report`), so that a worker
that dies loses nothing but calls in flight.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fractionate import __version__
from fractionate.calls.budget import BudgetReached, Pricing, Reservation
from fractionate.calls.drive import CallCoroutine, Stepper, stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.status import Counters
from fractionate.calls.store import Hold, Store, StoredCall
from fractionate.cluster.programs import NamedModel, unpack
from fractionate.cluster.scratch import Left, Scratch
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions
from fractionate.errors import FractionateError, UsageError
from fractionate.models import open_model
from fractionate.models.base import Model
from fractionate.types import ROLES, Completion, Message, Request, Role

MOST_ROWS = 4_000
"""Rows of one report."""
LEASE_S = 10.0
"""Seconds after which a worker that the run asks for nothing makes no more calls: another may have its work by then."""
_GIVEN = ""
"""The run that completions stand under which the worker was given: they are nothing to report."""
_NO_REQUEST = Request((Message("user", ""),), "solver")


@dataclass(frozen=True)
class Setup:
    """What all workers of a run are told. `environment` holds the variables that models read their keys from."""

    run: str
    limits: LimitsConfig
    caps: BudgetConfig
    pricing: Pricing | None
    base: Path
    scratch: Path
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Hello:
    """A worker's word: who it is, with what it runs, what dead ones have left on its disk, and who lives there."""

    worker: str
    version: str
    machine: str
    left: list[Left]
    living: list[str]


class Want(NamedTuple):
    """What a call that waits is short of."""

    role: Role
    usd: float
    tokens: int


class GivenBack(NamedTuple):
    """What a worker gives back of its loan, its calls under way, and what one that waits is short of without it."""

    unused: dict[Role, Hold]
    under_way: int
    want: Want | None


@dataclass(frozen=True)
class Report:
    """What a worker has done since: rows beyond a place of its store, and how it stands.

    `counters` count from the worker's beginning.
    """

    place: int
    more: bool
    rows: list[tuple[Any, ...]]
    counters: Counters
    in_flight: int
    want: Want | None
    said: list[str]


@dataclass(frozen=True)
class Done:
    """The end of a range: how far its store reached then, the calls that failed, and what stopped the work, if so.

    `stopped` is the kind of error and its line.
    """

    place: int
    failed: dict[str, Completion]
    stopped: tuple[str, str] | None = None


class Worker:
    """Runs ranges of programs. Every method but the constructor is called through Ray, in one event loop."""

    def __init__(self, setup: Setup) -> None:
        os.environ.update(setup.environment)
        self._setup = setup
        self._scratch = Scratch(setup.scratch)
        self.name = self._scratch.new()
        self._left: dict[str, Left] = {}
        self._store = Store(self._scratch.store(self.name))
        self._said: list[str] = []
        self._want: Reservation | None = None
        waiting = setup.limits.model_copy(update={"concurrency": 1})  # until it is told its share
        self._engine = Engine(
            self._store, waiting, setup.caps, setup.pricing, self._said.append, run=setup.run, lender=self
        )
        self._models: dict[NamedModel, Model] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._news: asyncio.Event | None = None
        self._lease: asyncio.TimerHandle | None = None

    async def hello(self) -> Hello:
        """Say who is there, and what was found; may be asked again."""
        living = self._scratch.living()
        self._left.update((one.worker, one) for one in self._scratch.dead(self._setup.run))
        left = list(self._left.values())
        return Hello(self.name, __version__, platform.node(), left, living)

    async def handed_in(self, worker: str) -> None:
        """Take note that the run has what a dead worker left."""
        if self._left.pop(worker, None) is not None:
            self._scratch.remove(worker)

    async def run(self, data: bytes) -> Done:
        """Run a range of programs to their ends."""
        task: asyncio.Task[dict[str, Completion]] = asyncio.get_running_loop().create_task(self._run(data))
        self._running.add(task)
        try:
            failed = await task
        except asyncio.CancelledError:
            return Done(self._place(), {}, ("FractionateError", "stopped"))
        except FractionateError as error:
            return Done(self._place(), {}, (type(error).__name__, str(error)))
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            return Done(self._place(), {}, ("Bug", f"{type(error).__name__}: {said}"))
        finally:
            self._running.discard(task)
            self.nudge()
        return Done(self._place(), failed)

    async def report(self, seen: int, wait_s: float) -> Report:
        """Return what was committed beyond a place, at once where there is news, else after a while.

        To be asked is what keeps the worker making calls.
        """
        self._renew(LEASE_S + wait_s)
        if self._place() - seen < MOST_ROWS:
            await self._await_news(wait_s)
        place, rows = self._store.rows_after(seen, self._setup.run, MOST_ROWS)
        said, self._said[:] = list(self._said), []
        return Report(
            place,
            len(rows) == MOST_ROWS,
            rows,
            deepcopy(self._engine.counters),
            self._engine.in_flight,
            self._wanted(),
            said,
        )

    async def allow(self, limits: LimitsConfig) -> None:
        """Keep to other limits; returns once no more calls are under way than they allow."""
        self._engine.change_limits(limits)
        while self._engine.slots_taken > limits.concurrency:
            await asyncio.sleep(0.02)

    async def lend(self, role: Role, usd: float, tokens: int) -> None:
        """Take a loan."""
        self._want = None
        self._engine.budget.raise_cap(role, usd, tokens)

    async def give_back(self) -> GivenBack:
        """Give back what of the loan is not used."""
        budget = self._engine.budget
        returned: dict[Role, Hold] = {}
        for role in ROLES:
            unused = returned[role] = budget.unused(role)
            budget.raise_cap(role, -unused.usd, -unused.tokens)
        return GivenBack(returned, budget.in_flight, self._wanted())

    async def refuse(self, said: str) -> None:
        """Take note that there is no more to be lent."""
        self._want = None
        error = BudgetReached(said)
        self._engine.stop(error)
        self._engine.budget.refuse(error)

    async def rest(self, seen: int) -> None:
        """Forget the rows up to a place: the run has them, and nothing is to be done for now."""
        if self._lease is not None:
            self._lease.cancel()
        self._store.forget(seen)

    async def stop(self) -> int:
        """End what runs: calls in flight have a moment to come back. Returns how far the store reaches then."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        self.nudge()
        return self._place()

    async def end(self, seen: int) -> bool:
        """Close everything; the store is deleted if the run has all of it. Returns whether that is so."""
        await self.stop()
        for model in self._models.values():
            await model.close()
        self._engine.close()
        _, rows = self._store.rows_after(seen, self._setup.run, 1)
        self._store.close()
        if not rows:
            self._scratch.remove(self.name)
        self._scratch.close()
        return not rows

    def want(self, wanted: Reservation) -> None:
        """Take note of a call that waits for a loan (the engine's budget calls this)."""
        if self._want is None:  # asked again with every reply, it is news once
            self.nudge()
        self._want = wanted

    def nudge(self) -> None:
        """Let a report that waits be made."""
        if self._news is not None:
            self._news.set()

    async def _run(self, data: bytes) -> dict[str, Completion]:
        starts, known = unpack(data, self._open)
        self._keep(known)
        failed: dict[str, Completion] = {}
        programs = (_watched(start(), failed) for start in starts)
        async for _ in stream_all(programs, self._engine):
            pass
        return failed

    def _keep(self, known: Mapping[str, Completion]) -> None:
        rows = [
            StoredCall(key, "", "", _GIVEN, _NO_REQUEST, completion, paid=False) for key, completion in known.items()
        ]
        if rows:
            self._store.put_many(rows)

    def _open(self, wanted: NamedModel) -> Model:
        if wanted not in self._models:
            options = ModelOptions.model_validate_json(wanted.options)
            model = open_model(wanted.name, options, self._setup.base)
            if model.identity != wanted.identity:
                raise UsageError(
                    f"{wanted.name} is another model on {platform.node()}: copy the run's files there, at the same path"
                )
            self._models[wanted] = model
        return self._models[wanted]

    def _renew(self, seconds: float) -> None:
        if self._lease is not None:
            self._lease.cancel()
        self._engine.hold(False)
        self._lease = asyncio.get_running_loop().call_later(seconds, self._engine.hold, True)

    def _wanted(self) -> Want | None:
        """Return what the call that waits is short of, None if none does."""
        wanted = self._want
        if wanted is None or not self._engine.budget.is_waited_for:
            return None
        unused = self._engine.budget.unused(wanted.role)
        return Want(wanted.role, max(0.0, wanted.usd - unused.usd), max(0, wanted.tokens - unused.tokens))

    async def _await_news(self, wait_s: float) -> None:
        news = self._news = self._news or asyncio.Event()
        with suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), wait_s)
        news.clear()

    def _place(self) -> int:
        return self._store.last_place()


def _watched(program: CallCoroutine[Any], failed: dict[str, Completion]) -> CallCoroutine[Any]:
    """Run a program and note its calls that failed: no store keeps them, and the run is to see the same."""
    stepper = Stepper(program)
    replies: Sequence[Completion] | None = None
    while (calls := stepper.send(replies)) is not None:
        replies = yield calls
        for call, reply in zip(calls, replies, strict=True):
            if reply.finish_reason == "error":
                failed[call.model.key(call.request)] = reply
    return stepper.value
