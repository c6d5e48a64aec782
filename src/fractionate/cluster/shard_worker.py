"""The actors of a run's work in shards: workers that answer them, and the collector that commits what workers ship.

A worker answers one shard at a time, with an engine and a store in memory of its own, a quota of the run's limits and
an allocation of its budget. It ships committed calls, as an SQLite table, and packed values to the collector. The
collector lives on the run's machine and writes to the run's own files, so that the run's process touches no call at
all: it asks the collector once a second how far all shards are. Nothing of a shard is written to a worker's disk.

A worker that cannot ship makes no more calls, so that one which the run has given up or cannot reach stops by itself.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from fractionate import __version__
from fractionate.calls.budget import BudgetReached, Pricing, Reservation, taken_from
from fractionate.calls.drive import stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.status import Counters
from fractionate.calls.store import Amount, Holds, MemoryStore, Store, StoredCall
from fractionate.calls.store_file import BUSY_S
from fractionate.cluster.connect import asked, why
from fractionate.cluster.remote_copy import RemoteCopy
from fractionate.cluster.sent import NamedModel, open_named, unpickled
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import CallCoroutine, Model
from fractionate.types import CALL_ROLES, CallRole, Completion, Message, Request

BATCH, BATCHES = 512, 8
"""Calls that a worker commits at most before it ships them, and per call in flight (32 at least): a dead worker loses
these, as many that are on their way, and its calls in flight."""
SHIP_S = 0.5
"""Seconds after which a worker ships what it has, even nothing: the run sees that its process is alive."""
PACKED = 256
"""Values that are packed together; fewer at the end of a shard."""
HOLD_S = 2.0
"""Seconds that a shipment may take before the worker makes no more calls."""
NEWS_S = 1.0
"""Seconds after which the run hears from the collector what was committed."""
_WINDOW = 4
"""Coroutines alive per call in flight: more would only hold memory, and finish later."""
_GIVEN = ""
"""The run that calls stand under in a worker's store which the run's own store has already."""
Make = Callable[[Any], CallCoroutine[Any]]
"""Makes the coroutine of one item."""
Pack = Callable[[Sequence[Any]], bytes]
"""Packs values where they were made, so that they are merged as tables and unpacked nowhere."""
Sink = Callable[[bytes], None]
"""Commits packed values."""
_NO_REQUEST = Request((Message("user", ""),), "solver")


@dataclass(frozen=True)
class Setup:
    """The settings that all shards of a run share. `environment` has the variables with the models' keys."""

    run: str
    pricing: Pricing | None
    base: Path
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    version: str = __version__


class ShardOrder(NamedTuple):
    """One shard: the holder of its allocation, its items with the completions that the run has, the allocation."""

    holder: str
    content: bytes
    allocation: BudgetConfig


class ShardStatus(NamedTuple):
    """How far a shard is, counted from its start: values made, what its calls were billed, calls in flight."""

    ended: int = 0
    counters: Counters = Counters()
    spent: Mapping[CallRole, Amount] = {}
    in_flight: int = 0
    left_out: Mapping[str, frozenset[str]] = {}
    """Fields of requests that servers rejected, by the identity of the model."""

    def spent_since(self, before: ShardStatus) -> dict[CallRole, Amount]:
        """Return what was spent after an earlier status."""
        return {role: amount.plus(before.spent.get(role, Amount(0.0, 0)), -1) for role, amount in self.spent.items()}


class Shipment(NamedTuple):
    """The calls (an SQLite database, b"" for none) and values of a shard since its last shipment, and its status."""

    calls: bytes
    values: Any
    said: Sequence[str]
    status: ShardStatus


class End(NamedTuple):
    """Why a shard has ended.

    `unconfirmed`: amounts that may have been billed beyond the calls shipped. `wanted`: the call that did not fit into
    the allocation. `error`: class and message of an error that ends the run. `stopped`: it was told to end early, or
    could not ship.
    """

    unconfirmed: Mapping[CallRole, Amount]
    wanted: Reservation | None = None
    error: tuple[str, str] | None = None
    stopped: bool = False


News: TypeAlias = tuple[dict[str, ShardStatus], dict[str, list[Any]], list[str]]
"""By the holders of shards that have shipped since the last news: how far they are, and their values if no sink takes
them; and lines for a person."""


