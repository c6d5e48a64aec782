"""A shard at work, its generator driven by hand: what it ships, and that nobody who does not take it is worked for."""

from __future__ import annotations

import asyncio
import json
import pickle
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from cluster.ray_runs import Counting
from fractionate.calls.drive import Call
from fractionate.calls.store import Store
from fractionate.cluster import shard_task
from fractionate.cluster.shard_worker import Setup, ShardOrder, Shipment, pickled, run_shard
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions
from fractionate.models import open_model
from fractionate.models.base import Model
from fractionate.types import Completion, Message, Request
from servers.threaded import in_thread


class Waiting:
    """Stands where the actor does that tells shards to stop: it does once `told` is set."""

    def __init__(self) -> None:
        self.told = False
        self.wait = self

    async def remote(self) -> bool:
        while not self.told:
            await asyncio.sleep(0.01)
        return False


@pytest.fixture
def server() -> Iterator[Counting]:
    with in_thread(Counting(delay_s=0.02)) as counting:
        yield counting


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def asking(model: Model, number: int) -> Any:
    request = Request((Message("user", f"Question: What is {number}? {number}"),), "solver", max_tokens=8)
    (reply,) = yield [Call(model, request)]
    return reply.text or reply.error


def joined(values: Sequence[str]) -> bytes:
    return json.dumps(list(values)).encode()


def shard(
    server: Counting, count: int, concurrency: int = 4, stop: Any = None, pack: Any = None, **caps: int
) -> Iterator[Shipment]:
    model = open_model(f"{server.base_url}#test", ModelOptions())
    order = ShardOrder(pickle.dumps((range(count), {})), LimitsConfig(concurrency=concurrency), BudgetConfig(**caps))
    common, _ = pickled((partial(asking, model), pack))
    return run_shard(Setup("r", None, Path()), common, order, stop or Waiting())


def rows_of(shipments: Sequence[Shipment], folder: Path) -> int:
    """Merge what was shipped into a store, as a run does, and return how many calls it has."""
    with Store(folder / "run.sqlite") as store:
        for shipment in shipments:
            store.merge(shipment.calls)
            store.merge(shipment.calls)  # once more is nothing new
        return len(store)


def test_a_shard_ships_every_call_and_every_value_in_order(server: Counting, tmp_path: Path) -> None:
    shipments = list(shard(server, 30))
    assert [value for one in shipments for value in one.values] == [f"The answer is: {n}." for n in range(30)]
    assert sum(one.ended for one in shipments) == 30
    assert rows_of(shipments, tmp_path) == 30
    end = shipments[-1].end
    assert end is not None
    assert (end.error, end.wanted, end.stopped) == (None, None, False)
    assert shipments[-1].counters.sent == 30
    assert set(server.asked.values()) == {1}
    assert not list((tmp_path / "tmp").iterdir()), "the scratch store is gone"


def test_values_are_packed_where_they_are_made(server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_task, "PACKED", 4)
    shipments = [one for one in shard(server, 10, pack=joined) if one.ended]
    assert [value for one in shipments for value in json.loads(one.values)] == [
        f"The answer is: {n}." for n in range(10)
    ]
    assert all(one.ended % 4 == 0 for one in shipments[:-1])


