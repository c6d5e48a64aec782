"""A budget that is never passed: every call reserves the most that it can cost, and is charged its cost when it ends.

The reservation is an upper bound, which the model states: the prompt's bytes bound its tokens, `max_tokens` bounds the
reply. A call that does not fit waits while others are in flight (most cost less than their reservation) and stops the
run once none is. Calls whose cost is unknown (a timeout, a killed process, a reply without usage) stay counted at their
reservation, since the provider may bill them.

Calls in flight are one hold of their process, which outlives it: what a killed process had sent may be billed beside
what its successor sends. A call in a provider's batch is a hold of its own, which the successor takes over: it fetches
the same batch and nothing is billed twice. What is allocated to a shard of the run's work elsewhere is a hold of its
own too: the shard's own budget has its allocation for caps, and the hold shrinks as the shard's calls arrive.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from fractionate.calls.store import Amount, Holds, Spent, Store
from fractionate.config import BudgetConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Model
from fractionate.types import CALL_ROLES, CallRole, Request, Usage


class Pricing(Protocol):
    """The prices that an engine needs."""

    def usd(self, model_name: str, usage: Usage) -> float | None:
        """Return the dollars of one call's usage, None for a model without a price."""


class BudgetReached(FractionateError):  # noqa: N818 - a state, not an error
    """The next call might pass a cap. Everything completed is stored; a higher cap resumes.

    `wanted` is the reservation of that call.
    """

    def __init__(self, message: str, wanted: Reservation | None = None) -> None:
        super().__init__(message)
        self.wanted = wanted


@dataclass(slots=True)
class Reservation:
    """The most that one call in flight can cost. A call in a provider's batch has its own `holder`, others ""."""

    role: CallRole
    usd: float
    tokens: int
    holder: str = ""


_EPSILON = 1e-9
"""Dollars: sums of floats may pass a cap by rounding alone."""
_BATCH = "batch:"
"""How the holder of a call in a provider's batch begins; its store key follows."""
_TOKENS: CallRole = "solver"
"""The role under which an allocation's tokens are kept. The cap on tokens holds for both roles together."""


