"""Ctrl-C, a polite kill and a closed terminal end a command in one way: what was sent is waited for, then it stops.

A run is ended by SIGINT (Ctrl-C), SIGTERM (`kill`, a container that is stopped, a batch system's limit) and SIGHUP (a
terminal that is closed); Windows has SIGINT, SIGTERM and SIGBREAK (Ctrl-Break). Outside an event loop each of them
raises KeyboardInterrupt. In one, the first cancels the work, which then keeps what comes back within its grace, and the
second ends it at once. A signal that is ignored (`nohup`) or handled by somebody else is left alone.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""The signals that end a command, as far as this system has them."""


@contextmanager
def raised() -> Iterator[None]:
    """Let every ending signal raise KeyboardInterrupt in the main thread, as Ctrl-C does; nothing in other threads."""
    with _handled(signal.default_int_handler):
        yield


def run_interruptible(work: Callable[[], Coroutine[Any, Any, T]], end: Callable[[], Coroutine[Any, Any, None]]) -> T:
    """Run `work` and then `end` in an event loop of their own, which ending signals cancel.

    `end` runs whatever became of the work; other tasks that are left have been cancelled by then. Works inside a
    running event loop too (a notebook), from a thread of its own. Raises KeyboardInterrupt once the loop is closed.
    """
    import asyncio

    interrupt = _Interrupt()

    def run() -> T:
        with asyncio.Runner() as runner:
            try:
                return runner.run(interrupt.cancelling(work()))
            finally:
                runner.run(_end_all(end))

    try:
        with _handled(interrupt.note):
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                result = run()
            else:
                interrupt.in_thread = True
                result = _in_thread(run)
    except asyncio.CancelledError:
        if interrupt.came:
            raise KeyboardInterrupt from None
        raise
    if interrupt.came:
        raise KeyboardInterrupt
    return result


class _Interrupt:
    """An ending signal as the end of a task and never as an exception in the middle of asyncio's own code.

    `asyncio.Runner` sees to that only for SIGINT and while a task runs, and not always then: CPython complains on
    stderr of a loop that is hit while it is being made, of coroutines that were to be started next, and of futures
    cancelled while they were being set.
    """

    def __init__(self) -> None:
        self.came = 0
        self.in_thread = False
        """Whether the loop runs in another thread than the one that is told of signals."""
        self._task: asyncio.Task[Any] | None = None

    async def cancelling(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in the current task, which a signal cancels from now on, and now if one has come already."""
        import asyncio

        self._task = asyncio.current_task()
        try:
            if self.came:
                work.close()
                raise asyncio.CancelledError
            return await work
        finally:
            self._task = None

    def note(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.came += 1
        task = self._task
        if task is None:
            return
        if self.came > 1 and not self.in_thread:
            raise KeyboardInterrupt
        # Between two callbacks, not in the middle of one: the line that was hit may be about to wake the task.
        task.get_loop().call_soon_threadsafe(task.cancel)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle ending signals in the main thread, those that end a process as they are set now; then put them back."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDING}
    ours = [number for number, now in before.items() if now in (signal.SIG_DFL, signal.default_int_handler)]
    try:
        for number in ours:
            signal.signal(number, handler)
        yield
    finally:
        for number in reversed(ours):  # Ctrl-C last: until then it is counted, not raised
            signal.signal(number, before[number])


async def _end_all(end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Cancel whatever a second signal has left of the work, then await `end`."""
    import asyncio

    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await end()


def _in_thread(run: Callable[[], T]) -> T:
    """Run something in a thread and wait for it, so that signals reach this one meanwhile."""
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="fractionate")
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if errors:
        raise errors[0]
    return results[0]
