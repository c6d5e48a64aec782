"""A run's calls as shards: cut, submitted to Ray, submitted again where a worker dies.

Ray places and runs the tasks (`merger.work_through`) and says when one is lost; the merger writes what they ship. Here
is only what neither can know: which questions are answered, what the run may still spend, and in which order values
are wanted.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, islice
from typing import Any

from fractionate.calls.batches import GRACE_S
from fractionate.calls.budget import BudgetReached, Reservation
from fractionate.calls.engine import Engine
from fractionate.calls.stages import TaskFactory, run_here
from fractionate.calls.status import Counters
from fractionate.cluster.allocation import Allocation, Allocator, most_shards, quotas
from fractionate.cluster.connect import beside_driver, remote, why
from fractionate.cluster.lookup import Halted, can_leave, drive_by_hand
from fractionate.cluster.merger import Merger, News, PackedValues, Target, work_through
from fractionate.cluster.shard_queue import Shard, ShardQueue
from fractionate.cluster.shard_task import PACKED, End, Make, Pack, Setup, ShardOrder, call, pickled
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError, UsageError

MOST_DEATHS = 20
"""Workers that may die one after another without one question being answered."""
LOOK_S = 1.0
"""Seconds between two times that the merger is asked for news."""
SILENT_S = 60.0
"""Seconds without a shipment after which a shard's process is taken for dead: stopped, or cut off."""
START_S = 300.0
"""Seconds in which Ray may begin none of the shards."""
END_S = 10.0
"""Seconds beyond the grace of their calls that shards may take to stop."""
_KINDS: dict[str, type[FractionateError]] = {
    kind.__name__: kind for kind in (FractionateError, UsageError, BudgetReached)
}


class Shards:
    """Runs a run's calls on a cluster that is joined. `stream` takes the place of `calls.stages.run_here`."""

    def __init__(
        self,
        engine: Engine,
        setup: Setup,
        workers: int,
        say: Callable[[str], None] = lambda text: None,
        share: str = "",
    ) -> None:
        """`workers` is how many shards run at once, 0 for one per core; `say` is told what a person should know.

        `share` is the URL of a remote copy of the calls, "" for none.
        """
        self.engine = engine
        self.say = say
        self.share = share
        self.setup = setup
        self.workers = workers
        self.fields_left_out: defaultdict[str, set[str]] = defaultdict(set)
        """By model, fields of requests that a server has rejected as unsupported in some shard."""
        self.merger_cpu_s = 0.0
        """Seconds of processor time that mergers have taken."""

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
        async with _Work(self, chain(first, waiting), call) as work:
            async for value in work.values():
                yield value

    async def run_packed(
        self,
        make: Make,
        items: Iterable[Any],
        pack: Pack,
        open_values: Callable[[], PackedValues],
        is_new: Callable[[Any], bool],
    ) -> None:
        """Run the coroutines that `make` makes of items in shards. Their values, packed by `pack`, are merged in any
        order by what `open_values` returns in another process of this machine.

        Items are plain values (texts, numbers, tuples): only `make`, which travels once, holds models. All calls can be
        made elsewhere. `is_new` says of an item that neither the store nor another item has a call of its coroutine, so
        that the store is not searched for it.
        """
        async with _Work(self, items, make, pack, open_values, is_new) as work:
            async for _ in work.values():
                pass


