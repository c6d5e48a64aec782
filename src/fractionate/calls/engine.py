"""From a request to a stored completion: look up, share with identical calls, reserve, send, commit, return.

`client` does the sending; here is what a run adds to it: the store, its budget, and locks against other processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fractionate.calls.batches import Batches
from fractionate.calls.budget import Budget, BudgetReached, Pricing, Reservation
from fractionate.calls.call_locks import CallLocks
from fractionate.calls.client import CallHooks, ModelClients
from fractionate.calls.ledger import Ledger, OnEvent
from fractionate.calls.limits import BACKOFF_S, LONGEST_BACKOFF_S
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, Model, ProviderBatchModel, SingleModel
from fractionate.models.faults import FatalFault, Fault
from fractionate.types import Completion, Request


class Engine:
    """Completes requests through one store, within limits and a budget.

    `run` is the name under which calls are paid for: its earlier spending is read from the store. With a budget, raises
    FractionateError if another process is spending it. Call `close` (or use `async with`) at the end.
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
    ) -> None:
        self.store = store
        self.limits = limits or LimitsConfig()
        patience_s = self.limits.attempts * (self.limits.timeout_s + LONGEST_BACKOFF_S)
        self._locks = CallLocks(store, patience_s)
        try:
            if budget is not None and budget.has_caps:
                self._locks.hold_budget(run, budget.scope)
            self.budget = Budget(budget or BudgetConfig(), pricing, store, run)
        except BaseException:
            self._locks.close()
            raise
        self.run = run
        self._clients = ModelClients(self.limits, self._cut, self._tell, backoff_s)
        self._ledger = Ledger(store, self.limits, self.budget, run, self._clients.stop, on_event)
        self.counters = self._ledger.counters
        self._batches = Batches(self._ledger)
        self._in_flight: dict[str, asyncio.Task[Completion]] = {}
        self._sending: set[asyncio.Task[Any] | None] = set()
        self.elsewhere = 0
        """Calls in flight of other processes that work for this one."""

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left. The store and the models stay open: their owner closes them."""
        self._ledger.commits.close()
        self._locks.close()

    def start(self, model: Model, request: Request) -> Completion | asyncio.Task[Completion]:
        """Return a request's completion if it is stored, else the task that makes it (shared by identical requests).

        Cancelling a caller of `complete` does not cancel the task: the call may be paid already.
        """
        key = model.key(request)
        running = self._in_flight.get(key)
        if running is not None:
            self.counters.joined += 1
            return running
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
        self._in_flight[key] = task

        def land(done: asyncio.Task[Completion]) -> None:
            del self._in_flight[key]
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
        self._ledger.stop(reason)

    def change_limits(self, limits: LimitsConfig) -> None:
        """Apply other limits from now on; calls in flight stay."""
        self.limits = limits
        self._ledger.change(limits)
        self._clients.change(limits)

    def hold(self, held: bool) -> None:
        """Let no call leave until it is called with False; calls in flight stay."""
        self._clients.hold(held)

    async def await_rates(self) -> None:
        """Return once an engine whose rate limiters begin empty may go on in place of this one."""
        await asyncio.sleep(self._clients.debt_s())

    @property
    def slots_taken(self) -> int:
        """Calls that have left and are not committed yet."""
        return self._clients.slots.taken

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back, those of workers elsewhere included."""
        return self.elsewhere + self._clients.in_flight

    @property
    def stopped(self) -> FractionateError | None:
        """Why nothing more is sent, None while calls are."""
        return self._ledger.stopped

    def is_sent(self, task: asyncio.Task[Completion]) -> bool:
        """Return whether a task from `start` has a call in flight, rather than waiting for its turn or a retry."""
        return task in self._sending

    async def _one_of_a_batch(self, model: BatchModel | ProviderBatchModel, request: Request) -> Completion:
        async for _, completion in self.complete_batches(model, [request]):
            return completion
        raise FractionateError(f"{model.name} planned no batch for a request")

    async def _make(self, model: SingleModel, request: Request, key: str) -> Completion:
        """Send a request until it is answered or given up; commit what is to be kept."""
        try:
            return await self._clients.of(model).complete(request, _RunCall(self, model, request, key))
        except FatalFault as fault:
            raise self._ledger.give_up(fault.message) from None
        except Fault as fault:
            return await self._ledger.failed(model, request, key, fault, fault.attempts)

    def _tell(self, count: int, line: str) -> None:
        self._ledger.tell(count, line)

    def _cut(self, name: str, limit: int) -> None:
        self.counters.cuts += 1
        self._tell(self.counters.cuts, f"{name} is busy: at most {limit} calls in flight for now")


class _RunCall(CallHooks):
    """One call of a run: made once by all processes, within the budget, and stored."""

    __slots__ = ("_engine", "_key", "_made", "_model", "_request", "_reservation")

    def __init__(self, engine: Engine, model: SingleModel, request: Request, key: str) -> None:
        self._engine = engine
        self._model = model
        self._request = request
        self._key = key
        self._made: Completion | None = None
        self._reservation: Reservation | None = None

    def admit(self) -> bool:
        engine = self._engine
        engine._ledger.check_before_sending()
        try:
            mine = engine._locks.take(self._key)
        except FractionateError as error:
            engine.stop(error)
            raise
        # Looked up again: another process may have committed it while this call waited for a slot.
        self._made = engine.store.get(self._key)
        return mine and self._made is None

    async def made_elsewhere(self) -> Completion | None:
        made = self._made or await self._engine._locks.elsewhere(self._key)
        if made is not None:
            self._engine.counters.served += 1
        return made

    async def reserve(self) -> None:
        """Reserve the most that the call can cost, and return once the store knows of it."""
        engine = self._engine
        engine._sending.add(asyncio.current_task())
        budget = engine.budget
        if not (self._model.paid and budget.active):
            return
        try:
            reservation = await budget.reserve(self._model, self._request)
        except FractionateError as error:
            engine.stop(error)
            raise
        try:
            if engine.stopped is not None:
                raise engine.stopped
            await engine._ledger.commits.holds()
        except BaseException as error:
            budget.release(reservation)
            if isinstance(error, FractionateError):
                engine.stop(error)
            raise
        self._reservation = reservation

    def sent(self) -> None:
        self._engine.counters.sent += 1

    def failed(self, fault: Fault | None) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            budget = self._engine.budget
            (budget.keep_unconfirmed if fault is None or fault.maybe_paid else budget.release)(reservation)

    async def keep(self, completion: Completion) -> Completion:
        return await self._engine._ledger.succeeded(
            self._model, self._request, self._key, completion, self._reservation
        )

    def retrying(self, fault: Fault, wait_s: float) -> None:
        engine = self._engine
        engine._sending.discard(asyncio.current_task())
        engine.counters.retries[fault.cause] += 1
        if wait_s:
            count = engine.counters.retries[fault.cause]
            engine._tell(count, f"retry {count:,} because of {fault.cause}, in {wait_s:.1f} s: {fault.message}")


__all__ = ["BudgetReached", "Engine", "OnEvent"]
