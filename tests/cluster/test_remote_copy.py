"""A remote copy of the calls that shards made: a run that lost its machine pays for none of them again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fractionate.calls.store import Store, StoredCall
from fractionate.calls.stored_call import row_of
from fractionate.errors import FractionateError, UsageError
from fractionate.types import Completion, Message, Request, Usage

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

from fractionate.cluster.remote_copy import PART, RemoteCopy


def rows(first: int, count: int) -> list[tuple[object, ...]]:
    return [
        row_of(
            StoredCall(
                f"key {number}", "m", "m", "runs/a b", Request((Message("user", f"ä {number}"),), "solver"),
                Completion("ja\n", "stop", Usage(1, 2, 1, 3, 1, 0.5, 0), 0.25), 1000.0 + number, number % 2 == 0,
            )
        )
        for number in range(first, first + count)
    ]  # fmt: skip


def shipped(first: int, count: int) -> bytes:
    """Return rows as a shard ships them."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s.sqlite") as store:
        store.adopt(rows(first, count))
        return store.export(0, "runs/a b")[1]


@pytest.mark.parametrize("url", ["{folder}", "file://{folder}", "memory://parts"])
def test_another_store_has_the_same_rows(tmp_path: Path, url: str) -> None:
    copy = RemoteCopy(url.format(folder=tmp_path / "shared"), "runs/a b")
    copy.keep(shipped(0, PART + 3))
    copy.keep(shipped(PART + 3, 1))
    copy.flush()
    copy.flush()
    another = RemoteCopy(url.format(folder=tmp_path / "shared"), "runs/a b")
    with Store(tmp_path / "s.sqlite") as store:
        assert another.restore(store) == PART + 4
        assert another.restore(store) == PART + 4  # once more is nothing new
        assert [row_of(call) for call in sorted(store.calls(), key=lambda call: call.created)] == rows(0, PART + 4)


def test_runs_are_apart(tmp_path: Path) -> None:
    copy = RemoteCopy(str(tmp_path), "one")
    copy.keep(shipped(0, 1))
    copy.flush()
    with Store(tmp_path / "s.sqlite") as store:
        assert RemoteCopy(str(tmp_path), "two").restore(store) == 0


def test_what_cannot_be_opened_written_or_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cluster\.share nosuch://x"):
        RemoteCopy("nosuch://x", "r")
    (tmp_path / "file").write_text("")
    copy = RemoteCopy(str(tmp_path / "file"), "r")
    copy.keep(shipped(0, 1))
    with pytest.raises(FractionateError, match="the run's own store has everything"):
        copy.flush()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "part-0-00000.parquet").write_text("no Parquet")
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(FractionateError, match="cannot be read"):
        RemoteCopy(str(tmp_path), "r").restore(store)
