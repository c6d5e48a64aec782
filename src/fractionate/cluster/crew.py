"""The workers of a run, seen from the run: started, lent to, listened to, replaced when they die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

from fractionate import __version__
from fractionate.cluster.hiring import Hiring, OnRay, Place
from fractionate.cluster.scratch import Left
from fractionate.cluster.shares import most_workers, shares, smaller
from fractionate.cluster.worker import Done, Hello, Report, Setup, Want
from fractionate.config import LimitsConfig
from fractionate.engine.counters import Counters
from fractionate.engine.engine import Engine
from fractionate.engine.store import Hold
from fractionate.engine.stored_call import billed
from fractionate.errors import FractionateError
from fractionate.types import Usage

REPORT_S = 0.5
"""Seconds after which a worker reports although nobody waits for news."""
SLICE = 0.25
"""The part of what is left of a budget that is lent to all workers together at a time."""
ASK_AGAIN_S = 0.2
"""Seconds between two looks whether a call that found no room has some now."""
HELLO_S = 120.0
"""Seconds that a worker may take to begin."""
ORPHAN_S = 30.0
"""Seconds that workers of a run that was killed may take to end."""
END_S = 20.0
"""Seconds that a worker may take to end."""
AGAIN, AGAIN_S = 30, 1.0
"""How often a worker is begun in the place of a dead one, and the seconds between: a dead machine is noticed late."""
MOST_DEATHS = 20
"""Workers that may die one after another without a range being finished."""


class WorkerDied(Exception):  # noqa: N818 - a state, not an error
    """A worker is gone; another takes its place."""


class CannotBeginError(FractionateError):
    """A worker died before it said a word."""


class Member:
    """One worker, as the run knows it: `seen` is how far its store was read, `part` its share of the limits."""

    def __init__(self, actor: Any, node: str) -> None:
        self.actor = actor
        self.node = node
        self.name = ""
        self.seen = 0
        self.ranges = 0
        self.counters = Counters()
        self.in_flight = 0
        self.reserved = 0
        self.part: LimitsConfig | None = None
        self.dead = False
        self.recall = False
        self.reported = asyncio.Event()
        self.listening: asyncio.Task[None] | None = None
        self.lending: asyncio.Task[None] | None = None


class Crew:
    """The workers of a run and what they owe it. `say` is told what a person should know."""

    def __init__(
        self, engine: Engine, setup: Setup, count: int, say: Callable[[str], None], hiring: Hiring | None = None
    ) -> None:
        """`count` is how many workers are wanted, 0 for one per core of the cluster."""
        self._engine = engine
        self._setup = setup
        self._count = count
        self._say = say
        self._hiring = hiring or OnRay()
        self._deaths = 0
        self._balancing = asyncio.Lock()
        self._error: BaseException | None = None
        self.members: list[Member] = []

    async def begin(self) -> None:
        """Start the workers, hear who they are and take in what dead ones have left; listen from now on."""
        if not self.members:
            places = self._hiring.places(self._count, most_workers(self._engine.limits))
            started = await asyncio.gather(*(self._start(place) for place in places), return_exceptions=True)
            failures = [one for one in started if isinstance(one, BaseException)]
            if failures and not self.members:
                raise failures[0]
            await self._outlive()
        self._balancing = asyncio.Lock()
        for member in self.members:
            self._listen(member)
        await self.balance(self.members)

    async def run(self, member: Member, data: bytes) -> Done:
        """Have a worker run a range; returns when the run has all that it stored. Raises WorkerDied."""
        done: Done = await self._ask(member, member.actor.run.remote(data))
        while member.seen < done.place:
            await self._next_report(member)
        self._deaths = 0
        return done

    async def replace(self, member: Member) -> None:
        """Start a worker in the place of one that died, and take in what that one left on its disk."""
        if member not in self.members:
            return
        self.members.remove(member)
        self._engine.elsewhere -= member.in_flight
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise FractionateError(
                f"{self._deaths} workers died one after another and no range was finished: see Ray's logs, or run "
                "without --on; everything completed is stored"
            )
        self._say(f"a worker died ({member.name}); another takes its place")
        self._listen(await self._begin_again(member.node))
        await self.balance(self.members)

    async def _begin_again(self, node: str) -> Member:
        """Start a worker on a machine, or on another: one that has died is known as alive for a while."""
        for turn in range(AGAIN):
            try:
                return await self._start(self._hiring.again(node, turn))
            except CannotBeginError:
                if turn == AGAIN - 1:
                    raise
                await asyncio.sleep(AGAIN_S)
        raise AssertionError("AGAIN is at least 1")

    async def balance(self, busy: Iterable[Member]) -> None:
        """Divide the limits among those who have work: who is to have less first, then who is to have more."""
        async with self._balancing:
            now = [member for member in busy if not member.dead][: most_workers(self._engine.limits)]
            if not now or set(now) == {one for one in self.members if one.part is not None}:
                return
            for member in self.members:
                if member not in now:
                    member.part = None  # it runs nothing, so it uses nothing
            parts = dict(zip(now, shares(self._engine.limits, len(now)), strict=True))
            for member, part in parts.items():
                if member.part is not None and (less := smaller(member.part, part)) != member.part:
                    await self._allow(member, less)
            for member, part in parts.items():
                if member.part != part:
                    await self._allow(member, part)

    async def rest(self) -> None:
        """End of a piece of work: nobody is listened to, and workers forget what the run has."""
        for member in self.members:
            with suppress(WorkerDied):
                await self._ask(member, member.actor.rest.remote(member.seen))
            self._engine.elsewhere -= member.in_flight
            member.in_flight = 0
        await self._silence()

    async def stop(self) -> None:
        """Let the calls in flight come back for a moment and take in what did."""
        stopping = [self._stop(member) for member in self.members]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*stopping, return_exceptions=True), END_S)
        await self._silence()

    async def end(self) -> None:
        """End the workers; what one holds that the run has not is kept for the next."""
        for member in self.members:
            with suppress(WorkerDied, TimeoutError):
                await asyncio.wait_for(self._ask(member, member.actor.end.remote(member.seen)), END_S)
        self.members = []

    def check(self) -> None:
        """Raise what has gone wrong while nobody waited for it."""
        if self._error is not None:
            raise self._error

    async def _start(self, place: Place) -> Member:
        member = Member(self._hiring.begin(place, self._setup), place.node)
        try:
            hello: Hello = await asyncio.wait_for(self._ask(member, member.actor.hello.remote()), HELLO_S)
        except TimeoutError:
            raise FractionateError(
                f"a worker on {place.machine} did not begin within {HELLO_S:.0f} s: is the machine busy?"
            ) from None
        except WorkerDied as death:
            raise CannotBeginError(f"a worker on {place.machine} could not begin: {_why(death)}") from None
        if hello.version != __version__:
            raise FractionateError(
                f"{hello.machine} has fractionate {hello.version}, this machine {__version__}: install the same there"
            )
        member.name = hello.worker
        await self._inherit(member, hello)
        self.members.append(member)
        return member

    async def _inherit(self, member: Member, hello: Hello) -> None:
        """Take in what dead workers left on a worker's disk."""
        for left in hello.left:
            take_in_left(self._engine, self._setup.run, left)
            await self._ask(member, member.actor.handed_in.remote(left.worker))

    async def _outlive(self) -> None:
        """Wait for the workers of a run that was killed just now: they end by themselves and leave their stores."""
        end = asyncio.get_running_loop().time() + ORPHAN_S
        while asyncio.get_running_loop().time() < end:
            mine = {member.name for member in self.members}
            orphans: set[str] = set()
            for member in self.members:
                hello: Hello = await self._ask(member, member.actor.hello.remote())
                await self._inherit(member, hello)
                orphans.update(name for name in hello.living if name not in mine)
            if not orphans:
                return
            self._say(f"waiting for {len(orphans)} worker(s) of an earlier run to end")
            await asyncio.sleep(1.0)

    def _listen(self, member: Member) -> None:
        if member.listening is None:
            member.reported = asyncio.Event()  # of this loop
            member.listening = asyncio.get_running_loop().create_task(self._hear(member))

    async def _hear(self, member: Member) -> None:
        """Take in what a worker reports, for as long as it lives."""
        try:
            while True:
                recall, member.recall = member.recall, False
                asked = member.actor.report.remote(member.seen, REPORT_S, recall=recall)
                self._take_in(member, await self._ask(member, asked))
        except WorkerDied:
            member.reported.set()
        except Exception as error:
            self._error = self._error or error
            member.dead = True
            member.reported.set()

    def _take_in(self, member: Member, report: Report) -> None:
        engine = self._engine
        take_in(engine, self._setup.run, member.name, report.rows)
        for role, hold in report.returned.items():
            engine.budget.take_back(member.name, role, hold.usd, hold.tokens)
        member.seen = report.place
        engine.elsewhere += report.in_flight - member.in_flight
        member.in_flight, member.reserved = report.in_flight, report.reserved
        _add(engine.counters, report.counters, member.counters)
        member.counters = deepcopy(report.counters)
        for line in report.said:
            self._say(f"worker {member.name}: {line}")
        if report.want is not None and member.lending is None:
            member.lending = asyncio.get_running_loop().create_task(self._lend(member, report.want))
        reported, member.reported = member.reported, asyncio.Event()
        reported.set()

    async def _lend(self, member: Member, want: Want) -> None:
        """Lend what a worker's call is short of, and more where there is more; or turn the call away."""
        engine = self._engine
        try:
            while (amount := self._set_aside(member, want)) is None:
                others = [one for one in self.members if not one.dead]
                for one in others:
                    one.recall = True
                await asyncio.gather(*(self._next_report(one) for one in others))
                if (amount := self._set_aside(member, want)) is not None:
                    break
                if not any(one.reserved for one in others) and not engine.budget.in_flight:
                    said = str(engine.budget.reached(want.role, want.usd, want.tokens))
                    await self._ask(member, member.actor.refuse.remote(said))
                    return
                await asyncio.sleep(ASK_AGAIN_S)
            # The store knows of the loan before the worker does: it counts whoever dies.
            await engine.write_holds()
            await self._ask(member, member.actor.lend.remote(want.role, *amount))
        except WorkerDied:
            return
        except FractionateError as error:
            self._error = self._error or error
        finally:
            member.lending = None

    def _set_aside(self, member: Member, want: Want) -> tuple[float, int] | None:
        """Set aside a part of what is left, at least what is wanted. Returns dollars and tokens, None for no room."""
        budget = self._engine.budget
        room = budget.most_to_lend(want.role)
        part = SLICE / max(1, len(self.members))
        usd = max(want.usd, room.usd * part) if budget.needs_dollars and room.usd != float("inf") else want.usd
        tokens = max(want.tokens, int(room.tokens * part)) if budget.caps.tokens is not None else want.tokens
        for amount in ((usd, tokens), (want.usd, want.tokens)):
            if budget.lend(member.name, want.role, *amount):
                return amount
        return None

    async def _next_report(self, member: Member) -> None:
        """Wait for the next report that is asked for from now on. Raises WorkerDied."""
        for _ in range(2):  # one may be under way that was asked for before
            if member.dead:
                raise WorkerDied
            reported = member.reported
            await self._ask(member, member.actor.nudge.remote())
            await reported.wait()

    async def _allow(self, member: Member, part: LimitsConfig) -> None:
        with suppress(WorkerDied):
            await self._ask(member, member.actor.allow.remote(part))
            member.part = part

    async def _stop(self, member: Member) -> None:
        await self._ask(member, member.actor.stop.remote())
        await self._next_report(member)

    async def _silence(self) -> None:
        tasks = [task for one in self.members for task in (one.listening, one.lending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self.members:
            member.listening = member.lending = None

    async def _ask(self, member: Member, reference: Awaitable[Any]) -> Any:
        """Await a worker's answer. Raises WorkerDied where there is no worker any more."""
        from ray.exceptions import RayActorError, RaySystemError, RayTaskError, WorkerCrashedError

        try:
            return await reference
        except (RayActorError, RaySystemError, WorkerCrashedError) as error:
            member.dead = True
            raise WorkerDied from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FractionateError):
                raise cause from None
            raise


def take_in(engine: Engine, run: str, worker: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Commit rows that a worker stored to the run's own store, and count what they cost against its loan."""
    if not rows:
        return
    budget = engine.budget
    if not budget.active:
        engine.store.adopt(rows)
    else:
        for row in rows:
            if (bill := billed(row)) is not None:
                model, role, usage = bill
                budget.spent_by(worker, role, model, usage)
        holds = budget.holds_to_write()
        engine.store.adopt(rows, (run, holds))
        budget.written(holds)


def take_in_left(engine: Engine, run: str, left: Left) -> None:
    """Commit what a dead worker left. Of its loan only what it had in flight stays: that may be billed."""
    budget = engine.budget
    if budget.active:
        budget.loan(left.worker)
    take_in(engine, run, left.worker, left.rows)
    if not budget.active:
        return
    for role, hold in budget.loan(left.worker).items():
        held = left.held.get(role, Hold(0.0, 0))
        budget.take_back(left.worker, role, max(0.0, hold.usd - held.usd), max(0, hold.tokens - held.tokens))
    holds = budget.holds_to_write()
    engine.store.adopt((), (run, holds))
    budget.written(holds)


def _add(total: Counters, now: Counters, before: Counters) -> None:
    """Add what a worker has counted since it last reported."""
    for name in ("sent", "joined", "stored", "cuts"):
        setattr(total, name, getattr(total, name) + getattr(now, name) - getattr(before, name))
    for name in ("retries", "failures", "endings"):
        getattr(total, name).update(getattr(now, name) - getattr(before, name))
    for key, usage in now.usage.items():
        old = before.usage.get(key, Usage())
        since = Usage(*(getattr(usage, field) - getattr(old, field) for field in Usage.__dataclass_fields__))
        total.usage[key] = total.usage.get(key, Usage()) + since


def _why(death: WorkerDied) -> str:
    lines = str(death.__cause__ or death).strip().splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it died")[:300]


__all__ = ["Crew", "Member", "WorkerDied", "take_in", "take_in_left"]
