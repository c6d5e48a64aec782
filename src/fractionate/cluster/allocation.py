"""A run's limits and budget in parts: each shard has a quota of the limits and an allocation of the budget.

Quotas together are never more than the limits. Allocations are holds in the run's own store before a shard begins, so
that caps are never passed, whatever dies.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from fractionate.calls.budget import Budget, Reservation
from fractionate.calls.store import Amount, Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.types import ROLES, CallRole

LEAST_REQUESTS = 30.0
"""Requests per minute of a quota at least: a rate limiter keeps one call back as its burst."""
LEAST_TOKENS = 20_000.0
"""Tokens per minute of a quota at least: one call should be a small part of it."""


def most_shards(limits: LimitsConfig) -> int:
    """Return how many shards can have a quota of these limits that they can work with, at least 1."""
    most = limits.concurrency
    if limits.requests_per_minute is not None:
        most = min(most, int(limits.requests_per_minute / LEAST_REQUESTS))
    if limits.tokens_per_minute is not None:
        most = min(most, int(limits.tokens_per_minute / LEAST_TOKENS))
    return max(1, most)


def quotas(limits: LimitsConfig, count: int) -> list[LimitsConfig]:
    """Cut limits into `count` (at most `most_shards`) equal quotas; what cannot be cut goes to the first."""
    each, more = divmod(limits.concurrency, count)
    rates = {
        name: value / count
        for name in ("requests_per_minute", "tokens_per_minute")
        if (value := getattr(limits, name)) is not None
    }
    return [limits.model_copy(update={"concurrency": each + (place < more), **rates}) for place in range(count)]


class Allocation(NamedTuple):
    """The caps of one shard, and the holder under which the run's store keeps them."""

    holder: str
    caps: BudgetConfig


class Allocator:
    """Allocates what a budget has left to shards, `slots` of which run at a time.

    An allocation is an estimate of what the shard takes, doubled each time that one was too small; it is never more
    than a part of what is left, so that allocations get smaller as a cap comes near.
    """

    def __init__(self, budget: Budget, store: Store, slots: int) -> None:
        self._budget = budget
        self._store = store
        self._part = 1 / (2 * slots)
        self._calls_per_question = 1.0

    def raise_estimate(self) -> None:
        """Note that an allocation was too small for its shard."""
        self._calls_per_question *= 2

    def allocate(self, questions: int, wanted: Reservation | None) -> Allocation | None:
        """Allocate what a shard of so many questions may take: at least the call `wanted`. None for no room.

        Without a cap, or for calls that cost nothing, the allocation is empty.
        """
        budget, caps = self._budget, self._budget.caps
        holder = f"shard:{secrets.token_hex(8)}"
        if not budget.active:
            return Allocation(holder, BudgetConfig())
        wanted = wanted or Reservation("solver", 0.0, 0)
        calls = questions * self._calls_per_question
        given: dict[str, float | int] = {}

        def amount(free: float, least: float, estimate: float) -> float:
            return min(free, max(least, min(estimate, self._part * free)))

        by_role: dict[CallRole, float] = dict.fromkeys(ROLES, 0.0)
        capped = [role for role in ROLES if getattr(caps, f"{role}_usd") is not None]
        total = amount(budget.free().usd, wanted.usd, calls * wanted.usd) if caps.usd is not None else float("inf")
        # The wanted call's role comes first: what it takes of the total is not there for the other.
        for role in sorted(capped, key=lambda one: one != wanted.role):
            least = wanted.usd if role == wanted.role else 0.0
            others = sum(by_role.values())
            by_role[role] = min(total - others, amount(budget.free(role).usd, least, calls * wanted.usd))
            given[f"{role}_usd"] = by_role[role]
        if caps.usd is not None:
            uncapped = [role for role in ROLES if role not in capped]
            if uncapped:
                by_role[uncapped[-1]] = total - sum(by_role.values())
            # Not the sum of the roles', which rounding may leave below the call that is wanted.
            given["usd"] = total if uncapped else sum(by_role.values())
        tokens = 0
        if caps.tokens is not None:
            given["tokens"] = tokens = int(amount(budget.free().tokens, wanted.tokens, calls * wanted.tokens))
        short = wanted.usd > 0 and (
            given.get("usd", wanted.usd) < wanted.usd or given.get(f"{wanted.role}_usd", wanted.usd) < wanted.usd
        )
        if short or given.get("tokens", wanted.tokens) < wanted.tokens:
            return None
        holds: Mapping[CallRole, Amount] = {
            role: Amount(by_role[role], tokens if role == "solver" else 0) for role in ROLES
        }
        budget.allocate(holder, holds)
        self._write()  # the store knows of it before anything is spent
        return Allocation(holder, BudgetConfig.model_validate(given))

    def take_back(self, holder: str, unconfirmed: Mapping[CallRole, Amount]) -> None:
        """Return the rest of an allocation to the budget, except `unconfirmed`, which may still be billed."""
        self._budget.return_allocation(holder, unconfirmed)
        self._write()

    def _write(self) -> None:
        holds = self._budget.holds_to_write()
        self._store.merge(b"", (self._budget.run, holds))
        self._budget.written(holds)
