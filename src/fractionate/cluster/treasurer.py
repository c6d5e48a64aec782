"""Lending the run's budget to its workers: slices that get smaller, called in before anybody is turned away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from fractionate.calls.engine import Engine
from fractionate.cluster.member import Member, WorkerDied, ask
from fractionate.cluster.worker import Want
from fractionate.errors import FractionateError

SLICE = 0.25
"""The part of what is left of a budget that is lent to all workers together at a time."""
ASK_AGAIN_S, ASKED_PER_S = 0.2, 500.0
"""Seconds between two times that what is not used is called in, at least, and workers asked for it per second."""


class Treasurer:
    """Lends what an engine's budget has left. `members` returns the workers; `error` is what went wrong meanwhile."""

    def __init__(self, engine: Engine, members: Callable[[], Sequence[Member]]) -> None:
        self._engine = engine
        self._members = members
        self._wants: dict[Member, Want] = {}
        self._working: asyncio.Task[None] | None = None
        self.error: BaseException | None = None

    def hear(self, member: Member, want: Want) -> None:
        """Take note of what a worker's call is short of."""
        if member in self._wants:
            return
        self._wants[member] = want
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def rest(self) -> None:
        """Lend no more: a piece of work is over."""
        working, self._working, self._wants = self._working, None, {}
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _work(self) -> None:
        """Lend to those who want, in order; where there is no room, call in what nobody uses; then turn them away."""
        try:
            while self._wants:
                if await self._lend_to_first():
                    continue
                reserved = await self._call_in()
                lent = not self._wants or await self._lend_to_first()
                if not lent and not reserved and not self._engine.budget.in_flight:
                    await self._turn_away()
                    return
                await asyncio.sleep(max(ASK_AGAIN_S, len(self._members()) / ASKED_PER_S))
        except FractionateError as error:
            self.error = self.error or error

    async def _lend_to_first(self) -> bool:
        """Lend to whoever wants first. Returns False where there is no room for it."""
        member, want = next(iter(self._wants.items()))
        if member.dead:
            del self._wants[member]
            return True
        amount = self._set_aside(member, want)
        if amount is None:
            return False
        del self._wants[member]
        # The store knows of the loan before the worker does: it counts whoever dies.
        await self._engine.write_holds()
        with suppress(WorkerDied):
            await ask(member, member.actor.lend.remote(want.role, *amount))
        return True

    async def _call_in(self) -> int:
        """Take back what workers do not use. Returns how many calls are under way that a budget counts."""
        alive = [member for member in self._members() if not member.dead]
        asked = (ask(member, member.actor.give_back.remote()) for member in alive)
        reserved = 0
        for member, answer in zip(alive, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, WorkerDied):
                continue
            if isinstance(answer, BaseException):
                raise answer
            reserved += answer.under_way
            for role, hold in answer.unused.items():
                self._engine.budget.take_back(member.name, role, hold.usd, hold.tokens)
            self._wants.pop(member, None)
            if answer.want is not None:
                self._wants[member] = answer.want
        return reserved

    async def _turn_away(self) -> None:
        """Tell all who want that there is no more."""
        wants, self._wants = self._wants, {}
        for member, want in wants.items():
            said = str(self._engine.budget.reached(want.role, want.usd, want.tokens))
            with suppress(WorkerDied):
                await ask(member, member.actor.refuse.remote(said))

    def _set_aside(self, member: Member, want: Want) -> tuple[float, int] | None:
        """Set aside a part of what is left, at least what is wanted. Returns dollars and tokens, None for no room."""
        budget = self._engine.budget
        room = budget.most_to_lend(want.role)
        part = SLICE / max(1, len(self._members()))
        usd = max(want.usd, room.usd * part) if budget.needs_dollars and room.usd != float("inf") else want.usd
        tokens = max(want.tokens, int(room.tokens * part)) if budget.caps.tokens is not None else want.tokens
        for amount in ((usd, tokens), (want.usd, want.tokens)):
            if budget.lend(member.name, want.role, *amount):
                return amount
        return None