class _Work:
    """One piece of work in progress."""

    def __init__(
        self,
        shards: Shards,
        items: Iterable[Any],
        make: Make,
        pack: Pack | None = None,
        open_values: Callable[[], PackedValues] | None = None,
        is_new: Callable[[Any], bool] = lambda item: False,
    ) -> None:
        import ray

        self._shards = shards
        self._engine = engine = shards.engine
        self._pack = pack
        self._open_values = open_values
        cores = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
        self._slots = max(1, min(shards.workers or int(cores), most_shards(engine.limits)))
        self._queue = ShardQueue(engine, items, make, is_new, self._slots, is_packed=pack is not None)
        self._quotas: list[LimitsConfig] = quotas(engine.limits, self._slots)
        self._allocator = Allocator(engine.budget, self._slots)
        self._setup, self._common = ray.put(shards.setup), ray.put(pickled((make, pack))[0])
        # A shard mostly waits for servers: more of them than cores take a part of one each.
        self._task = remote(work_through).options(
            num_cpus=max(0.001, min(1.0, int(1000 * cores / self._slots) / 1000)),
            max_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._actors = ExitStack()
        self._merger: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._draining = False
        self._running: dict[asyncio.Task[None], Shard] = {}
        self._by_holder: dict[str, Shard] = {}
        self._news = asyncio.Event()
        self._error: BaseException | None = None
        self._deaths = 0
        self._begun = False
        self._counted, self._in_flight = Counters(), 0

    async def __aenter__(self) -> _Work:
        shards, store = self._shards, self._engine.store
        target = Target(store.path.resolve(), self._engine.run, shards.share, self._open_values)
        self._merger = self._actors.enter_context(beside_driver(Merger, target, max_concurrency=10_000))
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Let what is in flight come back and be stored, then end."""
        from ray.exceptions import RayError

        assert self._watching is not None
        with self._actors:
            if isinstance(error, RayError):
                raise error  # it is said in a line
            if self._running:
                if isinstance(error, FractionateError):
                    self._engine.stop(error)
                    await self._drain(self._engine.limits.timeout_s, patient=True)
                else:
                    await self._drain(GRACE_S, patient=False)
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            failed, seconds = await self._merger.close.remote()
            self._shards.merger_cpu_s += seconds
            self._engine.elsewhere -= self._in_flight
            if failed is not None and error is None:
                raise failed

    async def values(self) -> AsyncGenerator[Any, None]:
        """Yield the coroutines' values in order; none where they are packed, and merged elsewhere."""
        began = time.monotonic()
        while True:
            self._submit()
            if self._pack is not None:
                await self._put_own()
            else:
                while self._queue.has_next():
                    yield await self._queue.take_next()
            if self._error is not None:
                raise self._error
            if self._queue.is_empty:
                return
            if self._running:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), START_S)
                if not self._begun and time.monotonic() - began >= START_S:
                    raise FractionateError(
                        f"the cluster began no work in {START_S:.0f} s: are all its cores taken ('ray status')?"
                    )
                self._news.clear()

    async def _put_own(self) -> None:
        """Have values that were made in this process merged with the others."""
        assert self._pack is not None
        # Those that waited for another coroutine's call come last: only then is it stored, or has failed.
        while values := await self._queue.take_any(PACKED, aside=not self._running and not self._queue.ready):
            await self._merger.put_values.remote(self._pack(values))

    # ---------------------------------------------------------------- submitting

    def _submit(self) -> None:
        queue = self._queue
        queue.cut(self._slots - len(self._running), max(8, self._quotas[0].concurrency) if self._quotas else 8)
        while queue.ready and len(self._running) < self._slots:
            shard = queue.ready[0]
            if shard.wanted is None and self._engine.budget.active:
                shard.wanted = self._first_call(shard)
            allocation = self._allocator.allocate(len(shard.items), shard.wanted)
            if allocation is None:
                if self._running:
                    return  # they may return some
                assert shard.wanted is not None, "only a call that is counted needs an allocation"
                raise self._engine.budget.reached(shard.wanted)
            queue.ready.pop(0)
            self._write_allocations()  # the store knows of it before anything is spent
            quota = self._quotas.pop()
            order = ShardOrder(allocation.holder, self._pickled(shard), quota, allocation.caps)
            task = asyncio.get_running_loop().create_task(self._run(shard, order, allocation))
            self._running[task] = shard
            task.add_done_callback(partial(self._ended, quota))

    def _write_allocations(self) -> None:
        budget = self._engine.budget
        if budget.active:
            holds = budget.holds_to_write()
            self._engine.store.merge(b"", (self._engine.run, holds))
            budget.written(holds)

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

    def _first_call(self, shard: Shard) -> Reservation | None:
        """Return the dearest outcome of the dearest call that a shard's first coroutine begins with."""
        came = drive_by_hand(
            self._queue.make(next(iter(shard.items.values()))), lambda key: None, self._engine.budget.dearest
        )
        return came.dearest if isinstance(came, Halted) else None

    # ---------------------------------------------------------------- what becomes of them

    async def _run(self, shard: Shard, order: ShardOrder, allocation: Allocation) -> None:
        """Run one shard as a task; have what it leaves undone run again."""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        shard.end, shard.heard_at, shard.is_silent = None, None, False
        self._by_holder[order.holder] = shard
        await self._merger.begin.remote(order.holder, allocation.amounts)
        task = self._task.remote(self._setup, self._common, order, self._merger)
        shard.waiting = asyncio.wrap_future(task.future())
        try:
            await shard.waiting
        except asyncio.CancelledError:
            ray.cancel(task, force=True)
            if not shard.is_silent:
                raise
        except RayError as error:
            if isinstance(error, RayTaskError) and not isinstance(error, TaskCancelledError):
                fix = "are the same packages installed on every machine?"
                raise FractionateError(f"a worker failed ({why(error)}): {fix}") from error
        await self._look(order.holder)  # what it may still ship is not taken on: others work on that
        del self._by_holder[order.holder]
        shard.drop_ended()
        if shard.end is None:
            self._died(shard, silent=shard.is_silent)
        else:
            self._finished(shard, shard.end)

    async def _watch(self) -> None:
        """Ask for news, and give up the shards of which there are none."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self._look()
                for shard in list(self._by_holder.values()):
                    silent_s = time.monotonic() - (shard.heard_at or time.monotonic())
                    if silent_s > SILENT_S and not shard.is_silent and shard.waiting is not None:
                        shard.is_silent = True
                        shard.waiting.cancel()
        except Exception as error:
            self._error = self._error or error
            self._news.set()

    async def _look(self, *given_up: str) -> None:
        async with self._looking:
            self._receive(await self._merger.news.remote(given_up))

    def _receive(self, news: News) -> None:
        engine = self._engine
        engine.counters.add(news.counters, self._counted)
        engine.elsewhere += news.in_flight - self._in_flight
        self._counted, self._in_flight = news.counters, news.in_flight
        for line in news.said:
            self._shards.say(f"a worker: {line}")
        for holder, one in news.shards.items():
            shard = self._by_holder[holder]
            if engine.budget.active:
                engine.budget.settle_allocation(holder, one.spent, one.left)
            shard.heard_at, shard.end, self._begun = time.monotonic(), one.end, True
            if one.end is not None:
                for model, fields in one.end.fields_left_out.items():
                    self._shards.fields_left_out[model] |= fields
            if one.ended:
                self._deaths = 0
                self._queue.receive(shard, one)
                self._news.set()
        if news.error is not None:
            self._error = self._error or news.error
            self._news.set()

    def _finished(self, shard: Shard, end: End) -> None:
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
        self._queue.add_again(shard)

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
        self._queue.add_halves(shard)

    async def _drain(self, seconds: float, *, patient: bool) -> None:
        """Tell all shards to stop and merge what they still ship."""
        import ray

        with suppress(ray.exceptions.RayError):
            self._merger.stop.remote(patient)
        self._queue.ready.clear()
        self._draining = True
        await asyncio.wait(self._running, timeout=seconds + END_S)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
