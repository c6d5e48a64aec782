"""A stage of a run as work to be done: what the engine carries out and the forecaster walks through.

A stage is a generator one level above programs: it yields pieces of `Work` (programs that may run side by side), is
sent the values they returned, and returns what it made of them. Because both readers below take the very same stage,
a forecast cannot count other calls than a run makes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from fractionate.calls.drive import Call, Program, stream_all
from fractionate.calls.engine import Engine
from fractionate.types import Completion

T = TypeVar("T")


class Gathering(Protocol):
    """Takes the values of programs as they come, in the programs' order: a list, or what needs less memory."""

    def append(self, value: Any, /) -> object:
        """Take one value."""


Start: TypeAlias = Callable[[], Program[Any]]
"""Begins a program."""


@dataclass(frozen=True, slots=True)
class Work:
    """Programs that may run side by side, what they do, in words for a person, and what gathers their values.

    Each of `starts` begins one program: a function of a module, or a `partial` of one, so that it can be begun in
    another process too.
    """

    label: str
    starts: Iterable[Start]
    gather: Callable[[], Gathering] = list


Runner: TypeAlias = Callable[[Iterable[Start], Engine], AsyncGenerator[Any, None]]
"""Runs programs on an engine's books, wherever; yields their values in order."""
Stage: TypeAlias = Generator[Work, Any, T]
"""Yields Work and is sent what gathered the programs' values."""


def run_here(starts: Iterable[Start], engine: Engine) -> AsyncGenerator[Any, None]:
    """Run programs in this process; yields their values in order."""
    return stream_all((start() for start in starts), engine)


async def carry_out(
    stage: Stage[T], engine: Engine, say: Callable[[str], None] = lambda text: None, run: Runner = run_here
) -> T:
    """Carry out a stage's work with `run` and return what the stage returns. `say` is told each piece of work."""
    values: Gathering | None = None
    while True:
        try:
            work = stage.send(values)
        except StopIteration as stop:
            value: T = stop.value
            return value
        say(work.label)
        values = work.gather()
        async for value in run(work.starts, engine):
            values.append(value)


def walk(stage: Stage[T], reply: Callable[[Call], Completion]) -> tuple[T, list[Call]]:
    """Walk through a stage without an engine, `reply` standing in for the models.

    Returns what the stage returns, and every call it would have made.
    """
    made: list[Call] = []
    values: Gathering | None = None
    while True:
        try:
            work = stage.send(values)
        except StopIteration as stop:
            return stop.value, made
        values = work.gather()
        for start in work.starts:
            values.append(walk_program(start(), reply, made))


def walk_program(program: Program[T], reply: Callable[[Call], Completion], made: list[Call]) -> T:
    """Drive one program by hand. Returns its value; the calls it makes are added to `made`."""
    sent: Any = None
    while True:
        try:
            wanted = program.send(sent)
        except StopIteration as stop:
            value: T = stop.value
            return value
        calls = wanted if isinstance(wanted, list) else [wanted]
        made += calls
        replies = [reply(call) for call in calls]
        sent = replies if isinstance(wanted, list) else replies[0]
