"""What a piece of work has still to do: items, cut into shards, and the values that wait for those before them.

Items whose calls are stored already never become part of a shard: their values are made here.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from fractionate.calls.budget import Reservation
from fractionate.calls.drive import run_with, stream_all
from fractionate.calls.engine import Engine
from fractionate.cluster.lookup import Ended, drive_by_hand
from fractionate.cluster.merger import ShardNews
from fractionate.cluster.shard_task import End, Make
from fractionate.types import Completion, Usage

LARGEST = 2048
"""Coroutines of a shard at most."""
WAITING = 4096
"""Coroutines beyond the first that has no value yet, at least: values wait in memory for those before them."""
TRIES = 3
"""Workers that may die over one question alone before it counts as failed."""


@dataclass(eq=False)
class Shard:
    """What coroutines are made of, by the places of their values in the work, and the completions there are for them.

    `is_fresh`: no worker has had it. `deaths` are those of workers over its only question. `wanted` is a call that its
    last allocation had no room for. `ended` counts the items, from the first, whose values are there.
    """

    items: dict[int, Any]
    is_fresh: bool = True
    known: dict[str, Completion] = field(default_factory=dict)
    deaths: int = 0
    wanted: Reservation | None = None
    ended: int = 0
    end: End | None = None
    heard_at: float | None = None
    is_silent: bool = False
    waiting: asyncio.Future[Any] | None = None

    def drop_ended(self) -> None:
        """Keep the items that have no value."""
        self.items = dict(islice(self.items.items(), self.ended, None))
        self.ended, self.heard_at, self.is_silent = 0, None, False


class ShardQueue:
    """The items of a piece of work; `make` makes the coroutine of one, `slots` shards run at once.

    `is_new` says of an item that neither the store nor another item has a call of its coroutine. With `is_packed` the
    values of shards are merged elsewhere, in any order: only those that are made here are kept.
    """

    def __init__(
        self,
        engine: Engine,
        items: Iterable[Any],
        make: Make,
        is_new: Callable[[Any], bool],
        slots: int,
        *,
        is_packed: bool,
    ) -> None:
        self.make = make
        self.ready: list[Shard] = []
        self.values: dict[int, Any] = {}
        """Values that are there and have not been taken."""
        self.aside: dict[int, Any] = {}
        """Items that share a call with one in a shard, and wait until it is made."""
        self._engine = engine
        self._more = enumerate(items)
        self._is_new = is_new
        self._slots = slots
        self._is_packed = is_packed
        self._ahead: list[tuple[int, Any]] = []
        self._cut_off = self._done = 0
        self._exhausted = False
        self._asked: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether all values have been taken, or merged."""
        return self._exhausted and not self._ahead and self._done == self._cut_off

    def cut(self, shards: int, least: int) -> None:
        """Have so many shards ready, if there is enough for them: large ones first, small ones near the end."""
        while len(self.ready) < shards:
            wanted = LARGEST * 2 * self._slots - len(self._ahead)
            if wanted > 0 and not self._exhausted:
                self._ahead += islice(self._more, wanted)
                self._exhausted = len(self._ahead) < LARGEST * 2 * self._slots
            room = max(WAITING, 4 * LARGEST * self._slots) - (self._cut_off - self._done)
            size = min(LARGEST, max(least, len(self._ahead) // (2 * self._slots)), room, len(self._ahead))
            if size <= 0:
                return
            taken = dict(self._ahead[:size])
            del self._ahead[:size]
            self._cut_off += size
            self.add(Shard(taken))

    def add(self, shard: Shard) -> None:
        """Have a shard run that has only what the run's store cannot answer, with the completions that it has."""
        store = self._engine.store
        left: dict[int, Any] = {}
        for place, item in shard.items.items():
            if shard.is_fresh and self._is_new(item):
                left[place] = item
                continue
            came = drive_by_hand(self.make(item), store.get)
            if isinstance(came, Ended):
                self.values[place] = came.value
                self._engine.counters.served += came.calls
            elif shard.is_fresh and any(key in self._asked for key in came.missing):
                self.aside[place] = item
            else:
                self._asked.update(came.missing)
                shard.known.update(came.known)
                left[place] = item
        shard.items = left
        if left:
            self.ready.append(shard)

    def add_again(self, shard: Shard) -> None:
        """Have a shard run again, whatever others ask."""
        shard.is_fresh = False
        self.add(shard)

    def add_halves(self, shard: Shard) -> None:
        """Have what a dead worker left run again, in halves: one question may be what kills workers."""
        places = list(shard.items)
        if len(places) > 1:
            middle = len(places) // 2
            for half in (places[:middle], places[middle:]):
                self.add_again(Shard({place: shard.items[place] for place in half}))
            return
        shard.deaths += 1
        if shard.deaths < TRIES:
            self.add_again(shard)
            return
        error = f"{shard.deaths} workers died while they worked on this question"
        failed = Completion("", "error", Usage(calls=1), error=error)
        self.values[places[0]] = run_with(self.make(shard.items[places[0]]), lambda _: failed)

    def receive(self, shard: Shard, news: ShardNews) -> None:
        """Take the values that a shard has made."""
        if self._is_packed:
            self._done += news.ended
        else:
            places = islice(shard.items, shard.ended, shard.ended + news.ended)
            self.values.update(zip(places, chain.from_iterable(map(pickle.loads, news.values)), strict=True))
        shard.ended += news.ended

    def has_next(self) -> bool:
        """Return whether the next value in order is there, or can be made here."""
        return self._done in self.values or self._done in self.aside

    async def take_next(self) -> Any:
        """Return the next value in order."""
        value = await self._take(self._done)
        self._done += 1
        return value

    async def take_any(self, most: int, *, aside: bool) -> list[Any]:
        """Return values that were made here, and with `aside` those of items that had to wait."""
        places = list(islice(chain(self.values, self.aside if aside else ()), most))
        values = [await self._take(place) for place in places]
        self._done += len(places)
        return values

    async def _take(self, place: int) -> Any:
        if place in self.values:
            return self.values.pop(place)
        # It waited for a call that another coroutine made: now that one is stored, or failed.
        coroutine = self.make(self.aside.pop(place))
        (value,) = [value async for value in stream_all([coroutine], self._engine)]
        return value
