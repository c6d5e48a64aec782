"""A run's calls as shards: cut, submitted to Ray, merged as they come back, submitted again where a worker dies.

Ray places and runs the tasks (`shard_task.run_shard`) and says when one is lost. Here is only what Ray cannot know:
which questions are answered, what the run may still spend, and in which order values are wanted.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, islice
from typing import Any

from fractionate.calls.batches import GRACE_S
from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import run_with, stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.stages import TaskFactory, run_here
from fractionate.calls.status import Counters
from fractionate.cluster.allocation import Allocator, Merger, most_shards, quotas
from fractionate.cluster.connect import beside_driver, why
from fractionate.cluster.remote_copy import RemoteCopy
from fractionate.cluster.shard_queue import Shard, ShardQueue, can_leave
from fractionate.cluster.shard_task import (
    End,
    Make,
    Pack,
    Setup,
    ShardOrder,
    Shipment,
    StopSignal,
    call,
    pickled,
    run_shard,
)
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.types import Completion, Usage

TRIES = 3
"""Workers that may die over one question alone before it counts as failed."""
MOST_DEATHS = 20
"""Workers that may die one after another without one question being answered."""
SILENT_S = 60.0
"""Seconds without a shipment after which a shard's process is taken for dead: stopped, or cut off."""
START_S = 300.0
"""Seconds in which Ray may begin none of the shards."""
END_S = 10.0
"""Seconds beyond the grace of their calls that shards may take to stop."""
_KINDS: dict[str, type[FractionateError]] = {
    kind.__name__: kind for kind in (FractionateError, UsageError, BudgetReached)
}
_PACKED = object()
"""Stands for a value that has come packed."""


class Shards:
    """Runs a run's calls on a cluster that is joined. `stream` takes the place of `calls.stages.run_here`."""

    def __init__(
        self,
        engine: Engine,
        setup: Setup,
        workers: int,
        say: Callable[[str], None] = lambda text: None,
        remote_copy: RemoteCopy | None = None,
    ) -> None:
        """`workers` is how many shards run at once, 0 for one per core; `say` is told what a person should know."""
        self.engine = engine
        self.say = say
        self.remote_copy = remote_copy
        self.setup = setup
        self.workers = workers

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
        async with _Work(self, chain(first, waiting)) as work:
            async for value in work.values():
                yield value

    async def stream_packed(
        self, make: Make, items: Iterable[Any], pack: Pack, is_new: Callable[[Any], bool]
    ) -> AsyncGenerator[bytes, None]:
        """Run the coroutines that `make` makes of items in shards; yields their values packed, in any order.

        Items are plain values (texts, numbers, tuples): only `make`, which travels once, holds models. All calls can be
        made elsewhere. `is_new` says of an item that neither the store nor another item has a call of its coroutine, so
        that the store is not searched for it.
        """
        async with _Work(self, items, make, pack, is_new) as work:
            async for packed in work.values():
                yield packed


