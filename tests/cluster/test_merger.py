"""The merger, its methods called by hand: what it commits, what it reports, and what it takes from a shard given up."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

pytest.importorskip("ray")

from fractionate.calls.status import Counters
from fractionate.calls.store import Hold, Store, StoredCall
from fractionate.cluster.merger import Merger, Target
from fractionate.cluster.shard_task import End, Shipment
from fractionate.types import Completion, Message, Request, Role, Usage


def shipment(folder: Path, key: str, usd: float, end: End | None = None) -> Shipment:
    """Return a shipment of one call and one value, which are both its key."""
    reply = Completion(key, "stop", Usage(1, 10, 0, 5))
    with Store(folder / f"{key}.sqlite") as store:
        store.put_many([StoredCall(key, "m", "m", "r", Request((Message("user", key),), "solver"), reply)])
        calls = store.export(0, "r")[1]
    spent: dict[Role, Hold] = {"solver": Hold(usd, 15)}
    return Shipment(calls, spent, 1, pickle.dumps([key]), Counters(sent=1), 3, (f"said {key}",), end)


class Lines:
    """Takes packed values into a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def __call__(self, packed: bytes) -> None:
        self._file.write(packed)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def test_calls_and_what_is_left_of_their_allocation_are_committed_together(tmp_path: Path) -> None:
    async def merge() -> None:
        merger = Merger(Target(tmp_path / "run.sqlite", "r"))
        await merger.begin("shard:1", {"solver": Hold(1.0, 100), "decomposer": Hold(0.0, 0)})
        assert await merger.merge("shard:1", shipment(tmp_path, "a", 0.25)) is None
        with Store(tmp_path / "run.sqlite", read_only=True) as store:
            assert [one.key for one in store.calls()] == ["a"]
            assert store.holders("r")["shard:1"]["solver"] == Hold(0.75, 85)
        news = await merger.news()
        (one,) = news.shards.values()
        assert (one.ended, [pickle.loads(each) for each in one.values]) == (1, [["a"]])
        assert (one.spent["solver"], one.left["solver"]) == (Hold(0.25, 15), Hold(0.75, 85))
        assert (news.counters.sent, news.in_flight, news.said) == (1, 3, ["said a"])
        assert not (await merger.news()).shards, "news is told once"
        await merger.merge("shard:1", shipment(tmp_path, "b", 0.25, End({"solver": Hold(0.125, 5)})))
        with Store(tmp_path / "run.sqlite", read_only=True) as store:
            assert store.holders("r")["shard:1"]["solver"] == Hold(0.125, 5), "what is lost stays held"

    asyncio.run(merge())


def test_of_a_shard_that_was_given_up_calls_are_kept_and_values_are_not(tmp_path: Path) -> None:
    """Another shard makes its values: they would be there twice."""

    async def merge() -> None:
        merger = Merger(Target(tmp_path / "run.sqlite", "r", open_values=lambda: Lines(tmp_path / "values")))
        await merger.begin("shard:1", {})
        await merger.merge("shard:1", shipment(tmp_path, "a", 0.0))
        news = await merger.news(["shard:1"])
        assert (news.shards["shard:1"].ended, news.in_flight) == (1, 0)
        assert await merger.merge("shard:1", shipment(tmp_path, "late", 0.0)) is False, "it is told to stop"
        assert not (await merger.news()).shards
        await merger.close()

    asyncio.run(merge())
    assert (tmp_path / "values").read_bytes() == pickle.dumps(["a"])
    with Store(tmp_path / "run.sqlite", read_only=True) as store:
        assert sorted(one.key for one in store.calls()) == ["a", "late"]


def test_shards_are_told_to_stop_and_a_store_that_cannot_be_written_is_the_runs_error(tmp_path: Path) -> None:
    async def merge() -> None:
        merger = Merger(Target(tmp_path / "run.sqlite", "r"))
        await merger.begin("shard:1", {})
        await merger.stop(True)
        assert await merger.merge("shard:1", shipment(tmp_path, "a", 0.0)) is True
        (tmp_path / "run.sqlite").rename(tmp_path / "moved")
        assert await merger.merge("shard:1", shipment(tmp_path, "b", 0.0)) is False
        error = (await merger.news()).error
        assert error is not None
        assert "was deleted, moved or replaced" in str(error)

    asyncio.run(merge())