class Collector:
    """Commits what workers ship, each shipment in one transaction. It dies with the run and only with it."""

    def __init__(self, store: Path, run: str, sink: Sink | None, remote_copy: RemoteCopy | None) -> None:
        """Without a `sink`, values go to the run's process."""
        self._store = Store(store)
        self._run = run
        self._sink = sink
        self._remote_copy = remote_copy
        self._statuses: dict[str, ShardStatus] = {}
        self._news: dict[str, ShardStatus] = {}
        self._values: dict[str, list[Any]] = {}
        self._said: list[str] = []
        self._closed: set[str] = set()
        self._error: FractionateError | None = None

    async def ship(self, holder: str, shipment: Shipment) -> None:
        """Commit a shard's shipment; of one that was closed the calls alone, which are paid for."""
        try:
            self._commit(holder, shipment)
        except FractionateError as error:
            self._error = error
            raise

    def _commit(self, holder: str, shipment: Shipment) -> None:
        status = shipment.status
        spent = status.spent_since(self._statuses.get(holder, ShardStatus()))
        holds = None
        if any(not amount.is_zero for amount in spent.values()):
            # In one transaction with the calls: what they used is counted once, whenever the run is killed.
            holds = self._run, {holder: taken_from(self._store.holders(self._run).get(holder, {}), spent)}
        if shipment.calls or holds:
            self._store.merge(shipment.calls, holds)
        if shipment.calls and self._remote_copy is not None:
            self._remote_copy.keep(shipment.calls)
        self._statuses[holder] = status
        self._said += shipment.said
        if holder in self._closed:
            return
        self._news[holder] = status
        if shipment.values and self._sink is not None:
            self._sink(shipment.values)
        elif shipment.values:
            self._values.setdefault(holder, []).extend(shipment.values)

    async def take(self, closing: str = "") -> News:
        """Return what was committed since the last time. Raises what could not be.

        Of a shard that is closed no value is taken any more: it has ended, or another worker is to answer the rest.
        """
        if self._error is not None:
            raise self._error
        self._closed.add(closing)
        news, self._news, self._values, self._said = (self._news, self._values, self._said), {}, {}, []
        return news

    async def flush(self) -> None:
        """Write what waits for the remote copy."""
        if self._remote_copy is not None:
            self._remote_copy.flush()


class ShardWorker:
    """Answers shards, one at a time. Its models stay open from one shard to the next."""

    def __init__(self, setup: Setup, common: bytes, limits: LimitsConfig, collector: Any) -> None:
        """`common` is what all shards of the work share: pickled `Make` and `Pack`."""
        os.environ.update(setup.environment)
        self.setup = setup
        self.common = common
        self.limits = limits
        self.collector = collector
        self.models: dict[NamedModel, Model] = {}
        self._shard: _ShardRun | None = None

    async def run(self, order: ShardOrder) -> End:
        """Answer a shard; all that it has made is committed in the run's files when this returns."""
        self._shard = _ShardRun(self, order)
        return await self._shard.work()

    async def stop(self, patient: bool) -> None:
        """Make no new calls. Those in flight come back: within their timeout if `patient`, else within a grace."""
        if self._shard is not None:
            self._shard.stop(patient)

    def open(self, wanted: NamedModel) -> Model:
        """Return a model, which is opened if it is not yet."""
        if wanted not in self.models:
            if self.setup.version != __version__:
                raise UsageError(
                    f"{platform.node()} has fractionate {__version__}, the run {self.setup.version}: install the same"
                )
            self.models[wanted] = open_named(wanted, self.setup.base)
        return self.models[wanted]


class _ShardStore(MemoryStore):
    """The store of one shard. `on_commit` is told how many calls each transaction has committed."""

    def __init__(self) -> None:
        super().__init__()
        self.on_commit: Callable[[int], None] = lambda count: None

    def put_many(
        self, calls: Sequence[StoredCall], *, holds: tuple[str, Holds] | None = None, patience_s: float = BUSY_S
    ) -> dict[str, Completion]:
        others = super().put_many(calls, holds=holds, patience_s=patience_s)
        if calls:
            self.on_commit(len(calls))
        return others


class _ShardRun:
    """One shard at work."""

    def __init__(self, worker: ShardWorker, order: ShardOrder) -> None:
        self._worker = worker
        self._order = order
        self._said: list[str] = []
        self._store = _ShardStore()
        limits, setup = worker.limits, worker.setup
        self._engine = Engine(self._store, limits, order.allocation, setup.pricing, self._said.append, run=setup.run)
        self._engine.change_limits(limits)  # rate limiters start with nothing saved up: the shard before used it
        self._window = max(16, _WINDOW * limits.concurrency)
        self._batch = min(BATCH, max(32, BATCHES * limits.concurrency))
        self._unshipped = self._exported = self._ended = 0
        self._full = asyncio.Event()
        self._spent: dict[CallRole, Amount] = {}
        self._values: list[Any] = []
        self._pack: Pack | None = None
        self._answering = asyncio.ensure_future(self._answer())
        self._cut_off = False

    async def work(self) -> End:
        """Work through the shard to its end, or until it is stopped."""
        shipping = asyncio.ensure_future(self._keep_shipping())
        await asyncio.wait([self._answering])
        self._full.set()
        await shipping
        await self._engine.await_rates()  # the quota goes to another shard
        with suppress(FractionateError):
            self._engine.close()
        if not self._cut_off:
            await self._ship(last=True)
        self._store.close()
        return self._end()

    def stop(self, patient: bool) -> None:
        """Make no new calls."""
        if patient:
            self._engine.stop(_StoppedError("stopped"))
        else:
            self._answering.cancel()

    async def _answer(self) -> None:
        make, self._pack = unpickled(self._worker.common, self._worker.open)
        items, known = unpickled(self._order.content, self._worker.open)
        self._keep(known)
        self._store.on_commit = self._committed
        async for value in stream_all((make(item) for item in items), self._engine, self._window):
            self._values.append(value)

    def _keep(self, known: Mapping[str, Completion]) -> None:
        given = [
            StoredCall(key, "", "", _GIVEN, _NO_REQUEST, completion, paid=False) for key, completion in known.items()
        ]
        if given:
            self._store.put_many(given)

    def _committed(self, count: int) -> None:
        self._unshipped += count
        if self._unshipped >= self._batch:
            self._engine.hold(True)
            self._full.set()

    async def _keep_shipping(self) -> None:
        while not self._answering.done() and not self._cut_off:
            await self._ship()  # the first time to say that the shard has begun
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), SHIP_S)

    async def _ship(self, *, last: bool = False) -> None:
        """Ship what there is, and hold the engine while nobody takes it."""
        from ray.exceptions import RayError

        shipment = self._gather(last=last)
        self._engine.hold(False)
        try:
            sending = asyncio.ensure_future(asked(self._worker.collector.ship.remote(self._order.holder, shipment)))
            await asyncio.wait([sending], timeout=HOLD_S)
            if not sending.done():
                self._engine.hold(True)
            await sending
        except (RayError, FractionateError) as error:  # the run's machine is lost, or cannot write
            self._cut_off = True
            self._said.append(why(error))
            self.stop(patient=False)
            return
        if self._unshipped < self._batch:
            self._engine.hold(False)

    def _gather(self, *, last: bool) -> Shipment:
        self._exported, calls, spent = self._store.export(self._exported, self._worker.setup.run)
        self._unshipped = 0
        self._full.clear()
        ready = len(self._values) if self._pack is None or last else len(self._values) // PACKED * PACKED
        values, self._values = self._values[:ready], self._values[ready:]
        self._ended += ready
        said, self._said[:] = tuple(self._said), []
        budget = self._engine.budget
        for role in CALL_ROLES if spent else ():
            billed = budget.price_all([one for one in spent if one.role == role])
            self._spent[role] = billed.plus(self._spent.get(role, Amount(0.0, 0)))
        status = ShardStatus(
            self._ended,
            deepcopy(self._engine.counters),
            dict(self._spent),
            self._engine.in_flight,
            {model.identity: model.left_out for model in self._worker.models.values() if model.left_out},
        )
        return Shipment(calls, self._pack(values) if self._pack is not None and values else values, said, status)

    def _end(self) -> End:
        unconfirmed = self._engine.budget.unconfirmed
        if self._answering.cancelled():
            return End(unconfirmed, stopped=True)
        error = self._answering.exception()
        if error is None:
            return End(unconfirmed, stopped=self._cut_off)
        if isinstance(error, _StoppedError):
            return End(unconfirmed, stopped=True)
        if isinstance(error, BudgetReached) and error.wanted is not None:
            return End(unconfirmed, wanted=error.wanted)
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FractionateError):
            return End(unconfirmed, error=(type(error).__name__, line))
        return End(unconfirmed, error=("Bug", f"a coroutine failed on a worker: {type(error).__name__}: {line}"))


class _StoppedError(FractionateError):
    """The run wants no further calls."""
