"""Work carried out by a crew of workers: ranges out, replies in, values in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.stages import TaskFactory, run_here
from fractionate.cluster.crew import Crew
from fractionate.cluster.hiring import Hiring
from fractionate.cluster.member import Member, WorkerDied
from fractionate.cluster.programs import pack
from fractionate.cluster.ranges import Ended, Range, drive_by_hand, look_into
from fractionate.cluster.share import Share
from fractionate.cluster.worker import Done, Setup
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Model, SingleModel
from fractionate.types import Completion, Usage

LARGEST, SMALLEST = 256, 8
"""Programs of a range at most, and at least where there are so many left."""
AHEAD = 3
"""Ranges that a worker has at a time: it goes on with the next while the last calls of one come back."""
REDIVIDE = 2 / 3
"""Part of the workers that may still have work when the limits are divided anew among them."""
WAITING, WAITING_PROGRAMS = 8, 4096
"""Ranges per worker, or programs in all, that may wait for those before them, whose worker may be gone: memory depends
on it."""
MOST_DEATHS = 3
"""Workers that may die over one range before it is taken to be the reason."""
_KINDS: dict[str, type[FractionateError]] = {
    kind.__name__: kind for kind in (FractionateError, UsageError, BudgetReached)
}


class Cluster:
    """Workers for a run's calls. `stream` takes the place of `engine.stages.run_here`."""

    def __init__(
        self,
        engine: Engine,
        setup: Setup,
        workers: int,
        say: Callable[[str], None] = lambda text: None,
        hiring: Hiring | None = None,
        share: Share | None = None,
    ) -> None:
        """`workers` is how many there are to be, 0 for one per core; `say` is told what a person should know."""
        self.crew = Crew(engine, setup, workers, say, hiring, share)

    async def stream(self, starts: Iterable[TaskFactory], engine: Engine) -> AsyncGenerator[Any, None]:
        """Run programs on the workers; yields their values in order.

        Programs of local weights, of a provider's batches or of recordings alone run here: they have no calls to
        spread. Raises what `stream_all` does, once what is in flight has come back and is stored.
        """
        coming = iter(starts)
        first = list(islice(coming, LARGEST))
        again = chain(first, coming)
        if not first or not _can_leave(pack(first[:1], {})[1]):
            async for value in run_here(again, engine):
                yield value
            return
        piece = _Piece(self.crew, engine, again)
        try:
            await self.crew.begin()
            async for value in piece.values():
                yield value
            await piece.close()
            await self.crew.rest()
        except FractionateError as error:
            engine.stop(error)
            await piece.abandon()
            raise
        except BaseException:
            await piece.abandon()
            raise

    async def end(self) -> None:
        """End the workers."""
        await self.crew.end()


