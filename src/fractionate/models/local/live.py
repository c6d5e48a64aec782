"""A local model that answers requests as they come, for serving: continuous batching.

A run plans its batches; a server cannot. One thread generates all running requests together, a token at a time. Between
two tokens new requests join, finished ones leave, and cancelled ones are dropped.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fractionate.errors import FractionateError
from fractionate.models.base import SingleModel
from fractionate.models.local.model import LocalModel, completion_of
from fractionate.models.local.rows import Row, RowBatch
from fractionate.types import Completion, Request

ROWS = 32
"""Requests generated together at most, by default."""


@dataclass(frozen=True, slots=True)
class LiveStats:
    """Requests that wait, requests that are being generated, and tokens generated since the start."""

    waiting: int
    running: int
    tokens: int


class LiveModel(SingleModel):
    """Local weights behind the contract of a server: many requests at once, each answered when it is done.

    At most `rows` are generated together, fewer where their key/value cache would not fit the memory of a batch. The
    others wait in order. The weights are loaded at the first request.
    """

    takes = frozenset({"max_tokens", "stop", "temperature", "seed"})

    def __init__(self, local: LocalModel, rows: int = ROWS) -> None:
        self._local = local
        self.name, self.identity, self.style = local.name, local.identity, local.style
        self._worker = _Worker(local, rows)

    @property
    def stats(self) -> LiveStats:
        """The current load."""
        return self._worker.stats

    async def complete(self, request: Request) -> Completion:
        """Answer one request. Cancelling stops generation at the next token."""
        return await self._ask(request, None)

    async def stream(self, request: Request, on_text: Callable[[str], None]) -> Completion:
        """Answer one request; `on_text` gets the text as it comes: no half character, no part of a stop string."""
        return await self._ask(request, on_text)

    async def close(self) -> None:
        """Fail the requests that are not done (with a FractionateError) and end the thread."""
        await asyncio.to_thread(self._worker.close)

    async def _ask(self, request: Request, on_text: Callable[[str], None] | None) -> Completion:
        prompt = await asyncio.to_thread(self._local.prompt, request)
        if isinstance(prompt, Completion):
            return prompt
        asked = _Pending(self._local.row(prompt), on_text)
        self._worker.add(asked)
        try:
            return await asked.future
        finally:
            asked.row.ended = True  # if it was cancelled, the row leaves at the next token


class _Pending:
    """A request, and how its text and its end get from the generating thread to the event loop that waits for it."""

    def __init__(self, row: Row, on_text: Callable[[str], None] | None) -> None:
        self.row, self.prompt, self._on_text = row, row.prompt, on_text
        self.length = len(row.prompt.tokens) + row.prompt.max_tokens
        self.future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._started, self.compute_s, self._delivered = time.perf_counter(), 0.0, ""

    def deliver(self) -> None:
        """Pass on the new part of the text, and the completion if the row has ended."""
        if not self.row.ended:
            if self._on_text is not None:
                self._send(self.row.stable_text()[len(self._delivered) :])
            return
        reply = self.row.finish()
        self._send(reply.text[len(self._delivered) :])
        reply.text = self._delivered
        seconds = time.perf_counter() - self._started
        self._in_loop(self._resolve, completion_of(reply, self.prompt, seconds, self.compute_s))

    def fail(self, error: Exception) -> None:
        """Pass an error on in place of a completion."""
        self.row.ended = True
        self._in_loop(self._refuse, error)

    def _send(self, text: str) -> None:
        self._delivered += text
        if text and self._on_text is not None:
            self._in_loop(self._hand_over, self._on_text, text)

    def _hand_over(self, on_text: Callable[[str], None], text: str) -> None:
        if self.future.done():
            return
        try:
            on_text(text)
        except Exception as error:
            self.fail(error)

    def _resolve(self, completion: Completion) -> None:
        if not self.future.done():
            self.future.set_result(completion)

    def _refuse(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _in_loop(self, call: Callable[..., None], *values: object) -> None:
        try:
            self.future.get_loop().call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop is closed: nothing waits for the reply any more
            self.row.ended = True


class _Worker:
    """The generating thread. `add`, `close` and `stats` may be called from any other thread."""

    def __init__(self, local: LocalModel, rows: int) -> None:
        self._local, self._rows = local, rows
        self._waiting: deque[_Pending] = deque()
        self._running: list[_Pending] = []
        self._tokens = 0
        self._news = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def stats(self) -> LiveStats:
        with self._news:
            waiting = sum(not asked.row.ended for asked in self._waiting)
            return LiveStats(waiting, sum(not asked.row.ended for asked in self._running), self._tokens)

    def add(self, asked: _Pending) -> None:
        with self._news:
            if self._closing:
                raise FractionateError(f"{self._local.name} was closed: it takes no more requests")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"live {self._local.name}", daemon=True)
                self._thread.start()
            self._waiting.append(asked)
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        batch: RowBatch | None = None
        while self._wait():
            if batch is None:
                batch = self._open()
                continue
            if newcomers := self._admit(batch):
                self._join(batch, newcomers)
            if self._running:
                self._step(batch)
        closed = FractionateError(f"{self._local.name} was closed while it answered")
        for asked in [*self._running, *self._waiting]:
            asked.fail(closed)
        if batch is not None:
            batch.drop()

    def _wait(self) -> bool:
        """Wait until there is something to generate; return False when closing."""
        with self._news:
            self._news.wait_for(lambda: self._closing or self._waiting or self._running)
            return not self._closing

    def _open(self) -> RowBatch | None:
        try:
            return self._local.open_batch()
        except (
            Exception
        ) as error:  # all waiting requests fail with it, and the thread lives on: a later request tries again
            with self._news:
                refused = list(self._waiting)
                self._waiting.clear()
            for asked in refused:
                asked.fail(error)
            return None

    def _admit(self, batch: RowBatch) -> list[_Pending]:
        """Take from the head of the queue as many requests as there is room for.

        A short request does not overtake a long one: under load, the long one would otherwise wait for ever.
        """
        taken: list[_Pending] = []
        with self._news:
            while self._waiting and batch.may_join:
                if self._waiting[0].row.ended:
                    self._waiting.popleft()
                    continue
                together = [*self._running, *taken, self._waiting[0]]
                # Every row is padded to the longest, so that one sets the memory of all.
                tokens = len(together) * max(asked.length for asked in together)
                if len(together) > 1 and (len(together) > self._rows or tokens > self._local.batch_tokens):
                    break
                taken.append(self._waiting.popleft())
        return taken

    def _join(self, batch: RowBatch, newcomers: Sequence[_Pending]) -> None:
        started = time.perf_counter()
        try:
            batch.join([asked.row for asked in newcomers])
        except Exception as error:
            if len(newcomers) == 1:
                newcomers[0].fail(error)
                return
            for asked in newcomers:  # one by one, so that only the request that fails gets the error
                self._join(batch, [asked])
            return
        self._divide(newcomers, time.perf_counter() - started)
        with self._news:
            self._running += newcomers

    def _step(self, batch: RowBatch) -> None:
        started = time.perf_counter()
        before = sum(asked.row.reply.generated for asked in self._running)
        try:
            batch.step()
        except Exception as error:  # the batch is lost with its cache; waiting requests are served from a new one
            batch.drop()
            with self._news:
                failed, self._running = self._running, []
            for asked in failed:
                asked.fail(error)
            return
        self._divide(self._running, time.perf_counter() - started)
        for asked in self._running:
            asked.deliver()
        with self._news:
            self._tokens += sum(asked.row.reply.generated for asked in self._running) - before
            self._running = [asked for asked in self._running if not asked.row.ended]

    def _divide(self, rows: Sequence[_Pending], seconds: float) -> None:
        for asked in rows:
            asked.compute_s += seconds / len(rows)
