"""A stage of a run as work to be done: the engine carries it out, the forecaster walks through it.

A stage is a generator one level above coroutines of calls: it yields pieces of `Work` (coroutines that may run side by
side), is sent the values they returned, and returns a value made of them. `carry_out` and `walk` take the very same
stage, so a forecast counts the calls that a run makes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from fractionate.calls.drive import run_with, stream_all
from fractionate.calls.engine import Engine
from fractionate.models.base import Call, CallCoroutine
from fractionate.types import Completion

T = TypeVar("T")


class Gathering(Protocol):
    """Takes the values of coroutines as they come, in the coroutines' order: a list, or what needs less memory."""

    def append(self, value: Any, /) -> object:
        """Take one value."""


TaskFactory: TypeAlias = Callable[[], CallCoroutine[Any]]
"""Makes one coroutine. A function of a module or a `partial` of one can be sent to another process."""


@dataclass(frozen=True, slots=True)
class Work:
    """Coroutines that may run side by side: a label for a person, their factories, and what gathers their values.

    `count` is how many they are, 0 where that is not known.
    """

    label: str
    factories: Iterable[TaskFactory]
    gather: Callable[[], Gathering] = list
    count: int = 0


Runner: TypeAlias = Callable[[Iterable[TaskFactory], Engine], AsyncGenerator[Any, None]]
"""Runs coroutines through an engine, here or elsewhere; yields their values in order."""
Stage: TypeAlias = Generator[Work, Any, T]
"""Yields Work and is sent the gathered values of its coroutines."""


def run_here(factories: Iterable[TaskFactory], engine: Engine) -> AsyncGenerator[Any, None]:
    """Run coroutines in this process; yields their values in order."""
    return stream_all((factory() for factory in factories), engine)


async def carry_out(
    stage: Stage[T],
    engine: Engine,
    say: Callable[[str], None] = lambda text: None,
    run: Runner = run_here,
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> T:
    """Carry out a stage's work with `run` and return what the stage returns.

    `say` is called with the label of each piece of work, `advance` with how many of its coroutines are done, of how
    many, at the start and after each.
    """
    values: Gathering | None = None
    while True:
        try:
            work = stage.send(values)
        except StopIteration as stop:
            value: T = stop.value
            return value
        say(work.label)
        values = work.gather()
        done = 0
        advance(done, work.count)
        async for value in run(work.factories, engine):
            values.append(value)
            done += 1
            advance(done, work.count)


def walk(stage: Stage[T], reply: Callable[[Call], Completion]) -> tuple[T, list[Call]]:
    """Walk through a stage without an engine, `reply` standing in for the models.

    Returns what the stage returns, and every call it would have made.
    """
    made: list[Call] = []

    def noted(call: Call) -> Completion:
        made.append(call)
        return reply(call)

    values: Gathering | None = None
    while True:
        try:
            work = stage.send(values)
        except StopIteration as stop:
            return stop.value, made
        values = work.gather()
        for factory in work.factories:
            values.append(run_with(factory(), noted))
