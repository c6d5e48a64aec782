"""How far a coroutine gets with the calls that the run's store has, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fractionate.calls.budget import Reservation
from fractionate.calls.drive import Stepper
from fractionate.models.base import Call, CallCoroutine, Model, SingleModel
from fractionate.tools import parts_of
from fractionate.types import Completion

Find = Callable[[str], Completion | None]
"""Returns the completion of a store key, None where there is none."""


class Ended(NamedTuple):
    """A coroutine that had all its replies: its value, and how many they were."""

    value: Any
    calls: int


class Halted(NamedTuple):
    """A coroutine that lacks replies: those it has, by store key, the keys of those that it lacks, the dearest call."""

    known: dict[str, Completion]
    missing: list[str]
    dearest: Reservation | None


def drive_by_hand(
    coroutine: CallCoroutine[Any], find: Find, dearest: Callable[[Model, Any], Reservation] | None = None
) -> Ended | Halted:
    """Run a coroutine as far as its replies are there; `dearest` prices the calls that it halts at."""
    stepper = Stepper(coroutine)
    known: dict[str, Completion] = {}
    completions: list[Completion] | None = None
    count = 0
    while (calls := stepper.send(completions)) is not None:
        keys = [call.model.key(call.request) for call in calls]
        replies = [find(key) or _elsewhere(call, find) for key, call in zip(keys, calls, strict=True)]
        known.update((key, reply) for key, reply in zip(keys, replies, strict=True) if reply is not None)
        missing = [key for key, reply in zip(keys, replies, strict=True) if reply is None]
        if missing:
            stepper.close()
            paid = [dearest(call.model, call.request) for call in calls if call.model.paid] if dearest else []
            return Halted(known, missing, max(paid, key=lambda one: (one.usd, one.tokens), default=None))
        count += len(calls)
        completions = [reply for reply in replies if reply is not None]
    return Ended(stepper.value, count)


def _elsewhere(call: Call, find: Find) -> Completion | None:
    """Return the reply that is stored under another of the model's addresses."""
    found = (find(key) for key in call.model.other_keys(call.request))
    return next((reply for reply in found if reply is not None), None)


def can_leave(models: Iterable[Model]) -> bool:
    """Return whether there is something to spread: calls to servers, or others that are made one by one."""
    asked = [part for model in models for part in parts_of(model)]
    return all(isinstance(model, SingleModel) for model in asked) and not all(model.replays for model in asked)
