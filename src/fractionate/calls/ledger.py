"""The ledger of an engine: every call that ended is counted, charged, stored or given up; and when sending stops.

Stored are all replies that were paid for, refusals and filtered ones included, and rejections that depend on the
request alone (the context is too long). Transport failures and used-up retries are not: they come back as completions
with `finish_reason` "error", are counted and shown, and a rerun sends them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fractionate.calls.budget import Budget, Reservation
from fractionate.calls.group_commit import Committer
from fractionate.calls.status import Counters
from fractionate.calls.store import Store, StoredCall
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import Model
from fractionate.models.faults import Fault, PermanentFault, TransientFault
from fractionate.types import Completion, Request, Usage

ROOM_PER_CALL, LEAST_ROOM = 16 << 10, 256 << 10
"""Bytes of free disk space before a call is sent: a long reply's row for each call that may be in flight."""
CHECK_S = 0.005
"""Seconds for which a check of the store's file and disk holds: thousands of calls a second share each."""
FRUITLESS = 10
"""Failed calls in a row, none having succeeded before, after which a run stops rather than fail 10,000 one by one."""

OnEvent = Callable[[str], None]
"""Called with one line for a person while a run goes on: retries, failures, fewer calls in flight."""


class Health:
    """How many calls to one model have failed since one last succeeded."""

    def __init__(self) -> None:
        self.successes = 0
        self.streak = 0

    def succeeded(self) -> None:
        """Note a reply."""
        self.successes += 1
        self.streak = 0

    def failed(self, hopeless: bool) -> bool:
        """Note a failed call; returns whether to stop."""
        self.streak += 1
        if self.successes == 0 and (hopeless or self.streak >= FRUITLESS):
            return True
        # A server that died in the middle: many more in a row than independent failures would give.
        return self.streak >= 5 * FRUITLESS


class Ledger:
    """The ledger of one engine. `on_stop` is called once, with the reason why nothing more is to be sent."""

    def __init__(
        self,
        store: Store,
        limits: LimitsConfig,
        budget: Budget,
        run: str,
        on_stop: Callable[[FractionateError], None],
        on_event: OnEvent | None,
    ) -> None:
        self.store = store
        self.budget = budget
        self.run = run
        self.counters = Counters()
        self.commits = Committer(store, run, budget)
        self.stopped: FractionateError | None = None
        self._room = 0
        self._room_tried = False
        self._checked_at = float("-inf")
        self.change(limits)
        self._healths: dict[str, Health] = {}
        self._on_stop = on_stop
        self._on_event = on_event

    def change(self, limits: LimitsConfig) -> None:
        """Keep disk space free for as many calls in flight as these limits allow."""
        room = max(LEAST_ROOM, ROOM_PER_CALL * limits.concurrency)
        self._room_tried = self._room_tried and room <= self._room
        self._room = room

    def health(self, model: Model) -> Health:
        """Return how a model's calls have gone."""
        return self._healths.setdefault(model.identity, Health())

    def stop(self, reason: FractionateError) -> None:
        """Stop sending. Calls in flight may still return and are stored; all others raise `reason`."""
        if self.stopped is None:
            self.stopped = reason
            self._on_stop(reason)

    def give_up(self, message: str) -> FractionateError:
        """Stop and return the error to raise."""
        error = FractionateError(message)
        self.stop(error)
        return error

    def check_before_sending(self) -> None:
        """Check that replies can be stored. Raises FractionateError, and stops, if not."""
        if self.stopped is not None:
            raise self.stopped
        if time.monotonic() - self._checked_at < CHECK_S:
            return
        try:
            self.store.check_there()
            if not self._room_tried:
                self.store.try_room(self._room)
                self._room_tried = True
            elif not self.store.has_room(self._room):
                raise FractionateError(
                    f"store {self.store.path}: the disk is nearly full, so nothing more is sent: free some room and "
                    "run the same command again; everything completed is stored"
                )
        except FractionateError as error:
            self.stop(error)
            raise
        self._checked_at = time.monotonic()

    async def succeeded(
        self, model: Model, request: Request, key: str, completion: Completion, reservation: Reservation | None
    ) -> Completion:
        """Settle, count and commit a reply; stops the run if it cost more than the model's bound of a call."""
        beyond = reservation is not None and self.budget.charge(reservation, model.name, completion.usage)
        usage = completion.usage
        error = None
        if beyond:
            error = self.give_up(
                f"{model.name} used {usage.input_tokens:,} tokens of input and {usage.output_tokens:,} of output, more "
                f"than its max_tokens = {request.max_tokens:,} allows, so no budget can be kept: raise "
                f'models.options."{model.name}".max_tokens to what it really uses, or choose another model'
            )
        self.health(model).succeeded()
        self.counters.completed(model.name, request.role, completion)
        kept = await self.commit(model, request, key, completion)
        if error is not None:
            raise error
        return kept

    async def failed(self, model: Model, request: Request, key: str, fault: Fault, attempts: int) -> Completion:
        """Give a call up: an error completion, stored only where the same request would always be rejected."""
        if isinstance(fault, PermanentFault) and fault.keep:
            completion = Completion("", fault.finish_reason, Usage(calls=1), error=fault.message)
            self.counters.completed(model.name, request.role, completion)
            return await self.commit(model, request, key, completion)
        self.counters.failures[fault.cause] += 1
        count = self.counters.failures[fault.cause]
        self.tell(count, f"failed call {count:,} because of {fault.cause}: {fault.message}")
        hopeless = isinstance(fault, TransientFault) and fault.systematic
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        if self.health(model).failed(hopeless):
            raise self.give_up(f"{fault.message}{tries}; no call to {model.name} has succeeded, so the run stops")
        return Completion("", "error", Usage(calls=attempts), error=f"{fault.cause}: {fault.message}{tries}")

    async def commit(self, model: Model, request: Request, key: str, completion: Completion) -> Completion:
        """Store a completion and return it, or the one that another process had stored first."""
        (kept,) = await self.commit_together(model, [(key, request)], [completion])
        return kept

    async def commit_together(
        self, model: Model, rows: Sequence[tuple[str, Request]], completions: Sequence[Completion]
    ) -> list[Completion]:
        """Store completions in one transaction. A store that cannot be written stops the run before a slot is free."""
        now = time.time()
        calls = [
            StoredCall(key, model.name, model.identity, self.run, request, completion, now, model.paid)
            for (key, request), completion in zip(rows, completions, strict=True)
        ]
        try:
            if len(calls) == 1:
                kept = [await self.commits.put(calls[0])]
            else:
                kept = await self.commits.put_together(calls)
        except FractionateError as error:
            self.stop(error)
            raise
        self.counters.stored += len(calls)
        return kept

    def tell(self, count: int, line: str) -> None:
        """Show the first occurrence, the tenth, the hundredth …: enough to notice, few enough to read."""
        if self._on_event is not None and 10 ** (len(str(count)) - 1) == count:
            self._on_event(line)
