"""A worker without Ray: what it ships and when it makes no more calls; and the collector that commits shipments."""

from __future__ import annotations

import asyncio
import json
import pickle
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from cluster.ray_runs import Counting
from fractionate.calls.drive import Call
from fractionate.calls.store import Amount, Store
from fractionate.cluster import shard_worker
from fractionate.cluster.sent import pickled
from fractionate.cluster.shard_worker import Collector, End, Setup, ShardOrder, ShardWorker, Shipment
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions
from fractionate.models import open_model
from fractionate.models.base import Model
from fractionate.types import Completion, Message, Request
from servers.threaded import in_thread


class Taking:
    """Stands where the collector's handle does: it takes shipments as the actor would, or lets them wait."""

    def __init__(self) -> None:
        self.shipments: list[Shipment] = []
        self.open = asyncio.Event()
        self.open.set()
        self.ship = self

    async def remote(self, holder: str, shipment: Shipment) -> None:
        await self.open.wait()
        self.shipments.append(shipment)


@pytest.fixture
def server() -> Iterator[Counting]:
    with in_thread(Counting(delay_s=0.02)) as counting:
        yield counting


def asking(model: Model, number: int) -> Any:
    request = Request((Message("user", f"Question: What is {number}? {number}"),), "solver", max_tokens=8)
    (reply,) = yield [Call(model, request)]
    return reply.text or reply.error


def joined(values: Sequence[str]) -> bytes:
    return json.dumps(list(values)).encode()


def worker_of(
    server: Counting, taking: Taking, concurrency: int = 4, pack: Any = None, make: Any = asking
) -> ShardWorker:
    model = open_model(f"{server.base_url}#test", ModelOptions())
    common, _ = pickled((partial(make, model), pack))
    return ShardWorker(Setup("r", None, Path()), common, LimitsConfig(concurrency=4), taking)


def order(count: int, **caps: int) -> ShardOrder:
    return ShardOrder("shard:a", pickle.dumps((range(count), {})), BudgetConfig(**caps))


def answer(server: Counting, count: int, pack: Any = None, **caps: int) -> tuple[list[Shipment], End]:
    taking = Taking()
    end = asyncio.run(worker_of(server, taking, pack=pack).run(order(count, **caps)))
    return taking.shipments, end


def rows_of(shipments: Sequence[Shipment], folder: Path) -> int:
    """Merge what was shipped into a store, as a run does, and return how many calls it has."""
    with Store(folder / "run.sqlite") as store:
        for shipment in shipments:
            store.merge(shipment.calls)
            store.merge(shipment.calls)  # once more is nothing new
        return len(store)


