"""Ranges of programs: which of a piece of work's programs still need calls, and what they end with once all are stored.

A program is driven by hand over what the run's store holds. Where that is all it asks for, its value is there; where
something is missing, the program goes to a worker, together with what it has already, and is driven again when the
worker's replies are in the store. So values never travel, and are what they would have been without workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fractionate.calls.drive import Call, Stepper
from fractionate.calls.stages import TaskFactory
from fractionate.types import Completion

Find = Callable[[str], Completion | None]
"""Returns the completion of a store key, None where there is none."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that had all its replies: its value, and how many they were."""

    value: Any
    calls: int


@dataclass(frozen=True, slots=True)
class Halted:
    """A program that misses replies: those it has, by store key, and the calls that it misses."""

    known: dict[str, Completion]
    missing: list[tuple[str, Call]]


def drive_by_hand(start: TaskFactory, find: Find) -> Ended | Halted:
    """Run a program as far as its replies are there."""
    program = Stepper(start())
    known: dict[str, Completion] = {}
    sent: Sequence[Completion] | None = None
    calls = 0
    while True:
        asked = program.send(sent)
        if asked is None:
            return Ended(program.value, calls)
        keys = [call.model.key(call.request) for call in asked]
        replies = [find(key) or _elsewhere(call, find) for key, call in zip(keys, asked, strict=True)]
        known.update((key, reply) for key, reply in zip(keys, replies, strict=True) if reply is not None)
        missing = [(key, call) for key, call, reply in zip(keys, asked, replies, strict=True) if reply is None]
        if missing:
            program.close()
            return Halted(known, missing)
        calls += len(asked)
        sent = [reply for reply in replies if reply is not None]


def _elsewhere(call: Call, find: Find) -> Completion | None:
    """Return the reply that is stored under another of the model's addresses."""
    found = (find(key) for key in call.model.other_keys(call.request))
    return next((reply for reply in found if reply is not None), None)


@dataclass(slots=True)
class Range:
    """Programs that follow one another: all that begin them, and which go to a worker (`at`: their places in it).

    `alone`: the worker gets one of them at a time, because workers died over it.
    """

    starts: Sequence[TaskFactory]
    values: dict[int, Any]
    at: list[int] = field(default_factory=list)
    known: dict[str, Completion] = field(default_factory=dict)
    awaited: list[str] = field(default_factory=list)
    failed: dict[str, Completion] = field(default_factory=dict)
    deaths: int = 0
    alone: bool = False
    done: bool = False


def look_into(starts: Sequence[TaskFactory], find: Find, taken: set[str]) -> Range:
    """Return a range of programs, those that have ended with their values.

    A program whose first missing call is already made for another (`taken`) waits for that one and goes to no worker.
    """
    looked = Range(starts, {})
    for place, start in enumerate(starts):
        came = drive_by_hand(start, find)
        if isinstance(came, Ended):
            looked.values[place] = came
            continue
        if any(key in taken for key, _ in came.missing):
            continue
        taken.update(key for key, _ in came.missing)
        looked.awaited += [key for key, _ in came.missing]
        looked.at.append(place)
        looked.known.update(came.known)
    looked.done = not looked.at
    return looked
