"""A budget that is never passed: every call's dearest outcome is reserved before it leaves and settled afterwards.

The reservation is an upper bound: the prompt's bytes bound its tokens, `max_tokens` bounds the reply. A call that does
not fit waits while others are in flight (they usually settle for less) and stops the run once none is. Calls whose
fate is unknown (a timeout, a killed process) stay counted at their reservation, since the provider may bill them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fractionate.config import BudgetConfig
from fractionate.engine.store import Hold, Store
from fractionate.errors import FractionateError, UsageError
from fractionate.models.tokens import input_bound
from fractionate.types import ROLES, Request, Role, Usage


class Pricing(Protocol):
    """What the engine asks of prices."""

    def usd(self, model_name: str, usage: Usage) -> float | None:
        """Return the dollars of one call's usage, None for a model without a price."""


class BudgetReached(FractionateError):  # noqa: N818 - a state, not an error
    """The next call might pass a cap. Everything completed is stored; a higher cap resumes."""


@dataclass(slots=True)
class Reservation:
    """What one call in flight may cost at most."""

    role: Role
    usd: float
    tokens: int


_EPSILON = 1e-9
"""Dollars: sums of floats may pass a cap by rounding alone."""


class Budget:
    """What a run has spent and holds, in dollars and tokens, by role.

    `spent`, `held` and `lost` map a role to dollars and tokens: settled calls, calls in flight, and calls that may have
    been billed but gave nothing (they stay in the store's `holds` table across restarts).
    """

    def __init__(self, caps: BudgetConfig, pricing: Pricing | None, store: Store, run: str) -> None:
        self.caps = caps
        self.pricing = pricing
        self.run = run
        self.needs_dollars = any(cap is not None for cap in (caps.usd, caps.decomposer_usd, caps.solver_usd))
        self.active = self.needs_dollars or caps.tokens is not None
        self.spent: dict[Role, Hold] = {role: Hold(0.0, 0) for role in ROLES}
        self.held: dict[Role, Hold] = {role: Hold(0.0, 0) for role in ROLES}
        self.lost: dict[Role, Hold] = {role: Hold(0.0, 0) for role in ROLES}
        self._before: Mapping[Role, Hold] = {role: Hold(0.0, 0) for role in ROLES}
        self._in_flight = 0
        self._waiting: deque[tuple[Reservation, asyncio.Future[None]]] = deque()
        if self.active:
            self._before = store.held(run)
            for spent in store.spent(run):
                usd = self._price(spent.model, spent.usage) if self.needs_dollars else 0.0
                self._add(self.spent, spent.role, spent.rows * usd, spent.rows * _tokens(spent.usage))

    async def reserve(self, model: str, request: Request, *, wait: bool = True) -> Reservation:
        """Reserve the dearest outcome of a call. Raises BudgetReached if it cannot fit.

        While calls are in flight it waits for what they leave, unless told not to.
        """
        usage = Usage(calls=1, input_tokens=input_bound(request), output_tokens=request.max_tokens)
        usd = self._price(model, usage) if self.needs_dollars else 0.0
        reservation = Reservation(request.role, usd, _tokens(usage))
        if self._waiting or self._over(reservation):
            if not self._in_flight or not wait:
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

    def settle(self, reservation: Reservation, model: str, usage: Usage) -> None:
        """Replace a reservation by what the call really used."""
        usd = self._price(model, usage) if self.needs_dollars else 0.0
        self._add(self.spent, reservation.role, usd, _tokens(usage))
        self.release(reservation)

    def lose(self, reservation: Reservation) -> None:
        """Keep a reservation as spent: the provider may bill a call that gave nothing."""
        self._add(self.lost, reservation.role, reservation.usd, reservation.tokens)
        self.release(reservation)

    def release(self, reservation: Reservation) -> None:
        """Give a reservation back: the call was not billed."""
        self._add(self.held, reservation.role, -reservation.usd, -reservation.tokens)
        self._in_flight -= 1
        self._admit()

    def stored_holds(self) -> dict[Role, Hold]:
        """Return what the store must know of: this process's calls in flight and lost ones."""
        return {
            role: Hold(
                self.lost[role].usd + (self.held[role].usd if self.held[role].tokens > 0 else 0.0),
                self.held[role].tokens + self.lost[role].tokens,
            )
            for role in ROLES
        }

    def total_usd(self, role: Role | None = None) -> float:
        """Return dollars spent, lost ones included (of one role, if given)."""
        roles = ROLES if role is None else (role,)
        return sum(self.spent[r].usd + self.lost[r].usd + self._before[r].usd for r in roles)

    def total_tokens(self) -> int:
        """Return tokens spent, lost ones included."""
        return sum(self.spent[r].tokens + self.lost[r].tokens + self._before[r].tokens for r in ROLES)

    def _price(self, model: str, usage: Usage) -> float:
        usd = None if self.pricing is None else self.pricing.usd(model, usage)
        if usd is None:
            raise UsageError(
                f'no price is known for {model}, so the dollar cap cannot be kept: give [prices."{model}"] '
                "input_per_million and output_per_million (0 if it is free)"
            )
        return usd

    def _hold(self, reservation: Reservation) -> None:
        self._add(self.held, reservation.role, reservation.usd, reservation.tokens)
        self._in_flight += 1

    def _admit(self) -> None:
        """Let those who wait in, in order, as far as they fit; once nothing is in flight, turn the rest away."""
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
        held_usd = {role: self.held[role].usd for role in ROLES}
        by_role = {"decomposer": self.caps.decomposer_usd, "solver": self.caps.solver_usd}
        if self.caps.usd is not None and (
            self.total_usd() + sum(held_usd.values()) + wanted.usd > self.caps.usd + _EPSILON
        ):
            return "usd"
        cap = by_role[wanted.role]
        if cap is not None and self.total_usd(wanted.role) + held_usd[wanted.role] + wanted.usd > cap + _EPSILON:
            return f"{wanted.role}_usd"
        held_tokens = sum(self.held[role].tokens for role in ROLES)
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
        return BudgetReached(
            f"budget.{name} is reached: {state}; all completed calls are stored, run the same command with "
            f"--set budget.{name}=<more> to resume"
        )

    @staticmethod
    def _add(table: dict[Role, Hold], role: Role, usd: float, tokens: int) -> None:
        old = table[role]
        table[role] = Hold(old.usd + usd, old.tokens + tokens)


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens
