"""A run's calls as shards: cut, given to Ray actors that answer them, and given again where an actor dies.

Ray places the workers (`shard_worker.ShardWorker`) and says when one is lost. Here is only what Ray cannot know: which
questions are answered, what the run may still spend, and in which order values are wanted.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from fractionate.calls.batches import GRACE_S
from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import run_with, stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.stages import TaskFactory, run_here
from fractionate.cluster.allocation import Allocator, most_shards, quotas
from fractionate.cluster.connect import asked, beside_driver, why
from fractionate.cluster.remote_copy import RemoteCopy
from fractionate.cluster.sent import pickled
from fractionate.cluster.shard_queue import Shard, ShardQueue, can_leave
from fractionate.cluster.shard_worker import (
    NEWS_S,
    PACKED,
    Collector,
    End,
    Make,
    Pack,
    Setup,
    ShardOrder,
    ShardStatus,
    ShardWorker,
    Sink,
)
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.types import Completion, Usage

TRIES = 3
"""Workers that may die over one question alone before it counts as failed."""
MOST_DEATHS = 20
"""Workers that may die one after another without one question being answered."""
SILENT_S = 60.0
"""Seconds without a shipment after which a worker is taken for dead: its process is stopped, or cut off."""
START_S = 300.0
"""Seconds in which Ray may begin none of the shards."""
END_S = 10.0
"""Seconds beyond the grace of their calls that shards may take to stop."""
_KINDS = {kind.__name__: kind for kind in (FractionateError, UsageError, BudgetReached)}


@dataclass(eq=False)
class Shards:
    """Runs a run's calls on a cluster that is joined. `stream` takes the place of `calls.stages.run_here`.

    `workers` is how many shards run at once, 0 for one per core. `say` is called with lines for a person, `left_out`
    with the fields that servers rejected, by a model's identity.
    """

    engine: Engine
    setup: Setup
    workers: int = 0
    say: Callable[[str], None] = lambda text: None
    remote_copy: RemoteCopy | None = None
    left_out: Callable[[str, frozenset[str]], None] = lambda identity, names: None

    async def stream(self, factories: Iterable[TaskFactory], engine: Engine) -> AsyncGenerator[Any, None]:
        """Run coroutines in shards; yields their values in order.

        Coroutines that ask only local weights, batch endpoints or recordings run in this process. Raises what
        `stream_all` does, once calls in flight have come back and are stored.
        """
        waiting = iter(factories)
        first = list(islice(waiting, 1))
        if not first or not can_leave(pickled(first[0])[1]):
            async for value in run_here(chain(first, waiting), engine):
                yield value
            return
        early: dict[int, Any] = {}
        following = 0
        async with _Work(self, chain(first, waiting), lambda factory: factory()) as work:
            async for place, value in work.values():
                early[place] = value
                while following in early:
                    yield early.pop(following)
                    following += 1

    async def run(
        self, make: Make, items: Iterable[Any], pack: Pack, sink: Sink, is_new: Callable[[Any], bool]
    ) -> None:
        """Run the coroutines that `make` makes of items in shards; `sink` commits their packed values, in any order.

        Items are plain values (texts, numbers, tuples): only `make`, which travels once, holds models. All calls can be
        made elsewhere. `is_new` says of an item that neither the store nor another item has a call of its coroutine, so
        that the store is not searched for it.
        """
        async with _Work(self, items, make, is_new, pack, sink) as work:
            async for _ in work.values():
                pass


@dataclass(eq=False)
class _Running:
    """A shard that is being answered: the positions whose values are still to come, and what its worker said last."""

    places: deque[int]
    worker: Any = None
    status: ShardStatus = field(default_factory=ShardStatus)
    heard_at: float | None = None
    silent: bool = False


class _Work:
    """One piece of work in progress: slots, as many as workers, that take shards from one queue."""

    def __init__(
        self,
        shards: Shards,
        items: Iterable[Any],
        make: Make,
        is_new: Callable[[Any], bool] = lambda item: False,
        pack: Pack | None = None,
        sink: Sink | None = None,
    ) -> None:
        import ray

        self._shards = shards
        self._engine = engine = shards.engine
        self._make = make
        self._pack = pack
        self._sink = sink
        self._cores = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        count = max(1, min(shards.workers or int(self._cores), most_shards(engine.limits)))
        self._quotas: list[LimitsConfig] = quotas(engine.limits, count)
        self._queue = ShardQueue(engine, items, make, is_new, count, self._quotas[0].concurrency, self._take)
        self._allocator = Allocator(engine.budget, engine.store, count)
        self._sent = ray.put(shards.setup), ray.put(pickled((make, pack))[0])
        self._actors = ExitStack()
        self._collector: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, _Running] = {}
        self._values: deque[tuple[int, Any]] = deque()
        self._unpacked: list[Any] = []
        self._changed = asyncio.Event()
        self._hearing = asyncio.Lock()
        self._draining = False
        self._deaths = 0
        self._begun = False

    async def __aenter__(self) -> _Work:
        arguments = self._engine.store.path.resolve(), self._engine.run, self._sink, self._shards.remote_copy
        self._collector = self._actors.enter_context(beside_driver(Collector, *arguments))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Wait until calls in flight have returned and are stored, then end."""
        try:
            if self._running:
                patient = isinstance(error, FractionateError)
                if isinstance(error, FractionateError):
                    self._engine.stop(error)
                await self._drain(self._engine.limits.timeout_s if patient else GRACE_S, patient=patient)
            if self._shards.remote_copy is not None:
                await asked(self._collector.flush.remote())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._actors.__exit__(kind, error, trace)

    async def values(self) -> AsyncGenerator[tuple[int, Any], None]:
        """Yield the coroutines' values with their positions, in any order; none where a sink takes them."""
        slots = [asyncio.ensure_future(self._slot(quota)) for quota in self._quotas]
        self._tasks = [*slots, asyncio.ensure_future(self._follow())]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._notify())
        while not all(slot.done() for slot in slots) or any(slot.exception() for slot in slots):
            changed = self._changed
            while self._values:
                yield self._values.popleft()
            for task in self._tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error
            await changed.wait()
        # What waited for a call of another coroutine: that call is stored now, or has failed.
        coroutines = (self._make(item) for item in self._queue.postponed.values())
        made = stream_all(coroutines, self._engine)
        for place in self._queue.postponed:
            self._take(place, await anext(made))
        while self._values:
            yield self._values.popleft()
        self._flush()

    def _take(self, place: int, value: Any) -> None:
        """Take a value that was made in this process, or that no sink took."""
        if self._sink is None:
            self._values.append((place, value))
            return
        self._unpacked.append(value)
        if len(self._unpacked) == PACKED:
            self._flush()

    def _flush(self) -> None:
        if self._unpacked and self._sink is not None and self._pack is not None:
            self._sink(self._pack(self._unpacked))
            self._unpacked = []

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _slot(self, quota: LimitsConfig) -> None:
        """Answer shards with one worker at a time, as long as there are any."""
        import ray

        worker = None
        try:
            while (shard := await self._next()) is not None:
                worker = worker or self._start(quota)
                if not await self._run(worker, *shard):
                    ray.kill(worker)
                    worker = None
        finally:
            if worker is not None:
                with suppress(Exception):  # it may be lost already
                    ray.kill(worker)

    def _start(self, quota: LimitsConfig) -> Any:
        import ray

        # A worker mostly waits for servers: more workers than cores take a part of a core each.
        part = max(0.001, min(1.0, int(1000 * self._cores / len(self._quotas)) / 1000))
        options = ray.remote(ShardWorker).options(num_cpus=part, scheduling_strategy="SPREAD")
        return options.remote(*self._sent, quota, self._collector)

    async def _next(self) -> tuple[Shard, ShardOrder] | None:
        """Return the next shard with its order, once there is one; None where there will be none."""
        while not self._draining:
            changed = self._changed
            if self._queue.ready:
                shard = self._queue.ready[0]
                order = self._order(shard)
                if order is not None:
                    self._queue.ready.popleft()
                    self._running[order.holder] = _Running(deque(shard.items))
                    return shard, order
                if not self._running:
                    assert shard.wanted is not None, "only a call that is counted needs an allocation"
                    raise self._engine.budget.reached(shard.wanted)
            elif self._queue.fill():
                self._notify()
                await asyncio.sleep(0)
                continue
            elif not self._running:
                return None
            await changed.wait()  # a shard that ends may leave a rest, and returns its allocation
        return None

    def _order(self, shard: Shard) -> ShardOrder | None:
        """Return a shard with an allocation that the store knows of; None where the budget has no room just now."""
        budget = self._engine.budget
        if shard.wanted is None and budget.active:
            shard.wanted = self._queue.first_call(shard)
        allocation = self._allocator.allocate(len(shard.items), shard.wanted)
        if allocation is None:
            return None
        content = list(shard.items.values()), shard.known
        # With a sink, items are plain; else they may hold models.
        sent = pickled(content)[0] if self._sink is None else pickle.dumps(content, 5)
        return ShardOrder(allocation.holder, sent, allocation.caps)

    async def _run(self, worker: Any, shard: Shard, order: ShardOrder) -> bool:
        """Have a worker answer a shard, and what it leaves undone answered again. Returns whether it is alive."""
        from ray.exceptions import RayError, RayTaskError

        running = self._running[order.holder]
        running.worker = worker
        end: End | None = None
        try:
            end = await worker.run.remote(order)
        except RayTaskError as error:
            fix = "are the same packages installed on every machine?"
            raise FractionateError(f"a worker failed ({why(error)}): {fix}") from error
        except RayError:
            pass  # it died
        finally:
            await self._hear(closing=order.holder)
            del self._running[order.holder]
            self._engine.elsewhere -= running.status.in_flight
            self._notify()
        rest = Shard({place: shard.items[place] for place in running.places}, is_fresh=False, deaths=shard.deaths)
        if end is not None:
            self._finished(rest, end, order.holder)
        elif rest.items and not self._draining:
            self._died(rest, silent=running.silent)
        return end is not None

    async def _follow(self) -> None:
        """Hear from the collector how far all shards are; end workers that say nothing any more."""
        import ray

        began = time.monotonic()
        while True:
            await asyncio.sleep(NEWS_S)
            await self._hear()
            now = time.monotonic()
            if not self._begun and now - began > START_S:
                raise FractionateError(
                    f"the cluster began no work in {START_S:.0f} s: are all its cores taken ('ray status')?"
                )
            for one in self._running.values():
                if one.heard_at is not None and now - one.heard_at > SILENT_S and not one.silent:
                    one.silent = True
                    ray.kill(one.worker)

    async def _hear(self, closing: str = "") -> None:
        """Hear what has been committed since the last time; take nothing more of a shard that is closed."""
        async with self._hearing:  # values come in the order in which they were made
            statuses, values, said = await asked(self._collector.take.remote(closing))
            for line in said:
                self._shards.say(f"a worker: {line}")
            for holder, status in statuses.items():
                if holder in self._running:
                    self._note(holder, self._running[holder], status, values.get(holder, ()))
        self._notify()

    def _note(self, holder: str, running: _Running, status: ShardStatus, values: Sequence[Any]) -> None:
        before, running.status, running.heard_at = running.status, status, time.monotonic()
        ended = [running.places.popleft() for _ in range(status.ended - before.ended)]
        if self._sink is None:
            self._values.extend(zip(ended, values, strict=True))
        self._begun = True
        self._deaths = 0 if ended else self._deaths
        self._engine.counters.add(status.counters, before.counters)
        self._engine.elsewhere += status.in_flight - before.in_flight
        if self._engine.budget.active:
            self._engine.budget.spent_from(holder, status.spent_since(before))
        for identity, names in status.left_out.items():
            self._shards.left_out(identity, names)

    def _finished(self, rest: Shard, end: End, holder: str) -> None:
        if self._engine.budget.active:
            self._allocator.take_back(holder, end.unconfirmed)
        if end.error is not None:
            raise _KINDS.get(end.error[0], FractionateError)(end.error[1])
        if not rest.items or self._draining:
            return
        if end.stopped:  # the run's machine could not be asked
            self._died(rest, silent=False)
            return
        if end.wanted is not None:
            self._allocator.raise_estimate()
        rest.wanted = end.wanted
        self._again(rest)

    def _died(self, rest: Shard, *, silent: bool) -> None:
        """Have what a dead worker left undone run again, in halves: one question may be what kills workers."""
        self._deaths += 1
        self._shards.say(
            f"a worker {'says nothing any more' if silent else 'died'}: the {len(rest.items)} questions that it had "
            "left go to another"
        )
        if self._deaths > MOST_DEATHS:
            raise FractionateError(
                f"{self._deaths} workers died one after another and no question was answered: see Ray's logs, or run "
                "without --on; everything completed is stored"
            )
        items = list(rest.items.items())
        middle = len(items) // 2
        if middle:
            for half in (items[:middle], items[middle:]):
                self._again(Shard(dict(half), is_fresh=False))
            return
        rest.deaths += 1
        if rest.deaths < TRIES:
            self._again(rest)
            return
        error = f"{rest.deaths} workers died while they worked on this question"
        failed = Completion("", "error", Usage(calls=1), error=error)
        self._take(items[0][0], run_with(self._make(items[0][1]), lambda _: failed))

    def _again(self, shard: Shard) -> None:
        self._queue.add(shard)
        self._notify()

    async def _drain(self, seconds: float, *, patient: bool) -> None:
        """Tell all workers to stop, and wait until what they still ship is committed."""
        self._draining = True
        self._queue.ready.clear()
        for one in self._running.values():
            one.worker.stop.remote(patient)
        self._notify()
        await asyncio.wait(self._tasks[:-1], timeout=seconds + END_S)
