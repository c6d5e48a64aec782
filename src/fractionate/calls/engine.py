"""The path from a request to a stored completion: look up, share, reserve, send, retry, commit, return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fractionate.calls.accounts import Accounts, OnEvent
from fractionate.calls.batches import Batches
from fractionate.calls.budget import Budget, BudgetReached, Lender, Pricing, Reservation
from fractionate.calls.call_locks import CallLocks
from fractionate.calls.deadlines import Deadlines
from fractionate.calls.lane import Lane
from fractionate.calls.limits import BACKOFF_S, LONGEST_BACKOFF_S, backoff, loop_time
from fractionate.calls.road import Road, Roads, Route
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, Model, ProviderBatchModel, SingleModel
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault
from fractionate.models.tokens import estimate_messages
from fractionate.types import Completion, Request

LONGEST_WAIT_S = 900.0
"""Seconds of Retry-After that a run waits; a server that asks for more stops the run instead."""


class Engine:
    """Completes requests through one store, within limits and a budget.

    `run` names who pays: what it has spent before is read from the store. With a budget, raises FractionateError if
    another process is spending it. Counters are in `counters`. Call `close` (or use `async with`) at the end.
    """

    def __init__(
        self,
        store: Store,
        limits: LimitsConfig | None = None,
        budget: BudgetConfig | None = None,
        pricing: Pricing | None = None,
        on_event: OnEvent | None = None,
        *,
        run: str = "",
        backoff_s: float = BACKOFF_S,
        lender: Lender | None = None,
    ) -> None:
        self.store = store
        self.limits = limits or LimitsConfig()
        patience_s = self.limits.attempts * (self.limits.timeout_s + LONGEST_BACKOFF_S)
        self._locks = CallLocks(store, patience_s)
        try:
            if budget is not None and budget.has_caps:
                self._locks.hold_budget(run, budget.scope)
            self.budget = Budget(budget or BudgetConfig(), pricing, store, run, lender)
        except BaseException:
            self._locks.close()
            raise
        self.run = run
        self._roads = Roads(self.limits, self._cut, self._tell)
        self._accounts = Accounts(store, self.limits, self.budget, run, self._roads.stop, on_event)
        self.counters = self._accounts.counters
        self._batches = Batches(self._accounts)
        self._backoff_s = backoff_s
        self._flying: dict[str, asyncio.Task[Completion]] = {}
        self._deadlines = Deadlines(self.limits.timeout_s)
        self._sending: set[asyncio.Task[Any] | None] = set()
        self.elsewhere = 0
        """Calls in flight of other processes that work for this one."""

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left. The store and the models stay open: whoever opened them closes them."""
        self._accounts.commits.close()
        self._locks.close()

    def start(self, model: Model, request: Request) -> Completion | asyncio.Task[Completion]:
        """Return a request's completion if it is stored, else the task that makes it (shared by identical requests).

        Cancelling whoever awaits the task's result through `complete` leaves the task alone: it may be paid already.
        """
        key = model.key(request)
        flying = self._flying.get(key)
        if flying is not None:
            self.counters.joined += 1
            return flying
        stored = self.store.get(key) or self.store.find(model.other_keys(request))
        if stored is not None:
            self.counters.served += 1
            return stored
        if isinstance(model, SingleModel):
            making = self._make(model, request, key)
        else:
            assert isinstance(model, BatchModel | ProviderBatchModel), f"{model.name} has no way to answer"
            making = self._one_of_a_batch(model, request)
        task = asyncio.get_running_loop().create_task(making)
        self._flying[key] = task

        def land(done: asyncio.Task[Completion]) -> None:
            del self._flying[key]
            self._sending.discard(done)
            self._locks.give_back(key)

        task.add_done_callback(land)
        return task

    async def complete(self, model: Model, request: Request) -> Completion:
        """Return a request's completion: stored, shared with an identical call in flight, or made now and committed.

        A call that fails for good is a completion with `finish_reason` "error". Raises FractionateError where going on
        is useless (BudgetReached, a refused key, an unknown model, a server that cannot be reached).
        """
        started = self.start(model, request)
        return started if isinstance(started, Completion) else await asyncio.shield(started)

    def complete_batches(
        self, model: BatchModel | ProviderBatchModel, requests: Sequence[Request]
    ) -> AsyncIterator[tuple[int, Completion]]:
        """Answer requests in batches; yields (position, completion) as they are committed."""
        return self._batches.complete(model, requests)

    def stop(self, reason: FractionateError) -> None:
        """Send nothing more: calls in flight may still come back and are stored, all others get `reason`."""
        self._accounts.stop(reason)

    def change_limits(self, limits: LimitsConfig) -> None:
        """Keep to other limits from now on; calls that have left already stay."""
        self.limits = limits
        self._accounts.change(limits)
        self._roads.change(limits)

    def hold(self, held: bool) -> None:
        """Let no call leave until it is called with False; calls that have left already stay."""
        self._roads.hold(held)

    @property
    def places_taken(self) -> int:
        """Calls that have left and are not committed yet."""
        return self._roads.places.taken

    async def write_holds(self) -> None:
        """Return once the store knows what the budget holds and has lent."""
        await self._accounts.commits.holds()

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back, those of workers elsewhere included."""
        return self.elsewhere + sum(road.in_flight for road in self._roads.values())

    @property
    def stopped(self) -> FractionateError | None:
        """Why nothing more is sent, None while calls are."""
        return self._accounts.stopped

    def is_sent(self, task: asyncio.Task[Completion]) -> bool:
        """Return whether a task from `start` has a call in flight, rather than waiting for its turn or a retry."""
        return task in self._sending

    async def _one_of_a_batch(self, model: BatchModel | ProviderBatchModel, request: Request) -> Completion:
        async for _, completion in self.complete_batches(model, [request]):
            return completion
        raise FractionateError(f"{model.name} planned no batch for a request")

    async def _make(self, model: SingleModel, request: Request, key: str) -> Completion:
        """Send a request until it succeeds, fails for good or its attempts are used up; commit what is to be kept."""
        road = self._roads.of(model)
        route = Route(road, request)
        tokens = estimate_messages(request.messages) + request.max_tokens if self.limits.tokens_per_minute else 0
        attempt = 1
        while True:
            lane = await self._enter(road, route, tokens, key)
            if isinstance(lane, Completion):
                return lane
            # The place is kept until the reply is committed: what is paid for and not stored is bounded so.
            try:
                outcome = await self._send(model, request, road, lane, tokens)
                if isinstance(outcome, tuple):
                    return await self._accounts.succeeded(model, request, key, *outcome)
                fault = route.failed(outcome)
                if isinstance(fault, FatalFault):
                    raise self._accounts.give_up(fault.message)
                if fault is not None and (isinstance(fault, PermanentFault) or attempt == self.limits.attempts):
                    return await self._accounts.failed(model, request, key, fault, attempt)
            finally:
                lane.leave()
            self._sending.discard(asyncio.current_task())
            self.counters.retries[outcome.cause] += 1
            if fault is not None:
                await self._wait_for_retry(fault, attempt, alone=road.alone)
                attempt += 1

    async def _enter(self, road: Road, route: Route, tokens: float, key: str) -> Lane | Completion:
        """Wait for a place to send a call from. Returns its completion instead if another process makes it."""
        while True:
            if self._accounts.stopped is not None:
                raise self._accounts.stopped
            lane = await route.enter(tokens)
            try:
                self._accounts.check_before_sending()
                mine = self._take(key)
                # Looked up again: another process may have committed it while it waited here.
                made = self.store.get(key)
                if made is None and mine:
                    return lane
            except BaseException:
                self._leave_unsent(road, lane, tokens)
                raise
            self._leave_unsent(road, lane, tokens)
            made = made or await self._locks.elsewhere(key)
            if made is not None:
                self.counters.served += 1
                return made

    def _leave_unsent(self, road: Road, lane: Lane, tokens: float) -> None:
        road.give_back(tokens, loop_time(), requests=1)
        lane.answered()
        lane.leave()

    def _take(self, key: str) -> bool:
        try:
            return self._locks.take(key)
        except FractionateError as error:
            self.stop(error)
            raise

    async def _send(
        self, model: SingleModel, request: Request, road: Road, lane: Lane, tokens: float
    ) -> tuple[Completion, Reservation | None] | Fault:
        """Send a request once, from a place. Returns its completion and reservation, or a fault."""
        me: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # never None in a coroutine
        self._sending.add(me)
        used, left_at = 0.0, loop_time()
        try:
            reservation = await self._reserve(model, request)
            outcome = await self._exchange(request, lane, reservation, me)
            if isinstance(outcome, Completion):
                used = outcome.usage.input_tokens + outcome.usage.output_tokens
        finally:
            lane.answered()
        if isinstance(outcome, Completion):
            lane.succeeded()
            road.give_back(tokens - used if tokens else 0, left_at)
            return outcome, reservation
        return outcome

    async def _reserve(self, model: SingleModel, request: Request) -> Reservation | None:
        """Reserve the call's dearest outcome, and return once the store knows of it."""
        if not (model.paid and self.budget.active):
            return None
        try:
            reservation = await self.budget.reserve(model, request)
        except FractionateError as error:
            self.stop(error)
            raise
        try:
            if self._accounts.stopped is not None:
                raise self._accounts.stopped
            await self._accounts.commits.holds()
        except BaseException as error:
            self.budget.release(reservation)
            if isinstance(error, FractionateError):
                self.stop(error)
            raise
        return reservation

    async def _exchange(
        self, request: Request, lane: Lane, reservation: Reservation | None, me: asyncio.Task[Any]
    ) -> Completion | Fault:
        """Let the lane's server answer; tell lane and budget of what went wrong."""
        server = lane.server
        sent_at = asyncio.get_running_loop().time()
        self.counters.sent += 1
        fault: Fault
        try:
            completion = await self._deadlines.run(server.complete(request), me)
        except TimeoutError:
            limit = f"{self.limits.timeout_s:g} s"
            message = f"{server.name} gave no reply within {limit} (limits.timeout_s)"
            fault = TransientFault("timeout", message, congested=True, maybe_paid=True)
        except Fault as raised:
            fault = raised
        except BaseException:
            # Cancelled, or a bug: the request may have reached the provider.
            if reservation is not None:
                self.budget.lose(reservation)
            raise
        else:
            self._heed(lane)
            return completion
        if reservation is not None:
            (self.budget.lose if fault.maybe_paid else self.budget.release)(reservation)
        if isinstance(fault, TransientFault) and fault.after_s:
            lane.pause(fault.after_s)
            if fault.after_s > LONGEST_WAIT_S:
                asked = f"{fault.message}; it asks to wait {min(fault.after_s, 1e9):.0f} s"
                fault = FatalFault(fault.cause, f"{asked}: run the same command again then to resume")
        lane.failed(fault, sent_at)
        self._heed(lane)
        return fault

    async def _wait_for_retry(self, fault: Fault, attempt: int, *, alone: bool) -> None:
        """Wait before the next attempt: as long as the server asks for, unless there are others to ask meanwhile."""
        assert isinstance(fault, TransientFault), "other faults are never retried"
        wait = (fault.after_s or 0.0 if alone else 0.0) + backoff(self._backoff_s, attempt)
        count = self.counters.retries[fault.cause]
        self._tell(count, f"retry {count:,} because of {fault.cause}, in {wait:.1f} s: {fault.message}")
        await asyncio.sleep(wait)

    def _heed(self, lane: Lane) -> None:
        if lane.server.rate is not None:
            lane.heed(lane.server.rate)

    def _tell(self, count: int, line: str) -> None:
        self._accounts.tell(count, line)

    def _cut(self, name: str, limit: int) -> None:
        self.counters.cuts += 1
        self._tell(self.counters.cuts, f"{name} is busy: at most {limit} calls in flight for now")


__all__ = ["BudgetReached", "Engine", "OnEvent"]