class Budget:
    """A run's spending and reservations in dollars and tokens, by role.

    Each maps a role to dollars and tokens: `spent` of calls that ended, `held` of calls in flight, `unconfirmed` of
    what may have been billed beyond that (it stays in the store's `holds` table across restarts).
    """

    def __init__(self, caps: BudgetConfig, pricing: Pricing | None, store: Store, run: str) -> None:
        self.caps = caps
        self.pricing = pricing
        self.run = run
        self.needs_dollars = any(cap is not None for cap in (caps.usd, caps.decomposer_usd, caps.solver_usd))
        self.active = self.needs_dollars or caps.tokens is not None
        self.spent: dict[CallRole, Amount] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        self.held: dict[CallRole, Amount] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        self.unconfirmed: dict[CallRole, Amount] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        self._before: dict[CallRole, Amount] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        self._batched: dict[CallRole, Amount] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        self._holder = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._in_batches: dict[str, dict[CallRole, Amount]] = {}
        self._allocated: dict[str, dict[CallRole, Amount]] = {}
        self._unwritten: dict[str, dict[CallRole, Amount]] = {}
        self._shared = False
        self._in_flight = 0
        self._waiting: deque[tuple[Reservation, asyncio.Future[None]]] = deque()
        if self.active:
            self._read(store)

    def _read(self, store: Store) -> None:
        """Read what was spent and reserved before: by this run, and where the cap is the store's by all others."""
        for holder, by_role in store.holders(self.run).items():
            if holder.startswith(_BATCH):
                self._in_batches[holder] = by_role
            for role, hold in by_role.items():
                self._add(self._before, role, hold.usd, hold.tokens)
        self._count(store.spent(self.run))
        if self.caps.scope == "store":
            for role, hold in store.held(self.run, others=True).items():
                self._add(self._before, role, hold.usd, hold.tokens)
            others = store.spent(self.run, others=True)
            self._shared = bool(others)
            try:
                self._count(others)
            except UsageError as error:
                raise UsageError(
                    f'{error}; another run over this store has called it: budget.scope = "run" counts this run alone'
                ) from None

    def _count(self, several: Iterable[Spent]) -> None:
        for spent in several:
            usd = self._price(spent.model, spent.usage) if self.needs_dollars else 0.0
            self._add(self.spent, spent.role, spent.rows * usd, spent.rows * _tokens(spent.usage))

    async def reserve(self, model: Model, request: Request) -> Reservation:
        """Reserve the dearest outcome of a call; while calls are in flight it waits for what they leave.

        Raises BudgetReached if it cannot fit, UsageError where the call has no price or no bound.
        """
        reservation = self.dearest(model, request)
        if self._waiting or self._over(reservation):
            if not self._in_flight:
                raise self._reached(reservation)
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((reservation, place))
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled() and place.exception() is None:
                    self.release(reservation)
                raise
        else:
            self._hold(reservation)
        return reservation

    def reserve_in_batch(self, model: Model, request: Request, key: str) -> Reservation:
        """Reserve a call that a provider's batch is to hold, under its store key; never waits.

        What an earlier process reserved for the same call is taken over, whatever the cap is now: it may be billed
        already. Raises BudgetReached if the call is new and does not fit.
        """
        holder = _BATCH + key
        left = self._in_batches.pop(holder, None)
        if left is not None:
            for role, hold in left.items():
                self._add(self._before, role, -hold.usd, -hold.tokens)
            kept = left.get(request.role, Amount(0.0, 0))
            reservation = Reservation(request.role, kept.usd, kept.tokens, holder)
        else:
            reservation = replace(self.dearest(model, request), holder=holder)
            if self._over(reservation):
                raise self._reached(reservation)
        self._hold(reservation)
        return reservation

    def charge(self, reservation: Reservation, model: str, usage: Usage) -> bool:
        """Replace a reservation by what the call used. Returns whether that is more than was reserved.

        A reply without usage may have cost all of it, whatever its words would make.
        """
        usd = self._price(model, usage) if self.needs_dollars else 0.0
        tokens = _tokens(usage)
        self._add(self.spent, reservation.role, usd, tokens)
        if usage.counted:
            unknown = max(0.0, reservation.usd - usd), max(0, reservation.tokens - tokens)
            self._add(self.unconfirmed, reservation.role, *unknown)
        self.release(reservation)
        return usd > reservation.usd + _EPSILON or tokens > reservation.tokens

    def keep_unconfirmed(self, reservation: Reservation) -> None:
        """Keep a reservation as spent: the provider may bill a call that gave nothing."""
        self._add(self.unconfirmed, reservation.role, reservation.usd, reservation.tokens)
        self.release(reservation)

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back: the call was not billed."""
        self._add(self.held, reservation.role, -reservation.usd, -reservation.tokens)
        self._in_flight -= 1
        if reservation.holder:
            self._unwritten[reservation.holder] = {reservation.role: Amount(0.0, 0)}
            self._add(self._batched, reservation.role, -reservation.usd, -reservation.tokens)
        self._admit()

    def allocate(self, holder: str, amounts: Mapping[CallRole, Amount]) -> None:
        """Set amounts aside under a holder's name for calls that are made elsewhere. The caller checks `free` first."""
        self._allocated[holder] = {role: Amount(0.0, 0) for role in CALL_ROLES}
        for role, hold in amounts.items():
            self._change_allocation(holder, role, hold.usd, 0)
            self._change_allocation(holder, _TOKENS, 0.0, hold.tokens)

    def spent_from(self, holder: str, spent: Mapping[CallRole, Amount]) -> None:
        """Count calls that were made from an allocation, which shrinks by as much.

        The process that commits these calls writes what is left of the allocation with them (`taken_from`).
        """
        left = taken_from(self._allocated[holder], spent)
        for role in CALL_ROLES:
            self._add(self.spent, role, *spent.get(role, Amount(0.0, 0)))
            usd, tokens = left[role].plus(self._allocated[holder][role], -1)
            self._change_allocation(holder, role, usd, tokens)
        self._unwritten.pop(holder, None)

    def return_allocation(self, holder: str, unconfirmed: Mapping[CallRole, Amount]) -> None:
        """Return the rest of an allocation to the budget, except `unconfirmed`, which may still be billed."""
        for role, hold in list(self._allocated[holder].items()):
            kept = unconfirmed.get(role, Amount(0.0, 0)).usd
            self._change_allocation(holder, role, min(0.0, kept - hold.usd), 0)
        kept_tokens = sum(hold.tokens for hold in unconfirmed.values())
        left = self._allocated[holder][_TOKENS].tokens
        self._change_allocation(holder, _TOKENS, 0.0, min(0, kept_tokens - left))
        self._admit()

    def free(self, role: CallRole | None = None) -> Amount:
        """Return what no call has used or reserved of all caps that a role's calls count against (None: of those for
        both roles together): infinite where nothing bounds it.
        """
        usd, tokens = float("inf"), 1 << 62
        if self.caps.usd is not None:
            usd = self.caps.usd - self.total_usd() - sum(self.held[each].usd for each in CALL_ROLES)
        cap = getattr(self.caps, f"{role}_usd") if role else None
        if role and cap is not None:
            usd = min(usd, cap - self.total_usd(role) - self.held[role].usd)
        if self.caps.tokens is not None:
            tokens = self.caps.tokens - self.total_tokens() - sum(self.held[each].tokens for each in CALL_ROLES)
        return Amount(max(0.0, usd), max(0, tokens))

    def price_all(self, calls: Iterable[Spent]) -> Amount:
        """Return what calls come to, in dollars (0 without a cap in dollars) and tokens."""
        usd, tokens = 0.0, 0
        for one in calls:
            usd += one.rows * (self._price(one.model, one.usage) if self.needs_dollars else 0.0)
            tokens += one.rows * _tokens(one.usage)
        return Amount(usd, tokens)

    def reached(self, wanted: Reservation) -> BudgetReached:
        """Return the error for a call that no cap has room for."""
        return self._reached(wanted)

    def holds_to_write(self) -> Holds:
        """Return the holds to write to the store: of calls in flight, of unconfirmed calls, and changes to batches."""
        mine = {}
        for role in CALL_ROLES:
            usd = self.held[role].usd - self._batched[role].usd
            tokens = self.held[role].tokens - self._batched[role].tokens
            held = max(0.0, usd) if tokens > 0 else 0.0  # what remains of a sum of floats is no reservation
            mine[role] = Amount(self.unconfirmed[role].usd + held, self.unconfirmed[role].tokens + tokens)
        return {**self._unwritten, self._holder: mine}

    def written(self, holds: Holds) -> None:
        """Note that the store knows of these holds now."""
        for holder in holds:
            if self._unwritten.get(holder) == holds[holder]:
                del self._unwritten[holder]

    def total_usd(self, role: CallRole | None = None) -> float:
        """Return dollars spent, unconfirmed ones included (of one role, if given)."""
        roles = CALL_ROLES if role is None else (role,)
        return sum(self.spent[r].usd + self.unconfirmed[r].usd + self._before[r].usd for r in roles)

    def total_tokens(self) -> int:
        """Return tokens spent, unconfirmed ones included."""
        return sum(self.spent[r].tokens + self.unconfirmed[r].tokens + self._before[r].tokens for r in CALL_ROLES)

    def dearest(self, model: Model, request: Request) -> Reservation:
        """Return the reservation of a call at its dearest: cached input may cost more than fresh, or less."""
        usage = model.most_usage(request)
        usd = 0.0
        if self.needs_dollars:
            cached = replace(usage, cached_input_tokens=usage.input_tokens)
            usd = max(self._price(model.name, usage), self._price(model.name, cached))
        return Reservation(request.role, usd, _tokens(usage))

    def _price(self, model: str, usage: Usage) -> float:
        usd = None if self.pricing is None else self.pricing.usd(model, usage)
        if usd is None:
            raise no_price(model)
        return usd

    def _hold(self, reservation: Reservation) -> None:
        self._add(self.held, reservation.role, reservation.usd, reservation.tokens)
        self._in_flight += 1
        if reservation.holder:
            hold = Amount(reservation.usd, reservation.tokens)
            self._unwritten[reservation.holder] = {reservation.role: hold}
            self._add(self._batched, reservation.role, *hold)

    def _change_allocation(self, holder: str, role: CallRole, usd: float, tokens: int) -> None:
        allocated = self._allocated[holder]
        for table in (allocated, self.held, self._batched):
            self._add(table, role, usd, tokens)
        self._unwritten[holder] = dict(allocated)

    def _admit(self) -> None:
        """Reserve for waiting calls, in order, while they fit. With nothing in flight, the rest raise BudgetReached."""
        while self._waiting:
            reservation, place = self._waiting[0]
            if place.done():
                self._waiting.popleft()
            elif not self._over(reservation):
                self._waiting.popleft()
                self._hold(reservation)
                place.set_result(None)
            elif self._in_flight:
                return
            else:
                self._waiting.popleft()
                place.set_exception(self._reached(reservation))

    def _over(self, wanted: Reservation) -> str:
        """Return the name of the first cap that a call might pass, "" if it passes none."""
        held_usd = {role: self.held[role].usd for role in CALL_ROLES}
        by_role = {"decomposer": self.caps.decomposer_usd, "solver": self.caps.solver_usd}
        if self.caps.usd is not None and (
            self.total_usd() + sum(held_usd.values()) + wanted.usd > self.caps.usd + _EPSILON
        ):
            return "usd"
        cap = by_role.get(wanted.role)
        if cap is not None and self.total_usd(wanted.role) + held_usd[wanted.role] + wanted.usd > cap + _EPSILON:
            return f"{wanted.role}_usd"
        held_tokens = sum(self.held[role].tokens for role in CALL_ROLES)
        if self.caps.tokens is not None and self.total_tokens() + held_tokens + wanted.tokens > self.caps.tokens:
            return "tokens"
        return ""

    def _reached(self, wanted: Reservation) -> BudgetReached:
        name = self._over(wanted) or "tokens"
        cap = getattr(self.caps, name)
        if name == "tokens":
            state = f"{self.total_tokens():,} of {cap:,} tokens are used and the next call may take {wanted.tokens:,}"
        else:
            spent = self.total_usd(None if name == "usd" else wanted.role)
            state = f"${spent:.4f} of ${cap:.4f} are spent and the next call may cost ${wanted.usd:.4f}"
        counted = ' (what other runs over this store have spent counts: budget.scope = "store")' if self._shared else ""
        return BudgetReached(
            f"budget.{name} is reached: {state}{counted}; all completed calls are stored, run the same command with "
            f"--set budget.{name}=<more> to resume",
            wanted,
        )

    @staticmethod
    def _add(table: dict[CallRole, Amount], role: CallRole, usd: float, tokens: int) -> None:
        old = table[role]
        table[role] = Amount(old.usd + usd, old.tokens + tokens)


def taken_from(allocated: Mapping[CallRole, Amount], spent: Mapping[CallRole, Amount]) -> dict[CallRole, Amount]:
    """Return what is left of an allocation, of which calls use their own role's dollars first."""
    left = {role: allocated.get(role, Amount(0.0, 0)) for role in CALL_ROLES}
    for role, (usd, tokens) in spent.items():
        for each in sorted(CALL_ROLES, key=lambda one: one != role):
            taken = min(usd, left[each].usd)
            usd -= taken
            left[each] = left[each].plus(Amount(-taken, 0))
        left[_TOKENS] = left[_TOKENS].plus(Amount(0.0, -min(tokens, left[_TOKENS].tokens)))
    return left


def no_price(model: str) -> UsageError:
    """Return the error for a dollar cap over calls of a model that has no price."""
    return UsageError(
        f'no price is known for {model}, so the dollar cap cannot be kept: give [prices."{model}"] input_per_million '
        "and output_per_million (0 if it is free)"
    )


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens
