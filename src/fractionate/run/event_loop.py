"""A stage's calls in an event loop of their own, which Ctrl-C and its like end wherever they come."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fractionate.calls.status import StatusLine
from fractionate.interrupts import run_interruptible
from fractionate.run.run import Run

T = TypeVar("T")


def in_loop(run: Run, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a stage's calls in an event loop of its own and close the models' connections with it.

    The first interrupt cancels the stage, which then keeps what comes back within its grace; the next one ends it at
    once. Raises KeyboardInterrupt when the loop is closed.
    """
    engine = run.engine

    async def stage() -> T:
        try:
            async with StatusLine(engine, run.progress.step):
                return await work()
        finally:
            run.progress.advance(0, 0)  # what comes next is no part of this work

    return run_interruptible(stage, run.models.close)