class _Work:
    """One piece of work in progress."""

    def __init__(
        self,
        shards: Shards,
        items: Iterable[Any],
        make: Make = call,
        pack: Pack | None = None,
        is_new: Callable[[Any], bool] = lambda item: False,
    ) -> None:
        import ray

        self._shards = shards
        self._engine = engine = shards.engine
        self._make = make
        self._pack = pack
        self._packed: deque[bytes] = deque()
        self._news = asyncio.Event()
        cores = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        self._slots = max(1, min(shards.workers or int(cores), most_shards(engine.limits)))
        self._quotas: list[LimitsConfig] = quotas(engine.limits, self._slots)
        self._queue = ShardQueue(engine, items, make, is_new, self._slots, self._quotas[0].concurrency, self._news.set)
        self._allocator = Allocator(engine.budget, self._slots)
        self._merger = Merger(engine, shards.remote_copy)
        self._setup, self._common = ray.put(shards.setup), ray.put(pickled((make, pack))[0])
        # A shard mostly waits for servers: more of them than cores take a part of one each.
        self._task = ray.remote(run_shard).options(
            num_returns="streaming",
            num_cpus=max(0.001, min(1.0, int(1000 * cores / self._slots) / 1000)),
            max_retries=0,
            scheduling_strategy="SPREAD",
            _generator_backpressure_num_objects=1,
        )
        self._actors = ExitStack()
        self._stop: Any = None
        self._draining = False
        self._running: dict[asyncio.Task[None], Shard] = {}
        self._values = self._queue.values
        self._next = 0
        self._error: BaseException | None = None
        self._deaths = 0
        self._begun = False

    async def __aenter__(self) -> _Work:
        self._stop = self._actors.enter_context(beside_driver(StopSignal, max_concurrency=10_000))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Wait until calls in flight have returned and are stored, then end."""
        try:
            if self._running:
                if isinstance(error, FractionateError):
                    self._engine.stop(error)
                    await self._drain(self._engine.limits.timeout_s, patient=True)
                else:
                    await self._drain(GRACE_S, patient=False)
            if self._shards.remote_copy is not None:
                self._shards.remote_copy.flush()
        finally:
            self._actors.close()

    async def values(self) -> AsyncGenerator[Any, None]:
        """Yield the coroutines' values in order; with `pack` packed, in any order."""
        while True:
            self._queue.fill(self._slots - len(self._running), self._next)
            self._submit()
            while self._packed:
                yield self._packed.popleft()
            while self._next in self._values or self._next in self._queue.postponed:
                value = await self._take()
                if self._pack is None:
                    yield value
                elif value is not _PACKED:  # it was made in this process
                    yield self._pack([value])
            if self._error is not None:
                raise self._error
            if self._queue.is_exhausted and self._next == self._queue.taken:
                return
            if self._running:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), START_S)
                if not self._news.is_set() and not self._begun:
                    raise FractionateError(
                        f"the cluster began no work in {START_S:.0f} s: are all its cores taken ('ray status')?"
                    )
                self._news.clear()

    async def _take(self) -> Any:
        place = self._next
        self._next += 1
        if place in self._values:
            return self._values.pop(place)
        # It waited for a call that another coroutine made: now that one is stored, or failed.
        coroutine = self._make(self._queue.postponed.pop(place))
        (value,) = [value async for value in stream_all([coroutine], self._engine)]
        return value

    def _submit(self) -> None:
        ready = self._queue.ready
        while ready and len(self._running) < self._slots:
            shard = ready[0]
            if shard.wanted is None and self._engine.budget.active:
                shard.wanted = self._queue.first_call(shard)
            allocation = self._allocator.allocate(len(shard.items), shard.wanted)
            if allocation is None:
                if self._running:
                    return  # they may return some
                assert shard.wanted is not None, "only a call that is counted needs an allocation"
                raise self._engine.budget.reached(shard.wanted)
            ready.popleft()
            self._merger.write_allocations()  # the store knows of it before anything is spent
            quota = self._quotas.pop()
            order = ShardOrder(self._pickled(shard), quota, allocation.caps)
            task = asyncio.get_running_loop().create_task(self._run(shard, order, allocation.holder))
            self._running[task] = shard
            task.add_done_callback(partial(self._ended, quota))

    def _pickled(self, shard: Shard) -> bytes:
        """Return a shard's items and known completions as bytes; without `pack`, items may hold models."""
        content = list(shard.items.values()), shard.known
        return pickled(content)[0] if self._pack is None else pickle.dumps(content, 5)

    def _ended(self, quota: LimitsConfig, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        self._quotas.append(quota)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()
        self._news.set()

    # ---------------------------------------------------------------- merging

    async def _run(self, shard: Shard, order: ShardOrder, holder: str) -> None:
        """Run one shard as a task; have what it leaves undone run again."""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        stream = self._task.remote(self._setup, self._common, order, self._stop)
        places = iter(list(shard.items))
        before, in_flight, end = Counters(), 0, None
        silent, limit_s = False, None  # until Ray has begun it
        try:
            while end is None:
                shipment = await self._receive(stream, limit_s)
                self._begun, limit_s = True, SILENT_S
                self._merger.merge(shipment, holder)
                for line in shipment.said:
                    self._shards.say(f"a worker: {line}")
                self._receive_values(shard, list(islice(places, shipment.ended)), shipment.values)
                self._engine.counters.add(shipment.counters, before)
                self._engine.elsewhere += shipment.in_flight - in_flight
                before, in_flight, end = shipment.counters, shipment.in_flight, shipment.end
        except TimeoutError:
            silent = True
            ray.cancel(stream, force=True)
        except StopAsyncIteration:
            pass  # it ended without saying why
        except RayError as error:
            if isinstance(error, RayTaskError) and not isinstance(error, TaskCancelledError):
                fix = "are the same packages installed on every machine?"
                raise FractionateError(f"a worker failed ({why(error)}): {fix}") from error
        except asyncio.CancelledError:
            ray.cancel(stream, force=True)
            raise
        finally:
            self._engine.elsewhere -= in_flight
        if end is None:
            self._died(shard, silent=silent)
        else:
            self._finished(shard, end, holder)

    def _receive_values(self, shard: Shard, places: Sequence[int], values: Any) -> None:
        if not places:
            return
        if self._pack is not None:
            self._packed.append(values)
            values = [_PACKED] * len(places)
        self._values.update(zip(places, values, strict=True))
        for place in places:
            del shard.items[place]
        self._deaths = 0
        self._news.set()

    async def _receive(self, stream: Any, limit_s: float | None) -> Shipment:
        async with asyncio.timeout(limit_s):
            shipment: Shipment = await (await stream.__anext__())
        return shipment

    def _finished(self, shard: Shard, end: End, holder: str) -> None:
        if end.error is not None:
            kind, line = end.error
            raise _KINDS.get(kind, FractionateError)(line)
        if not shard.items or self._draining:
            return
        if end.stopped:  # the run's machine could not be asked
            self._died(shard, silent=False)
            return
        if end.wanted is not None:
            self._allocator.raise_estimate()
        shard.wanted = end.wanted
        self._again(shard)

    def _died(self, shard: Shard, *, silent: bool) -> None:
        """Have what a dead worker left undone run again, in halves: one question may be what kills workers."""
        if not shard.items or self._draining:
            return
        self._deaths += 1
        self._shards.say(
            f"a worker {'says nothing any more' if silent else 'died'}: the {len(shard.items)} questions that it "
            "had left go to another"
        )
        if self._deaths > MOST_DEATHS:
            raise FractionateError(
                f"{self._deaths} workers died one after another and no question was answered: see Ray's logs, or run "
                "without --on; everything completed is stored"
            )
        places = list(shard.items)
        if len(places) > 1:
            middle = len(places) // 2
            for half in (places[:middle], places[middle:]):
                self._again(Shard({place: shard.items[place] for place in half}))
            return
        shard.deaths += 1
        if shard.deaths < TRIES:
            self._again(shard)
            return
        error = f"{shard.deaths} workers died while they worked on this question"
        failed = Completion("", "error", Usage(calls=1), error=error)
        self._values[places[0]] = run_with(self._make(shard.items[places[0]]), lambda _: failed)
        self._news.set()

    def _again(self, shard: Shard) -> None:
        shard.is_fresh = False
        self._queue.add(shard)
        self._news.set()

    async def _drain(self, seconds: float, *, patient: bool) -> None:
        """Tell all shards to stop and merge what they still ship."""
        import ray

        with suppress(ray.exceptions.RayError):
            self._stop.tell.remote(patient)
        self._queue.ready.clear()
        self._draining = True
        await asyncio.wait(self._running, timeout=seconds + END_S)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
