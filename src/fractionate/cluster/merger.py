"""The merger: an actor on the run's own machine that writes what shards ship into the run's files.

Shards ship to it directly and wait for its answer, so that each has one batch on its way at most. The run's process
asks it for news twice a second: counts, what was spent, why shards have ended. No row passes through that process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fractionate.calls.budget import after_end, after_spending
from fractionate.calls.status import Counters
from fractionate.calls.store import Hold, Store
from fractionate.cluster.remote_copy import RemoteCopy
from fractionate.cluster.shard_task import End, Setup, ShardOrder, Shipment, run_shard
from fractionate.errors import FractionateError
from fractionate.types import ROLES, Role


class PackedValues(Protocol):
    """Takes packed values in the merger's process."""

    def __call__(self, packed: bytes) -> None:
        """Write them where they belong."""

    def close(self) -> None:
        """Let the file go."""


@dataclass(frozen=True)
class Target:
    """Where the merger writes: the run's store, `cluster.share` if there is one, what opens a way in for values."""

    store: Path
    run: str
    share: str = ""
    open_values: Callable[[], PackedValues] | None = None


class ShardNews(NamedTuple):
    """What one shard has done since the last news.

    `ended` counts coroutines whose values are merged, or lie in `values` where the work's values are not packed.
    `spent` has calls that were merged, `left` what the store still has of the allocation.
    """

    ended: int
    values: Sequence[bytes]
    spent: Mapping[Role, Hold]
    left: Mapping[Role, Hold]
    end: End | None


class News(NamedTuple):
    """What has been merged since the last news. `counters` and `in_flight` are totals of all shards."""

    shards: Mapping[str, ShardNews]
    counters: Counters
    in_flight: int
    said: Sequence[str]
    error: FractionateError | None


@dataclass
class _Shard:
    """A shard as the merger knows it: `news` about it, and what it said of itself last."""

    left: dict[Role, Hold]
    may_spend: bool
    counters: Counters = field(default_factory=Counters)
    in_flight: int = 0
    is_open: bool = True
    ended: int = 0
    values: list[bytes] = field(default_factory=list)
    spent: dict[Role, Hold] = field(default_factory=dict)
    end: End | None = None


class Merger:
    """The actor. Its methods never wait, so that each is done before the next begins."""

    def __init__(self, target: Target) -> None:
        self._run = target.run
        self._store = Store(target.store)
        self._remote_copy = RemoteCopy(target.share, target.run) if target.share else None
        self._values = target.open_values() if target.open_values is not None else None
        self._shards: dict[str, _Shard] = {}
        self._changed: set[str] = set()
        self._counters = Counters()
        self._said: list[str] = []
        self._patient: bool | None = None
        self._error: FractionateError | None = None
        self._began_s = time.process_time()

    async def begin(self, holder: str, allocated: Mapping[Role, Hold]) -> None:
        """Expect a shard, whose allocation the store has under this holder."""
        self._shards[holder] = _Shard(dict(allocated), bool(allocated))

    async def merge(self, holder: str, shipment: Shipment) -> bool | None:
        """Commit a shipment. Returns whether the shard is to stop: None for no, else whether it may take its time.

        Calls that come from a shard which was given up are kept: they are paid for. Its values are not, because
        another shard makes them.
        """
        shard = self._shards[holder]
        try:
            self._commit(holder, shard, shipment)
            if shipment.values and shard.is_open:
                if self._values is None:
                    shard.values.append(shipment.values)
                else:
                    self._values(shipment.values)
        except FractionateError as error:
            self._error = self._error or error
            return False
        if not shard.is_open:
            return False
        self._counters.add(shipment.counters, shard.counters)
        self._said += shipment.said
        shard.counters, shard.in_flight, shard.end = shipment.counters, shipment.in_flight, shipment.end
        shard.ended += shipment.ended
        self._changed.add(holder)
        return self._patient

    def _commit(self, holder: str, shard: _Shard, shipment: Shipment) -> None:
        """Commit calls and, in the same transaction, what is left of the allocation that paid for them."""
        holds = None
        if shard.may_spend:
            shard.left = after_spending(shard.left, shipment.spent)
            if shipment.end is not None:
                shard.left = after_end(shard.left, shipment.end.lost)
            for role, (usd, tokens) in shipment.spent.items():
                before = shard.spent.get(role, Hold(0.0, 0))
                shard.spent[role] = Hold(before.usd + usd, before.tokens + tokens)
            holds = self._run, {holder: {role: shard.left[role] for role in ROLES}}
        if shipment.calls or holds is not None:
            self._store.check_there()
            self._store.merge(shipment.calls, holds)
        if self._remote_copy is not None and shipment.calls:
            self._remote_copy.keep(shipment.calls)

    async def put_values(self, packed: bytes) -> None:
        """Take values that were made in the run's own process. Raises FractionateError where they cannot be written."""
        assert self._values is not None, "values of this work are not packed"
        self._values(packed)

    async def news(self, given_up: Sequence[str] = ()) -> News:
        """Return what has been merged since the last news; from shards that are `given_up` no values are taken on."""
        for holder in given_up:
            self._shards[holder].is_open = False
            self._shards[holder].in_flight = 0
        shards = {}
        for holder in self._changed.union(given_up):
            shard = self._shards[holder]
            shards[holder] = ShardNews(shard.ended, shard.values, shard.spent, shard.left, shard.end)
            shard.ended, shard.values, shard.spent = 0, [], {}
        self._changed.clear()
        said, self._said = self._said, []
        in_flight = sum(shard.in_flight for shard in self._shards.values())
        return News(shards, self._counters, in_flight, said, self._error)

    async def stop(self, patient: bool) -> None:
        """Have all shards stop at their next shipment; `patient`: calls in flight are waited for."""
        self._patient = patient

    async def close(self) -> tuple[FractionateError | None, float]:
        """Finish the remote copy and let the files go.

        Returns what went wrong, and the seconds of processor time that merging has taken.
        """
        error = None
        try:
            if self._remote_copy is not None:
                self._remote_copy.flush()
        except FractionateError as failed:
            error = failed
        self._store.close()
        if self._values is not None:
            self._values.close()
        return error, time.process_time() - self._began_s


def work_through(setup: Setup, common: bytes, order: ShardOrder, merger: Any) -> None:
    """Work through a shard and ship what it has done to the merger; the body of a Ray task.

    Where the merger cannot be reached any more, the run is lost, or has given this machine up: then it just ends.
    """
    import ray

    shipments = run_shard(setup, common, order)
    with suppress(StopIteration, ray.exceptions.RayActorError):
        shipment = next(shipments)
        while True:
            shipment = shipments.send(ray.get(merger.merge.remote(order.holder, shipment)))
    shipments.close()
