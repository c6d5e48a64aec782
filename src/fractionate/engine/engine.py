"""The path from a request to a stored completion: look up, share, reserve, send, retry, commit, return.

What is stored: every reply that was paid for, refusals and filtered ones included, and rejections that depend on the
request alone (the context is too long). What is not: transport failures and used-up retries. They come back as
completions with `finish_reason` "error", are counted and shown, and a rerun asks again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.engine.budget import Budget, BudgetReached, Pricing, Reservation
from fractionate.engine.call_locks import CallLocks
from fractionate.engine.counters import Counters
from fractionate.engine.deadlines import Deadlines
from fractionate.engine.group_commit import Committer
from fractionate.engine.health import Health
from fractionate.engine.limits import BACKOFF_S, Lane, Lanes, backoff
from fractionate.engine.store import Store, StoredCall
from fractionate.engine.workers import in_worker
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, Model, ProviderBatchModel, SingleModel
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault
from fractionate.models.tokens import estimate_messages
from fractionate.types import Completion, Request, Usage

LONGEST_WAIT_S = 900.0
"""Seconds of Retry-After that a run waits; a server that asks for more stops the run instead."""

OnEvent = Callable[[str], None]
"""Told one line about what a person should know while a run goes on: retries, failures, fewer calls in flight."""


class Engine:
    """Completes requests through one store, within limits and a budget.

    `run` names who pays: what it has spent before is read from the store. With a budget, raises FractionateError if
    another process is spending it. Counters are in `stats`. Call `close` (or use `async with`) at the end.
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
        self.counters = Counters()
        self._locks = CallLocks(store, self.limits.timeout_s)
        if budget not in (None, BudgetConfig()):
            self._locks.hold_budget(run)
        self.budget = Budget(budget or BudgetConfig(), pricing, store, run)
        self.run = run
        self._backoff_s = backoff_s
        self._on_event = on_event
        self._commits = Committer(store, run, f"{os.getpid()}-{secrets.token_hex(4)}", self.budget)
        self._lanes = Lanes(self.limits, self._cut)
        self._healths: dict[str, Health] = {}
        self._flying: dict[str, asyncio.Task[Completion]] = {}
        self._deadlines = Deadlines(self.limits.timeout_s)
        self._sending: set[asyncio.Task[Any]] = set()
        self._batching: asyncio.Lock | None = None
        self._stopped: FractionateError | None = None

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is left. The store and the models stay open: whoever opened them closes them."""
        self._commits.close()
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
        stored = self.store.get(key)
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

    async def complete_batches(
        self, model: BatchModel | ProviderBatchModel, requests: Sequence[Request]
    ) -> AsyncIterator[tuple[int, Completion]]:
        """Answer requests with a model in this process; yields (position, completion) as batches are committed.

        The batches are planned over all requests, stored ones included, and each is committed whole: an interrupted
        run that is resumed has the same batches as an uninterrupted one, and so the same results.
        """
        keys = [model.key(request) for request in requests]
        positions: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        firsts = [where[0] for where in positions.values()]
        self.counters.joined += len(requests) - len(firsts)
        if isinstance(model, ProviderBatchModel):
            async for first, completion in self._at_the_provider(model, [(keys[n], requests[n]) for n in firsts]):
                for position in positions[keys[firsts[first]]]:
                    yield position, completion
            return
        self._batching = self._batching or asyncio.Lock()
        for batch in model.plan([requests[first] for first in firsts]):
            chosen = [firsts[row] for row in batch]
            replies = self.store.get_many([keys[first] for first in chosen])
            self.counters.served += len(replies)
            missing = [first for first in chosen if keys[first] not in replies]
            if missing:
                async with self._batching:
                    replies.update(await self._generate(model, [(keys[first], requests[first]) for first in missing]))
            for first in chosen:
                for position in positions[keys[first]]:
                    yield position, replies[keys[first]]

    def stop(self, reason: FractionateError) -> None:
        """Send nothing more: calls in flight may still come back and are stored, all others get `reason`."""
        self._stopped = self._stopped or reason
        self._lanes.stop(reason)

    @property
    def in_flight(self) -> int:
        """Calls that have left and not come back."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def is_sent(self, task: asyncio.Task[Completion]) -> bool:
        """Return whether a task from `start` has a call in flight, rather than waiting for its turn or a retry."""
        return task in self._sending

    async def _one_of_a_batch(self, model: BatchModel | ProviderBatchModel, request: Request) -> Completion:
        async for _, completion in self.complete_batches(model, [request]):
            return completion
        raise FractionateError(f"{model.name} planned no batch for a request")

    async def _at_the_provider(
        self, model: ProviderBatchModel, rows: list[tuple[str, Request]]
    ) -> AsyncIterator[tuple[int, Completion]]:
        """Answer requests through a provider's batch endpoint; yields (position in rows, completion), all committed."""
        stored = self.store.get_many([key for key, _ in rows])
        self.counters.served += len(stored)
        for position, (key, _) in enumerate(rows):
            if key in stored:
                yield position, stored[key]
        left = [position for position, (key, _) in enumerate(rows) if key not in stored]
        while left:
            reservations = await self._reserve_many(model, [rows[position][1] for position in left])
            chosen, left = left[: len(reservations)], left[len(reservations) :]
            waiting = dict(zip(chosen, reservations, strict=True))
            try:
                requests = [rows[position][1] for position in chosen]
                async for number, outcome in model.complete_many(requests, self._count_sent):
                    key, request = rows[chosen[number]]
                    completion = await self._account(model, request, key, outcome, waiting.pop(chosen[number]))
                    yield chosen[number], completion
            finally:
                # A batch left behind stays open in the store: whoever asks again reserves for it again.
                for reservation in filter(None, waiting.values()):
                    self.budget.release(reservation)

    async def _account(
        self, model: Model, request: Request, key: str, outcome: Completion | Fault, reservation: Reservation | None
    ) -> Completion:
        """Settle, count and commit what a provider's batch gave for one request."""
        if isinstance(outcome, Fault):
            if reservation is not None:
                self.budget.release(reservation)
            return await self._fail(model, request, key, outcome, 1)
        if reservation is not None:
            self.budget.settle(reservation, model.name, outcome.usage)
        self._healths.setdefault(model.identity, Health()).succeeded()
        self.counters.completed(model.name, request.role, outcome)
        return await self._commit(model, request, key, outcome)

    async def _reserve_many(self, model: Model, requests: list[Request]) -> Sequence[Reservation | None]:
        """Reserve for as many requests as the budget has room for, in order; raises if it is none."""
        if not (model.paid and self.budget.active):
            return [None] * len(requests)
        reservations: list[Reservation] = []
        for request in requests:
            try:
                reservations.append(await self.budget.reserve(model.name, request, wait=False))
            except FractionateError as error:
                if reservations and isinstance(error, BudgetReached):
                    break
                self.stop(error)
                raise
        await self._commits.holds()
        return reservations

    async def _generate(self, model: BatchModel, rows: list[tuple[str, Request]]) -> dict[str, Completion]:
        """Run one batch in a worker thread and commit it whole."""
        if self._stopped is not None:
            raise self._stopped
        self.counters.sent += len(rows)
        completions = await in_worker(model, [request for _, request in rows])
        calls = [
            StoredCall(key, model.name, model.identity, self.run, request, completion)
            for (key, request), completion in zip(rows, completions, strict=True)
        ]
        others = self._commits.put_now(calls)
        replies: dict[str, Completion] = {}
        for call in calls:
            replies[call.key] = others.get(call.key, call.completion)
            self.counters.completed(model.name, call.request.role, call.completion)
        self.counters.stored += len(calls)
        return replies

    async def _make(self, model: SingleModel, request: Request, key: str) -> Completion:
        """Send a request until it succeeds, fails for good or its attempts are used up; commit what is to be kept."""
        lane, health = self._lanes.of(model), self._healths.setdefault(model.identity, Health())
        budgeted = model.paid and self.budget.active
        tokens = estimate_messages(request.messages) + request.max_tokens if self.limits.tokens_per_minute else 0
        me: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # never None in a coroutine
        for attempt in range(1, self.limits.attempts + 1):
            made = await self._enter(lane, tokens, key)
            if made is not None:
                return made
            self._sending.add(me)
            try:
                reservation = await self._reserve(model, request) if budgeted else None
                completion, fault = await self._send(model, request, lane, reservation, me)
            finally:
                lane.leave()
            if fault is None:
                assert completion is not None
                health.succeeded()
                lane.succeeded(tokens - completion.usage.input_tokens - completion.usage.output_tokens if tokens else 0)
                self.counters.completed(model.name, request.role, completion)
                return await self._commit(model, request, key, completion)
            if isinstance(fault, FatalFault):
                raise self._give_up(fault.message)
            if isinstance(fault, PermanentFault):
                return await self._fail(model, request, key, fault, attempt)
            assert isinstance(fault, TransientFault)
            if attempt == self.limits.attempts:
                return await self._fail(model, request, key, fault, attempt)
            self.counters.retries[fault.cause] += 1
            wait = (fault.after_s or 0.0) + backoff(self._backoff_s, attempt)
            count = self.counters.retries[fault.cause]
            self._tell(count, f"retry {count:,} because of {fault.cause}, in {wait:.1f} s: {fault.message}")
            self._sending.discard(me)
            await asyncio.sleep(wait)
        raise AssertionError("attempts is at least 1")

    async def _enter(self, lane: Lane, tokens: float, key: str) -> Completion | None:
        """Wait for a place to send a call from. Returns its completion instead if another process makes it."""
        while True:
            if self._stopped is not None:
                raise self._stopped
            await lane.enter(tokens)
            mine = self._locks.take(key)
            # Looked up again: another process may have committed it while it waited here.
            made = self.store.get(key)
            if made is None and mine:
                return None
            lane.leave(unsent=tokens)
            made = made or await self._locks.elsewhere(key)
            if made is not None:
                self.counters.served += 1
                return made

    async def _reserve(self, model: SingleModel, request: Request) -> Reservation:
        """Reserve the call's dearest outcome, and return once the store knows of it."""
        try:
            reservation = await self.budget.reserve(model.name, request)
        except FractionateError as error:
            self.stop(error)
            raise
        try:
            if self._stopped is not None:
                raise self._stopped
            await self._commits.holds()
        except BaseException:
            self.budget.release(reservation)
            raise
        return reservation

    async def _send(
        self, model: SingleModel, request: Request, lane: Lane, reservation: Reservation | None, me: asyncio.Task[Any]
    ) -> tuple[Completion | None, Fault | None]:
        """Send a request once. Returns a completion or a fault, with budget and lane told of it."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        self.counters.sent += 1
        fault: Fault
        try:
            completion = await self._deadlines.run(model.complete(request), me)
        except TimeoutError:
            limit = f"{self.limits.timeout_s:g} s"
            message = f"{model.name} gave no reply within {limit} (limits.timeout_s)"
            fault = TransientFault("timeout", message, congested=True, maybe_paid=True)
        except Fault as raised:
            fault = raised
        except BaseException:
            # Cancelled, or a bug: the request may have reached the provider.
            if reservation is not None:
                self.budget.lose(reservation)
            raise
        else:
            if reservation is not None:
                self.budget.settle(reservation, model.name, completion.usage)
            self._heed(model, lane)
            return completion, None
        if reservation is not None:
            (self.budget.lose if fault.maybe_paid else self.budget.release)(reservation)
        if isinstance(fault, TransientFault):
            if fault.congested:
                lane.congested(sent_at)
            if fault.after_s:
                if fault.after_s > LONGEST_WAIT_S:
                    asked = f"{fault.message}; it asks to wait {fault.after_s:.0f} s"
                    return None, FatalFault(fault.cause, f"{asked}: run the same command again then to resume")
                lane.pause(fault.after_s)
        self._heed(model, lane)
        return None, fault

    def _heed(self, model: SingleModel, lane: Lane) -> None:
        if model.rate is not None:
            lane.heed(model.rate)

    async def _fail(self, model: Model, request: Request, key: str, fault: Fault, attempts: int) -> Completion:
        """Give a call up: an error completion, stored only where the server would always say the same."""
        if isinstance(fault, PermanentFault) and fault.keep:
            completion = Completion("", fault.finish_reason, Usage(calls=1), error=fault.message)
            self.counters.completed(model.name, request.role, completion)
            return await self._commit(model, request, key, completion)
        self.counters.failures[fault.cause] += 1
        count = self.counters.failures[fault.cause]
        self._tell(count, f"failed call {count:,} because of {fault.cause}: {fault.message}")
        hopeless = isinstance(fault, TransientFault) and fault.systematic
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        if self._healths.setdefault(model.identity, Health()).failed(hopeless):
            raise self._give_up(f"{fault.message}{tries}; no call to {model.name} has succeeded, so the run stops")
        return Completion("", "error", Usage(calls=attempts), error=f"{fault.cause}: {fault.message}{tries}")

    def _give_up(self, message: str) -> FractionateError:
        error = FractionateError(message)
        self.stop(error)
        return error

    async def _commit(self, model: Model, request: Request, key: str, completion: Completion) -> Completion:
        row = StoredCall(key, model.name, model.identity, self.run, request, completion, time.time())
        kept = await self._commits.put(row)
        self.counters.stored += 1
        return kept

    def _count_sent(self, calls: int) -> None:
        self.counters.sent += calls

    def _cut(self, name: str, limit: int) -> None:
        self.counters.cuts += 1
        self._tell(self.counters.cuts, f"{name} is busy: at most {limit} calls in flight for now")

    def _tell(self, count: int, line: str) -> None:
        """Tell a person of the first occurrence, the tenth, the hundredth …: enough to see, too few to drown in."""
        if self._on_event is not None and 10 ** (len(str(count)) - 1) == count:
            self._on_event(line)


__all__ = ["BudgetReached", "Engine", "OnEvent"]