def test_a_shard_that_nobody_takes_from_stops_making_calls(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than one batch and the calls in flight beyond what was taken."""
    monkeypatch.setattr(shard_task, "BATCH", 20)
    shipments = shard(server, 400)
    taken = [next(shipments)]
    while not any(one.calls for one in taken):
        taken.append(next(shipments))
    stored = rows_of(taken, tmp_path)
    until = time.monotonic() + 20
    while len(server.asked) < stored + 20 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.5)  # in which it could make a hundred
    assert stored + 20 <= len(server.asked) <= stored + 20 + 4
    assert rows_of([*taken, *shipments], tmp_path) == 400
    assert set(server.asked.values()) == {1}


def test_calls_that_wait_too_long_hold_the_shard(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few they are: the run may be cut off, and its work given to another."""
    monkeypatch.setattr(shard_task, "HOLD_S", 0.3)
    server.delay_s = 0.1
    shipments = shard(server, 1_000, concurrency=2)
    next(shipments), next(shipments)
    time.sleep(1.5)
    made = len(server.asked)
    time.sleep(1.0)
    assert len(server.asked) <= made + 2
    shipments.close()


def test_a_shard_that_is_told_to_stop_ships_what_came_back(server: Counting, tmp_path: Path) -> None:
    stop = Waiting()
    shipments = []
    for one in shard(server, 1_000, stop=stop):
        shipments.append(one)
        stop.told = stop.told or len(server.asked) > 20
    end = shipments[-1].end
    assert end is not None
    assert end.stopped
    assert rows_of(shipments, tmp_path) == len(server.asked) < 1_000


def test_an_allocation_that_is_used_up_is_no_error(server: Counting, tmp_path: Path) -> None:
    """The call that did not fit is named, so that the next allocation has room for it."""
    shipments = list(shard(server, 100, tokens=1_000))
    end = shipments[-1].end
    assert end is not None
    assert end.error is None
    assert end.wanted is not None
    assert 0 < end.wanted.tokens <= 1_000
    spent = sum(hold.tokens for one in shipments for hold in one.spent.values())
    assert 0 < spent <= 1_000
    assert 0 < rows_of(shipments, tmp_path) == len(server.asked) < 100


def test_what_fails_for_good_is_the_end_with_its_line(server: Counting) -> None:
    def broken(model: Model, number: int) -> Any:
        yield [Call(model, Request((Message("user", "x 1"),), "solver"))]
        raise ValueError("no such thing")

    model = open_model(f"{server.base_url}#test", ModelOptions())
    order = ShardOrder(pickle.dumps(([0], {})), LimitsConfig(), BudgetConfig())
    common, _ = pickled((partial(broken, model), None))
    *_, last = run_shard(Setup("r", None, Path()), common, order, Waiting())
    assert last.end is not None
    assert last.end.error == ("Bug", "a coroutine failed on a worker: ValueError: no such thing")
    other = Setup("r", None, Path(), version="0.0.0")
    *_, last = run_shard(other, common, order, Waiting())
    assert last.end is not None
    assert last.end.error is not None
    assert last.end.error[0] == "UsageError"
    assert "the run 0.0.0: install the same" in last.end.error[1]


def test_a_scratch_store_is_in_a_folder_of_its_own_that_nobody_else_can_enter(server: Counting, tmp_path: Path) -> None:
    """Its name cannot be foreseen, so nothing of another user's can lie there."""
    for _ in range(2):
        shipments = shard(server, 3)
        next(shipments)
        (folder,) = (tmp_path / "tmp").iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        shipments.close()
    assert not list((tmp_path / "tmp").iterdir())


def test_rows_are_exported_from_a_place_on_and_of_one_run_alone(tmp_path: Path) -> None:
    from fractionate.calls.store import StoredCall
    from fractionate.types import Usage

    def call(key: str, run: str, paid: bool = True) -> StoredCall:
        reply = Completion("yes", "stop", Usage(1, 10, 0, 5))
        return StoredCall(key, "m", "m", run, Request((Message("user", "x"),), "solver"), reply, paid=paid)

    with Store(tmp_path / "a.sqlite") as store:
        store.put_many([call("a", "r"), call("b", "other"), call("c", "r"), call("d", "r", paid=False)])
        place, database, spent = store.export(0, "r")
        assert store.export(place, "r") == (place, b"", [])
        store.put_many([call("e", "r")])
        later = store.export(place, "r")[1]
    assert [(one.rows, one.usage.input_tokens) for one in spent] == [(2, 10)], "what is not paid is not billed"
    found = sqlite3.connect(":memory:")
    found.deserialize(database)
    assert [key for (key,) in found.execute("SELECT key FROM calls")] == ["a", "c", "d"]
    with Store(tmp_path / "b.sqlite") as other:
        other.merge(database)
        other.merge(later)
        assert sorted(one.key for one in other.calls()) == ["a", "c", "d", "e"]
