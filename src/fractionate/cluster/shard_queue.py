"""The shards of a piece of work: cut from its items, without those whose calls the run's store has already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from fractionate.calls.budget import Reservation
from fractionate.calls.drive import Stepper
from fractionate.calls.engine import Engine
from fractionate.models.base import Call, CallCoroutine, Model, SingleModel
from fractionate.strategies.judge import FunctionModel
from fractionate.tools import parts_of
from fractionate.types import Completion

LARGEST = 1024
"""Items of a shard at most."""


@dataclass(eq=False)
class Shard:
    """The items of one shard by their positions in the work, and the completions that the run has for them.

    `is_fresh`: no worker has had it. `deaths` are those of workers over its only item. `wanted` is a call that did not
    fit into its last allocation.
    """

    items: Mapping[int, Any]
    is_fresh: bool = True
    known: dict[str, Completion] = field(default_factory=dict)
    deaths: int = 0
    wanted: Reservation | None = None


class ShardQueue:
    """Cuts shards for `slots` workers and looks their calls up in the run's store.

    `ready` holds shards to submit, `postponed` items that wait for a call of another item. `on_value` is called with
    the position and value of an item whose calls are all in the store.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        make: Callable[[Any], CallCoroutine[Any]],
        is_new: Callable[[Any], bool],
        slots: int,
        least: int,
        on_value: Callable[[int, Any], None],
    ) -> None:
        """`make` and `is_new` are those of `Shards.run`; a shard has `least` items, if there are as many."""
        self.ready: deque[Shard] = deque()
        self.postponed: dict[int, Any] = {}
        self._engine = engine
        self._more = enumerate(items)
        self._make = make
        self._is_new = is_new
        self._slots = slots
        self._least = max(8, least)
        self._on_value = on_value
        self._ahead: deque[tuple[int, Any]] = deque()
        self._asked: set[str] = set()

    def fill(self) -> bool:
        """Cut one shard more, a large one, or a small one near the end. Returns False where no items are left."""
        self._ahead.extend(islice(self._more, LARGEST * 2 * self._slots - len(self._ahead)))
        size = min(LARGEST, max(self._least, len(self._ahead) // (2 * self._slots)), len(self._ahead))
        if size:
            self.add(Shard(dict(self._ahead.popleft() for _ in range(size))))
        return size > 0

    def add(self, shard: Shard) -> None:
        """Make a shard ready with the items that lack calls in the run's store, and the completions they have."""
        left: dict[int, Any] = {}
        for place, item in shard.items.items():
            if shard.is_fresh and self._is_new(item):
                left[place] = item
                continue
            came = drive_by_hand(self._make(item), self._engine.store.get)
            if isinstance(came, Ended):
                self._on_value(place, came.value)
                self._engine.counters.served += came.calls
            elif shard.is_fresh and any(key in self._asked for key in came.missing):
                self.postponed[place] = item
            else:
                self._asked.update(came.missing)
                shard.known.update(came.known)
                left[place] = item
        shard.items = left
        if left:
            self.ready.append(shard)

    def first_call(self, shard: Shard) -> Reservation | None:
        """Return the dearest outcome of the dearest call that a shard's first coroutine begins with."""
        item = next(iter(shard.items.values()))
        came = drive_by_hand(self._make(item), lambda key: None, self._engine.budget.dearest)
        return came.dearest if isinstance(came, Halted) else None


def can_leave(models: Iterable[Model]) -> bool:
    """Return whether there is something to spread: calls to servers, or others that are made one by one.

    A user's function stays here: its file may not be on the other machine.
    """
    asked = [part for model in models for part in parts_of(model)]
    if any(isinstance(model, FunctionModel) or not isinstance(model, SingleModel) for model in asked):
        return False
    return not all(model.replays for model in asked)


# ---------------------------------------------------------------- calls in the store

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