class _Piece:
    """One piece of work: its ranges in order, and who runs which."""

    def __init__(self, crew: Crew, engine: Engine, starts: Iterator[TaskFactory]) -> None:
        self._crew = crew
        self._engine = engine
        self._starts = starts
        self._more = True
        self._order: deque[Range] = deque()
        self._ready: deque[Range] = deque()
        self._taken: set[str] = set()
        self._running: dict[asyncio.Task[Done], tuple[Range, Member]] = {}
        self._replacing: set[asyncio.Task[None]] = set()

    async def values(self) -> AsyncGenerator[Any, None]:
        """Yield the programs' values in order."""
        while True:
            self._crew.check()
            self._replace_idle()
            self._fill()
            self._assign()
            while self._order and self._order[0].done:
                for value in await self._values_of(self._order.popleft()):
                    yield value
                self._fill()
                self._assign()
            if not self._order and not self._more:
                return
            await self._await_something()

    async def close(self) -> None:
        """Wait for what is still being done: nothing, or a worker that takes another's place."""
        await asyncio.gather(*self._replacing, return_exceptions=True)

    async def abandon(self) -> None:
        """Let what is in flight come back and be stored, then stop."""
        for replacing in self._replacing:
            replacing.cancel()
        await self._crew.stop()
        tasks: list[asyncio.Task[Any]] = [*self._running, *self._replacing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fill(self) -> None:
        """Look into further programs while there is room for them."""
        workers = max(1, len(self._crew.members))
        size = self._size(workers)
        most = max(workers * WAITING, WAITING_PROGRAMS // size)
        while self._more and len(self._order) < most and len(self._ready) < workers * AHEAD:
            starts = list(islice(self._starts, size))
            self._more = bool(starts)
            if not starts:
                return
            looked = look_into(starts, self._engine.store.get, self._taken)
            self._engine.counters.served += sum(ended.calls for ended in looked.values.values())
            self._order.append(looked)
            if not looked.done:
                self._ready.append(looked)

    def _size(self, workers: int) -> int:
        """Return how many programs a range has: what a worker has at a time is twice its calls in flight."""
        each = self._engine.limits.concurrency // workers
        return min(LARGEST, max(SMALLEST, each))

    def _assign(self) -> None:
        """Give ranges to the workers that have fewest."""
        while self._ready:
            free = [one for one in self._crew.members if not one.dead and one.part is not None and one.ranges < AHEAD]
            if not free:
                return
            member = min(free, key=lambda one: one.ranges)
            ranged = self._ready.popleft()
            going = ranged.at[:1] if ranged.alone else ranged.at
            data, _ = pack([ranged.starts[place] for place in going], ranged.known)
            task = asyncio.get_running_loop().create_task(self._crew.run(member, data))
            member.ranges += 1
            self._running[task] = ranged, member

    async def _await_something(self) -> None:
        tasks: set[asyncio.Task[Any]] = {*self._running, *self._replacing}
        if not tasks:
            # Nothing runs and nobody takes work: a new share, or an error that a listener noted, comes by itself.
            await self._crew.balance(self._crew.members)
            await asyncio.sleep(0.05)
            return
        done, _ = await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        for replaced in [task for task in self._replacing if task in done]:
            self._replacing.discard(replaced)
            replaced.result()
        for task in [task for task in self._running if task in done]:
            ranged, member = self._running.pop(task)
            member.ranges -= 1
            try:
                self._ended(ranged, task.result())
            except WorkerDied:
                self._lost(ranged, member)
        if not self._more and not self._ready:
            busy = {member for _, member in self._running.values()}
            if len(busy) <= REDIVIDE * sum(one.part is not None for one in self._crew.members):
                await self._crew.balance([one for one in self._crew.members if one in busy])

    def _ended(self, ranged: Range, done: Done) -> None:
        if done.stopped is not None:
            kind, said = done.stopped
            raise _KINDS.get(kind, FractionateError)(
                said if kind in _KINDS else f"a program failed on a worker: {said}"
            )
        ranged.failed.update(done.failed)
        if ranged.alone:
            self._look_again(ranged)
        else:
            ranged.done = True

    def _replace_idle(self) -> None:
        """Have workers replaced that died with nothing to do: no range of theirs would tell of it."""
        for member in self._crew.members:
            if member.dead and not member.ranges and member.replacing is None:
                self._replacing.add(asyncio.get_running_loop().create_task(self._crew.replace(member)))

    def _lost(self, ranged: Range, member: Member) -> None:
        """Have a range run again whose worker died, from what was stored of it."""
        ranged.deaths += 1
        replacing = asyncio.get_running_loop().create_task(self._replace(member, ranged))
        self._replacing.add(replacing)

    async def _replace(self, member: Member, ranged: Range) -> None:
        await self._crew.replace(member)
        if ranged.deaths >= MOST_DEATHS and ranged.alone:
            ranged.failed.update(_given_up(ranged, self._engine))
            ranged.deaths = 0
        # One of its programs may be what kills workers: each goes alone from now on, so that it takes no other along.
        ranged.alone = ranged.alone or ranged.deaths >= MOST_DEATHS
        self._look_again(ranged)

    def _look_again(self, ranged: Range) -> None:
        """See what is still to be done of a range, and have it done."""
        fresh = look_into(ranged.starts, _finder(self._engine, ranged.failed), set())
        ranged.at, ranged.known, ranged.done = fresh.at, fresh.known, fresh.done
        if not ranged.done:
            self._ready.appendleft(ranged)

    async def _values_of(self, ranged: Range) -> list[Any]:
        """Return the values of a range's programs, whose replies are all stored, or failed."""
        self._taken.difference_update(ranged.awaited)
        find = _finder(self._engine, ranged.failed)
        values = []
        for place, start in enumerate(ranged.starts):
            came = ranged.values.get(place) or drive_by_hand(start, find)
            if isinstance(came, Ended):
                values.append(came.value)
            else:  # it shared a call with another program, or says something else each time it is begun
                values += [value async for value in stream_all([start()], self._engine)]
        return values


def _finder(engine: Engine, failed: dict[str, Completion]) -> Callable[[str], Completion | None]:
    return lambda key: failed.get(key) or engine.store.get(key)


def _given_up(ranged: Range, engine: Engine) -> dict[str, Completion]:
    """Return failures for the calls that the range's next program waits for: nobody lives to answer them."""
    came = drive_by_hand(ranged.starts[ranged.at[0]], _finder(engine, ranged.failed))
    if isinstance(came, Ended):
        return {}
    error = f"{ranged.deaths} workers died while they made this call"
    return {key: Completion("", "error", Usage(calls=1), error=error) for key, _ in came.missing}


def _can_leave(models: list[Model]) -> bool:
    """Return whether there is something to spread: calls to servers, or others that are made one by one."""
    return all(isinstance(model, SingleModel) for model in models) and not all(model.replays for model in models)