def test_a_shard_ships_every_call_and_every_value_in_order(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it leaves nothing on the disk of its machine."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "tmp")
    shipments, end = answer(server, 30)
    assert [value for one in shipments for value in one.values] == [f"The answer is: {n}." for n in range(30)]
    assert rows_of(shipments, tmp_path) == 30
    assert (end.error, end.wanted, end.stopped) == (None, None, False)
    assert (shipments[-1].status.ended, shipments[-1].status.counters.sent) == (30, 30)
    assert set(server.asked.values()) == {1}
    assert not list((tmp_path / "tmp").iterdir())


def test_values_are_packed_where_they_are_made(server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_worker, "PACKED", 4)
    shipments = [one for one in answer(server, 10, joined)[0] if one.values]
    assert [value for one in shipments for value in json.loads(one.values)] == [
        f"The answer is: {n}." for n in range(10)
    ]
    assert all(one.status.ended % 4 == 0 for one in shipments[:-1])


async def settled(server: Counting) -> int:
    """Return how many calls the server has had once it gets no more."""
    before = -1
    while before != len(server.asked):
        before = len(server.asked)
        await asyncio.sleep(0.5)  # in which it could get a hundred
    return before


@pytest.mark.parametrize(("batch", "hold_s"), [(20, 60.0), (10_000, 0.1)])
def test_a_shard_that_nobody_takes_from_stops_making_calls(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, hold_s: float
) -> None:
    """Once a batch has gathered beside the shipment on its way, or once that waits too long, however small it is."""
    monkeypatch.setattr(shard_worker, "BATCH", batch)
    monkeypatch.setattr(shard_worker, "BATCHES", batch)
    monkeypatch.setattr(shard_worker, "HOLD_S", hold_s)

    async def work() -> tuple[Taking, End]:
        taking = Taking()
        running = asyncio.ensure_future(worker_of(server, taking).run(order(300)))
        while not any(one.calls for one in taking.shipments):
            await asyncio.sleep(0.01)
        taking.open.clear()
        made = await settled(server)
        assert made < 300
        if batch == 20:
            taken = rows_of(taking.shipments, tmp_path)
            assert made <= taken + 2 * 20 + 2 * 4
        taking.open.set()
        return taking, await running

    taking, end = asyncio.run(work())
    assert not end.stopped
    assert rows_of(taking.shipments, tmp_path) == 300
    assert set(server.asked.values()) == {1}


def test_a_shard_that_is_told_to_stop_ships_what_came_back(server: Counting, tmp_path: Path) -> None:
    async def work() -> tuple[Taking, End]:
        worker = worker_of(server, taking := Taking())
        running = asyncio.ensure_future(worker.run(order(1_000)))
        while len(server.asked) <= 20:
            await asyncio.sleep(0.01)
        await worker.stop(patient=False)
        return taking, await running

    taking, end = asyncio.run(work())
    assert end.stopped
    assert rows_of(taking.shipments, tmp_path) == len(server.asked) < 1_000


def test_an_allocation_that_is_used_up_is_no_error(server: Counting, tmp_path: Path) -> None:
    """The call that did not fit is named, so that the next allocation has room for it."""
    shipments, end = answer(server, 100, tokens=1_000)
    assert end.error is None
    assert end.wanted is not None
    assert 0 < end.wanted.tokens <= 1_000
    spent = sum(hold.tokens for hold in shipments[-1].status.spent.values())
    assert 0 < spent <= 1_000
    assert 0 < rows_of(shipments, tmp_path) == len(server.asked) < 100


def test_what_fails_for_good_is_the_end_with_its_line(server: Counting) -> None:
    def broken(model: Model, number: int) -> Any:
        yield [Call(model, Request((Message("user", "x 1"),), "solver"))]
        raise ValueError("no such thing")

    end = asyncio.run(worker_of(server, Taking(), make=broken).run(order(1)))
    assert end.error == ("Bug", "a coroutine failed on a worker: ValueError: no such thing")
    other = worker_of(server, Taking())
    other.setup = Setup("r", None, Path(), version="0.0.0")
    end = asyncio.run(other.run(order(1)))
    assert end.error is not None
    assert end.error[0] == "UsageError"
    assert "the run 0.0.0: install the same" in end.error[1]


def test_the_collector_commits_calls_with_what_is_left_of_their_allocation(server: Counting, tmp_path: Path) -> None:
    """Of a shard that was closed it takes the calls, which are paid for, and no value: another worker makes that."""

    async def work() -> None:
        store, packed = Store(tmp_path / "run.sqlite"), list[bytes]()
        allocated = {"solver": Amount(0.0, 1_000_000)}
        store.put_many([], holds=("r", {"shard:a": allocated, "shard:b": allocated}))
        collector = Collector(tmp_path / "run.sqlite", "r", packed.append, None)
        first, _ = await asyncio.to_thread(answer, server, 10, joined, tokens=1_000_000)
        for shipment in first:
            await collector.ship("shard:a", shipment)
        spent = first[-1].status.spent["solver"].tokens
        assert len(store) == 10
        assert store.holders("r")["shard:a"]["solver"].tokens == 1_000_000 - spent
        news = await collector.take("shard:b")
        assert news[0]["shard:a"].ended == 10
        assert json.loads(packed.pop()) == [f"The answer is: {n}." for n in range(10)]
        for shipment in (await asyncio.to_thread(answer, server, 12, joined, tokens=1_000_000))[0]:
            await collector.ship("shard:b", shipment)
        assert len(store) == 12
        assert not packed
        assert (await collector.take())[0] == {}

    asyncio.run(work())


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
