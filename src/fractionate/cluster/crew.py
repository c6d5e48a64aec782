"""The workers of a run, seen from the run: started, lent to, listened to, replaced when they die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from fractionate import __version__
from fractionate.calls.engine import Engine
from fractionate.calls.status import Counters
from fractionate.cluster.hiring import Hiring, OnRay, Place
from fractionate.cluster.member import Member, WorkerDied, ask
from fractionate.cluster.scratch import ORPHAN_S
from fractionate.cluster.share import Share
from fractionate.cluster.shares import most_workers, shares, smaller
from fractionate.cluster.taking_in import take_in, take_in_left
from fractionate.cluster.treasurer import Treasurer
from fractionate.cluster.worker import LEASE_S, Done, Hello, Report, Setup
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.types import Usage

REPORT_S = 0.5
"""Seconds after which a worker reports although nobody waits for news."""
REPORTS_PER_S = 200.0
"""Such reports of all workers together: a large crew reports more rarely."""
HELLO_S, SOON_S = 120.0, 10.0
"""Seconds that a worker may take to begin, and one on a machine that may not be reached."""
END_S = 20.0
"""Seconds that a worker may take to end."""
AGAIN, AGAIN_S = 30, 1.0
"""How often a worker is begun in the place of a dead one, and the seconds between: a dead machine is noticed late."""
SILENT_S = 60.0
"""Seconds beyond the usual after which a worker that says nothing is taken to be dead: stopped, or cut off."""
MOST_DEATHS = 20
"""Workers that may die one after another without a range being finished."""


class CannotBeginError(FractionateError):
    """A worker died before it said a word."""


class Crew:
    """The workers of a run and what they owe it. `say` is told what a person should know."""

    def __init__(
        self,
        engine: Engine,
        setup: Setup,
        count: int,
        say: Callable[[str], None],
        hiring: Hiring | None = None,
        share: Share | None = None,
    ) -> None:
        """`count` is how many workers are wanted, 0 for one per core of the cluster."""
        self._engine = engine
        self._setup = setup
        self._count = count
        self._say = say
        self._share = share
        self._hiring = hiring or OnRay()
        self._deaths = 0
        self._balancing = asyncio.Lock()
        self._treasurer = Treasurer(engine, lambda: self.members)
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
            await self._outlive(self.members)
        self._balancing = asyncio.Lock()
        for member in self.members:
            self._listen(member)
        await self.balance(self.members)

    async def run(self, member: Member, data: bytes) -> Done:
        """Have a worker run a range; returns when the run has all that it stored. Raises WorkerDied."""
        done: Done = await ask(member, member.actor.run.remote(data))
        await member.read_up_to(done.place)
        self._deaths = 0
        return done

    async def replace(self, member: Member) -> None:
        """Start a worker in the place of one that died; returns when what that one left on its disk is taken in.

        Whoever asks for the same one's replacement meanwhile waits for it too: until then, calls of a dead worker that
        are stored would be made again.
        """
        if member.replacing is None:
            member.replacing = asyncio.get_running_loop().create_task(self._replace(member))
        await asyncio.shield(member.replacing)

    async def _replace(self, member: Member) -> None:
        self.members.remove(member)
        self._engine.elsewhere -= member.in_flight
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise FractionateError(
                f"{self._deaths} workers died one after another and no range was finished: see Ray's logs, or run "
                "without --on; everything completed is stored"
            )
        self._say(f"a worker {'is cut off' if member.cut_off else 'died'} ({member.name}); another takes its place")
        if member.cut_off:
            await self._dismiss(member)
        successor = await self._begin_again(member.node, SOON_S if member.cut_off else HELLO_S)
        if member.cut_off and successor.node == member.node:
            with suppress(WorkerDied):  # it is replaced in turn
                await self._outlive([successor], {member.name})
        self._listen(successor)
        await self.balance(self.members)

    async def _dismiss(self, member: Member) -> None:
        """End a worker that may live; returns when it makes no more calls, even if it cannot hear of its end."""
        self._hiring.dismiss(member.actor)
        until = member.asked + self._every_s + LEASE_S
        await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))

    async def _begin_again(self, node: str, patience_s: float) -> Member:
        """Start a worker on a machine, or on another: one that has died is known as alive for a while.

        With more patience each time: a machine may be busy, and not gone.
        """
        for turn in range(AGAIN):
            try:
                return await self._start(self._hiring.again(node, turn), min(HELLO_S, patience_s * 2.0**turn))
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
        await self._silence()
        for member in self.members:
            with suppress(WorkerDied):
                await ask(member, member.actor.rest.remote(member.seen))
        if self._share is not None:
            self._share.flush()

    async def stop(self) -> None:
        """Let the calls in flight come back for a moment and take in what did."""
        stopping = [self._stop(member) for member in self.members]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*stopping, return_exceptions=True), END_S)
        await self._silence()
        if self._share is not None:
            self._share.flush()

    async def end(self) -> None:
        """End the workers; what one holds that the run has not is kept for the next."""
        for member in self.members:
            with suppress(WorkerDied, TimeoutError):
                await asyncio.wait_for(ask(member, member.actor.end.remote(member.seen)), END_S)
        self.members = []

    def check(self) -> None:
        """Raise what has gone wrong while nobody waited for it."""
        error = self._error or self._treasurer.error
        if error is not None:
            raise error

    async def _start(self, place: Place, patience_s: float = HELLO_S) -> Member:
        member = Member(self._hiring.begin(place, self._setup), place.node)
        try:
            hello: Hello = await asyncio.wait_for(ask(member, member.actor.hello.remote()), patience_s)
        except TimeoutError:
            self._hiring.dismiss(member.actor)
            kind = FractionateError if patience_s == HELLO_S else CannotBeginError
            raise kind(
                f"a worker on {place.machine} did not begin within {patience_s:.0f} s: is the machine busy?"
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
            self._keep(left.rows)
            await ask(member, member.actor.handed_in.remote(left.worker))

    async def _outlive(self, members: Sequence[Member], names: Collection[str] = ()) -> None:
        """Wait for workers of these names to end, or for all that are not this run's, and take in what they leave.

        Those of a run that was killed just now end by themselves.
        """
        end = asyncio.get_running_loop().time() + ORPHAN_S
        while asyncio.get_running_loop().time() < end:
            mine = {member.name for member in self.members}
            orphans: set[str] = set()
            for member in members:
                hello: Hello = await ask(member, member.actor.hello.remote())
                await self._inherit(member, hello)
                orphans.update(name for name in hello.living if (name in names if names else name not in mine))
            if not orphans:
                return
            if not names:
                self._say(f"waiting for {len(orphans)} worker(s) of an earlier run to end")
            await asyncio.sleep(1.0)

    @property
    def _every_s(self) -> float:
        """Seconds between two reports of a worker at most."""
        return max(REPORT_S, len(self.members) / REPORTS_PER_S)

    def _listen(self, member: Member) -> None:
        if member.listening is None:
            member.reported = asyncio.Event()  # of this loop
            member.listening = asyncio.get_running_loop().create_task(self._hear(member))

    async def _hear(self, member: Member) -> None:
        """Take in what a worker reports, for as long as it lives."""
        try:
            while True:
                member.asked, every_s = asyncio.get_running_loop().time(), self._every_s
                news = ask(member, member.actor.report.remote(member.seen, every_s))
                self._take_in(member, await asyncio.wait_for(news, every_s + SILENT_S))
        except (WorkerDied, TimeoutError) as error:
            member.dead = True
            member.cut_off |= isinstance(error, TimeoutError)
            if member.cut_off:
                # What it was asked to do may never end by itself: it does once Ray is told that the worker is dead.
                self._hiring.dismiss(member.actor)
            member.reported.set()
        except Exception as error:
            self._error = self._error or error
            member.dead = True
            member.reported.set()

    def _take_in(self, member: Member, report: Report) -> None:
        engine = self._engine
        take_in(engine, self._setup.run, member.name, report.rows)
        self._keep(report.rows)
        member.seen = report.place
        engine.elsewhere += report.in_flight - member.in_flight
        member.in_flight = report.in_flight
        _add(engine.counters, report.counters, member.counters)
        member.counters = report.counters
        for line in report.said:
            self._say(f"worker {member.name}: {line}")
        if report.want is not None:
            self._treasurer.hear(member, report.want)
        reported, member.reported = member.reported, asyncio.Event()
        reported.set()

    def _keep(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if self._share is not None:
            self._share.keep(rows)

    async def _allow(self, member: Member, part: LimitsConfig) -> None:
        with suppress(WorkerDied):
            await ask(member, member.actor.allow.remote(part))
            member.part = part

    async def _stop(self, member: Member) -> None:
        await member.read_up_to(await ask(member, member.actor.stop.remote()))

    async def _silence(self) -> None:
        tasks = [one.listening for one in self.members if one.listening is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self.members:
            self._engine.elsewhere -= member.in_flight
            member.listening, member.in_flight = None, 0
        await self._treasurer.rest()


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
