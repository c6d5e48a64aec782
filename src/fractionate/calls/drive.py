"""Runs many coroutines of model calls at once.

A coroutine is a generator that yields lists of calls, is sent their completions in the same order, and returns a value:

    def two_steps():
        (completion,) = yield [Call(model, request)]
        first, second = yield [Call(model, a), Call(model, b)]
        return completion.text

Coroutines do no I/O, so a strategy reads like the paper and is tested without an event loop. `Stepper` is the only code
that advances one.

Calls to servers leave at once, one by one. Calls to models in this process are gathered until every live coroutine
waits for one (nothing else can happen), and are then planned as a whole: the composition of a batch depends on the
coroutines alone, never on timing or on what was stored before.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, TypeVar

from fractionate.calls.batches import GRACE_S
from fractionate.calls.engine import Engine
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, Call, CallCoroutine, CompositeModel, ProviderBatchModel
from fractionate.types import Completion

T = TypeVar("T")

WINDOW = 4096
"""Coroutines alive at once."""
_STEPS_A_TURN = 256
_GC_THRESHOLD = 10_000
"""Allocations between two collections of the youngest generation while coroutines run. Thousands of live calls outlast
Python's default of 700 many times over: traversing them again and again took a tenth to a fifth of a run's CPU."""


class Stepper(Generic[T]):
    """Advances one coroutine. `value` is what it returned, once `send` has returned None.

    A call of a model that is made of others (`CompositeModel`) is replaced by the calls that answer it, unless the
    caller does that itself (`whole`). Until version 0.2 a plug-in's coroutine may also yield a bare `Call`; it is then
    sent a bare completion.
    """

    def __init__(self, coroutine: CallCoroutine[T], *, whole: bool = False) -> None:
        self._coroutine = coroutine
        self._whole = whole
        self._inside: CallCoroutine[list[Completion]] | None = None
        self._yields_bare_calls = False
        self.value: T

    def send(self, completions: Sequence[Completion] | None) -> Sequence[Call] | None:
        """Send the completions of the calls returned last (None at the start); return the next calls, None at the end.

        Raises what the coroutine raises.
        """
        while True:
            if self._inside is None:
                calls = self._step(completions)
                if calls is None or self._whole or not any(isinstance(call.model, CompositeModel) for call in calls):
                    return calls
                self._inside, completions = side_by_side([_answer(call) for call in calls]), None
            try:
                return self._inside.send(completions)  # type: ignore[arg-type]  # None starts it
            except StopIteration as stop:
                self._inside, completions = None, stop.value

    def _step(self, completions: Sequence[Completion] | None) -> Sequence[Call] | None:
        sent: Any = completions[0] if self._yields_bare_calls and completions else completions
        try:
            calls = self._coroutine.send(sent)
        except StopIteration as stop:
            self.value = stop.value
            return None
        self._yields_bare_calls = isinstance(calls, Call)
        if isinstance(calls, Call):
            _warn_of_bare_calls(getattr(self._coroutine, "__qualname__", "a coroutine"))
            return [calls]
        return calls

    def close(self) -> None:
        """Close the coroutine at the step that it waits in."""
        if self._inside is not None:
            self._inside.close()
        self._coroutine.close()


def _answer(call: Call) -> CallCoroutine[Completion]:
    """Return the reply to one call, whatever its model is made of."""
    if isinstance(call.model, CompositeModel):
        return (yield from call.model.answer(call))
    (completion,) = yield [call]
    return completion


def side_by_side(coroutines: Sequence[CallCoroutine[Any]]) -> CallCoroutine[list[Any]]:
    """Run coroutines as one that yields the calls of all together, step by step; returns their values in order."""
    steppers = [Stepper(coroutine) for coroutine in coroutines]
    wanted = [stepper.send(None) for stepper in steppers]
    while any(calls is not None for calls in wanted):
        replies = iter((yield [call for calls in wanted for call in calls or ()]))
        wanted = [
            None if calls is None else stepper.send([next(replies) for _ in calls])
            for stepper, calls in zip(steppers, wanted, strict=True)
        ]
    return [stepper.value for stepper in steppers]


@cache
def _warn_of_bare_calls(name: str) -> None:
    message = f"{name} yields a bare Call, which version 0.2 will refuse: write `(completion,) = yield [call]`"
    warnings.warn(message, FutureWarning, stacklevel=3)


def run_with(coroutine: CallCoroutine[T], reply: Callable[[Call], Completion]) -> T:
    """Run one coroutine to its end without an engine, `reply` answering each call; return its value."""
    stepper = Stepper(coroutine)
    completions: list[Completion] | None = None
    while (calls := stepper.send(completions)) is not None:
        completions = [reply(call) for call in calls]
    return stepper.value


async def run_all(coroutines: Iterable[CallCoroutine[T]], engine: Engine, window: int = WINDOW) -> list[T]:
    """Run coroutines to their ends and return their values, in order."""
    return [value async for value in stream_all(coroutines, engine, window)]


async def stream_all(
    coroutines: Iterable[CallCoroutine[T]], engine: Engine, window: int = WINDOW
) -> AsyncGenerator[T, None]:
    """Run coroutines, at most `window` alive or waiting to be yielded, and yield their values in order.

    Memory depends on the window alone. When a coroutine, a model or the budget stops the run, calls in flight come back
    and are stored first, then the error is raised. An interrupt (Ctrl-C) is a cancellation of the task that iterates:
    calls and batches in flight then have `GRACE_S` seconds, and a batch's model is asked to stop at a safe point.
    """
    driver = _Driver(iter(coroutines), engine, window)
    thresholds = gc.get_threshold()
    if 0 < thresholds[0] < _GC_THRESHOLD:  # 0: the user has switched it off
        gc.set_threshold(_GC_THRESHOLD, *thresholds[1:])
    try:
        while True:
            await driver.advance()
            while driver.has_next():
                yield driver.take_next()
            if driver.finished():
                return
    except asyncio.CancelledError:
        await driver.shut_down(GRACE_S)
        raise
    except FractionateError as error:
        engine.stop(error)
        await driver.shut_down(engine.limits.timeout_s)
        raise
    except Exception:
        await driver.shut_down(GRACE_S)  # a bug in a coroutine: what is paid for is still kept
        raise
    finally:
        gc.set_threshold(*thresholds)
        await driver.shut_down(0.0)


@dataclass(slots=True, eq=False)
class _Live(Generic[T]):
    """A coroutine that has started: the replies it waits for, and how many are still to come."""

    number: int
    stepper: Stepper[T]
    replies: list[Completion | None]
    missing: int = 0


class _Driver(Generic[T]):
    """Steps coroutines, sends their calls and gathers those of models in this process."""

    def __init__(self, coroutines: Iterator[CallCoroutine[T]], engine: Engine, window: int) -> None:
        self._programs = coroutines
        self._engine = engine
        self._window = max(1, window)
        self._started = 0
        self._next = 0
        self._more = True
        self._values: dict[int, T] = {}
        self._live: dict[int, _Live[T]] = {}
        self._ready: deque[tuple[_Live[T], Any]] = deque()
        self._gathered: list[tuple[_Live[T], int, Call]] = []
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._batches: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._error: BaseException | None = None

    def has_next(self) -> bool:
        return self._next in self._values

    def take_next(self) -> T:
        value = self._values.pop(self._next)
        self._next += 1
        return value

    def finished(self) -> bool:
        return not self._more and self._next == self._started

    async def advance(self) -> None:
        """Step the coroutines that can be stepped; return once a value is there or a step was taken."""
        self._check()
        self._start_coroutines()
        steps = 0
        while self._ready and steps < _STEPS_A_TURN:
            self._step(*self._ready.popleft())
            steps += 1
        if steps:
            await asyncio.sleep(0)
            return
        if self.has_next() or self.finished():
            return
        if not self._tasks and self._batches is None and self._gathered:
            self._batches = asyncio.get_running_loop().create_task(self._run_batches())
            self._batches.add_done_callback(self._batched)
        self._woken.clear()
        if self._tasks or self._batches is not None:
            await self._woken.wait()
        self._check()

    async def shut_down(self, grace_s: float) -> None:
        """Let calls in flight come back for a while, then abandon them. Close what was not finished."""
        tasks: set[asyncio.Task[Any]] = set(self._tasks)
        for task in self._tasks:
            if not self._engine.is_sent(task):
                task.cancel()
        if self._batches is not None:
            self._batches.cancel()
            tasks.add(self._batches)
        if tasks:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(tasks, timeout=grace_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for live in self._live.values():
            live.stepper.close()
        self._live.clear()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _start_coroutines(self) -> None:
        while self._more and self._started - self._next < self._window and len(self._ready) < _STEPS_A_TURN:
            coroutine = next(self._programs, None)
            if coroutine is None:
                self._more = False
                return
            live = _Live(self._started, Stepper(coroutine), [])
            self._live[self._started] = live
            self._started += 1
            self._ready.append((live, None))

    def _step(self, live: _Live[T], value: Any) -> None:
        calls = live.stepper.send(value)
        if calls is None:
            self._values[live.number] = live.stepper.value
            del self._live[live.number]
            return
        live.replies = [None] * len(calls)
        live.missing = len(calls)
        if not calls:
            self._ready.append((live, []))
        for position, call in enumerate(calls):
            self._dispatch(live, position, call)

    def _dispatch(self, live: _Live[T], position: int, call: Call) -> None:
        if isinstance(call.model, BatchModel | ProviderBatchModel):
            self._gathered.append((live, position, call))
            return
        started = self._engine.start(call.model, call.request)
        if isinstance(started, Completion):
            self._reply(live, position, started)
            return
        self._tasks.add(started)
        started.add_done_callback(partial(self._sent, live, position))

    def _sent(self, live: _Live[T], position: int, task: asyncio.Task[Completion]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._note_error(task)
        else:
            self._reply(live, position, task.result())
        self._woken.set()

    def _reply(self, live: _Live[T], position: int, completion: Completion) -> None:
        live.replies[position] = completion
        live.missing -= 1
        if live.missing == 0:
            self._ready.append((live, live.replies))
            live.replies = []
            self._woken.set()

    async def _run_batches(self) -> None:
        """Answer all that was gathered, model by model; coroutines go on as their batches are done."""
        gathered, self._gathered = self._gathered, []
        # The order of arrival depends on timing, the coroutines' order does not.
        gathered.sort(key=lambda entry: (entry[0].number, entry[1]))
        by_model: dict[str, list[tuple[_Live[T], int, Call]]] = {}
        for entry in gathered:
            by_model.setdefault(entry[2].model.identity, []).append(entry)
        for entries in by_model.values():
            model = entries[0][2].model
            assert isinstance(model, BatchModel | ProviderBatchModel)
            requests = [call.request for _, _, call in entries]
            async for row, completion in self._engine.complete_batches(model, requests):
                live, position, _ = entries[row]
                self._reply(live, position, completion)

    def _batched(self, task: asyncio.Task[None]) -> None:
        self._batches = None
        self._note_error(task)

    def _note_error(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
        self._woken.set()
