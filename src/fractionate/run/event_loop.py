"""A stage's calls in an event loop of their own, which Ctrl-C ends wherever it comes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, TypeVar

from fractionate.calls.status import StatusLine
from fractionate.run.run import Run

T = TypeVar("T")


def in_loop(run: Run, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a stage's calls in an event loop of its own and close the models' connections with it.

    The first Ctrl-C cancels the stage, which then keeps what comes back within its grace; the next one ends it at once.
    Raises KeyboardInterrupt when the loop is closed.
    """

    async def stage() -> T:
        async with StatusLine(run.engine, run.progress.step):
            return await work()

    async def end() -> None:
        # Whatever a second Ctrl-C has left of the stage ends before its models.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await run.models.close()

    with _Interrupts() as interrupts, asyncio.Runner() as runner:
        try:
            return runner.run(interrupts.cancel(stage()))
        finally:
            runner.run(end())


class _Interrupts:
    """Ctrl-C as the end of a task and never as an exception in the middle of asyncio's own code.

    `asyncio.Runner` sees to that only while a task runs, and not always then: CPython complains on stderr of a loop
    that is hit while it is being made, of coroutines that were to be started next, and of futures cancelled while they
    were being set. Only the main thread is told of signals, and a handler that somebody else has put there stays:
    elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._came = 0
        self._task: asyncio.Task[Any] | None = None
        self._mine = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self) -> _Interrupts:
        if self._mine:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._came and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise KeyboardInterrupt from None

    async def cancel(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in the current task, which Ctrl-C cancels from now on, and now if it has come already."""
        self._task = asyncio.current_task()
        try:
            if self._came:
                work.close()
                raise asyncio.CancelledError
            return await work
        finally:
            self._task = None

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        self._came += 1
        task = self._task
        if task is None:
            return
        if self._came > 1:
            raise KeyboardInterrupt
        # Between two callbacks, not in the middle of one: the line that was hit may be about to wake the task.
        task.get_loop().call_soon_threadsafe(task.cancel)
