"""Requests that are answered in batches: planned for a model in this process, or handed to a provider."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any

from fractionate.calls.budget import BudgetReached, Reservation
from fractionate.calls.ledger import Ledger
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, ProviderBatchModel
from fractionate.models.faults import Fault
from fractionate.types import Completion, Request

Row = tuple[str, Request]
"""A store key and its request."""
GRACE_S = 3.0
"""Seconds that calls and batches in flight have to come back after Ctrl-C; replies that come by then are stored."""
EXIT_S = 60.0
"""Seconds that the end of the process waits for a batch that was left behind, which ends at its next step."""


class Batches:
    """Answers requests in batches, on the ledger of one engine."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def complete(
        self, model: BatchModel | ProviderBatchModel, requests: Sequence[Request]
    ) -> AsyncIterator[tuple[int, Completion]]:
        """Answer requests; yields (position, completion) as they are committed, equal requests answered once."""
        positions: dict[str, list[int]] = {}
        for position, request in enumerate(requests):
            positions.setdefault(model.key(request), []).append(position)
        rows = [(key, requests[where[0]]) for key, where in positions.items()]
        self._ledger.counters.joined += len(requests) - len(rows)
        if isinstance(model, BatchModel):
            answers = self._in_this_process(model, rows)
        else:
            answers = self._at_the_provider(model, rows)
        async for key, completion in answers:
            for position in positions[key]:
                yield position, completion

    async def _in_this_process(self, model: BatchModel, rows: Sequence[Row]) -> AsyncIterator[tuple[str, Completion]]:
        """Run planned batches in worker threads, each committed whole.

        They are planned over all requests, stored ones included: an interrupted run that is resumed has the same
        batches as an uninterrupted one, and so the same results.
        """
        planned = iter(model.plan([request for _, request in rows]))
        running: deque[tuple[list[Row], asyncio.Task[dict[str, Completion]]]] = deque()
        try:
            while True:
                while len(running) < model.beside and (batch := next(planned, None)) is not None:
                    chosen = [rows[at] for at in batch]
                    running.append((chosen, asyncio.get_running_loop().create_task(self._answered(model, chosen))))
                if not running:
                    return
                chosen, task = running.popleft()
                replies = await task
                for key, _ in chosen:
                    yield key, replies[key]
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    async def _answered(self, model: BatchModel, chosen: Sequence[Row]) -> dict[str, Completion]:
        """Return the replies of one batch: those stored, and those made and committed now."""
        ledger = self._ledger
        replies = ledger.store.get_many([key for key, _ in chosen])
        ledger.counters.served += len(replies)
        missing = [row for row in chosen if row[0] not in replies]
        if missing:
            async with self._turn_of(model):
                ledger.check_before_sending()
                ledger.counters.sent += len(missing)
                completions = await run_in_thread(model, [request for _, request in missing])
                for (_, request), completion in zip(missing, completions, strict=True):
                    ledger.counters.completed(model.name, request.role, completion)
                kept = await ledger.commit_together(model, missing, completions)
            replies.update((key, reply) for (key, _), reply in zip(missing, kept, strict=True))
        return replies

    def _turn_of(self, model: BatchModel) -> AbstractAsyncContextManager[Any]:
        """Return what lets one batch at a time run; a model that takes several has its own way to count them."""
        if model.beside > 1:
            return nullcontext()
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:  # locks belong to the loop that they were waited for in
            self._turn = loop, asyncio.Lock()
        return self._turn[1]

    async def _at_the_provider(
        self, model: ProviderBatchModel, rows: Sequence[Row]
    ) -> AsyncIterator[tuple[str, Completion]]:
        """Hand over as many requests at a time as the budget has room for; yields what is committed."""
        ledger = self._ledger
        stored = ledger.store.get_many([key for key, _ in rows])
        ledger.counters.served += len(stored)
        for key, completion in stored.items():
            yield key, completion
        left = [row for row in rows if row[0] not in stored]
        while left:
            ledger.check_before_sending()
            reservations = await self._reserve(model, left)
            chosen, left = left[: len(reservations)], left[len(reservations) :]
            # Unanswered requests stay reserved when this is cut off: a later run takes their reservations over.
            requests = [request for _, request in chosen]
            async for at, outcome in model.complete_many(requests, self._count_sent):
                key, request = chosen[at]
                yield key, await self._account(model, request, key, outcome, reservations[at])

    async def _account(
        self,
        model: ProviderBatchModel,
        request: Request,
        key: str,
        outcome: Completion | Fault,
        held: Reservation | None,
    ) -> Completion:
        if not isinstance(outcome, Fault):
            return await self._ledger.succeeded(model, request, key, outcome, held)
        if held is not None:
            budget = self._ledger.budget
            (budget.keep_unconfirmed if outcome.maybe_paid else budget.release)(held)
        return await self._ledger.failed(model, request, key, outcome, 1)

    async def _reserve(self, model: ProviderBatchModel, rows: Sequence[Row]) -> Sequence[Reservation | None]:
        """Reserve for as many requests as the budget has room for, in order; raises if it is none."""
        budget = self._ledger.budget
        if not (model.paid and budget.active):
            return [None] * len(rows)
        reservations: list[Reservation] = []
        for key, request in rows:
            try:
                reservations.append(budget.reserve_in_batch(model, request, key))
            except FractionateError as error:
                if reservations and isinstance(error, BudgetReached):
                    break
                self._ledger.stop(error)
                raise
        await self._ledger.commits.holds()
        return reservations

    def _count_sent(self, calls: int) -> None:
        self._ledger.counters.sent += calls


def _await_end(thread: threading.Thread) -> None:
    """Wait for a thread before Python ends: ending one that is inside a library's C++ code aborts the process."""
    with suppress(KeyboardInterrupt):
        thread.join(EXIT_S)


async def run_in_thread(model: BatchModel, requests: Sequence[Request]) -> list[Completion]:
    """Run `model.complete_batch` in a daemon thread.

    A thread of its own keeps progress and Ctrl-C working meanwhile. When cancelled, the model is asked to stop
    (`interrupt`) and given `GRACE_S`; a batch that has not ended by then is left behind: its result is dropped, and the
    end of the process waits up to `EXIT_S` for its thread. Other errors than FractionateError become one that names
    the model.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Completion]] = loop.create_future()

    def finish(result: list[Completion] | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            assert result is not None
            done.set_result(result)

    def work() -> None:
        result, error = None, None
        try:
            result = model.complete_batch(requests)
        except FractionateError as raised:
            error = raised
        except BaseException as raised:
            text = " ".join(str(raised).split()) or type(raised).__name__
            error = FractionateError(f"{model.name} failed on a batch of {len(requests)}: {text}")
            error.__cause__ = raised
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            return  # the loop is gone: the run was interrupted

    thread = threading.Thread(target=work, name=f"batch of {model.name}", daemon=True)
    thread.start()
    try:
        completions = await asyncio.shield(done)
    except asyncio.CancelledError:
        if not done.done():
            model.interrupt()
            await asyncio.wait([done], timeout=GRACE_S)
            if not done.done():
                atexit.register(_await_end, thread)
        if done.done() and not done.cancelled():
            done.exception()  # seen, so that it is not reported as forgotten
        raise
    if len(completions) != len(requests):
        raise FractionateError(f"{model.name} gave {len(completions)} replies to a batch of {len(requests)}")
    return completions
