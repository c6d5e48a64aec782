"""What workers stored, kept a second time at a URL: a run that lost its machine pays for none of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fractionate.calls.store import Store, StoredCall
from fractionate.calls.stored_call import row_of
from fractionate.errors import FractionateError, UsageError
from fractionate.types import Completion, Message, Request, Usage

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

from fractionate.cluster.share import PART, Share


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


@pytest.mark.parametrize("url", ["{folder}", "file://{folder}", "memory://parts"])
def test_another_store_has_the_same_rows(tmp_path: Path, url: str) -> None:
    share = Share(url.format(folder=tmp_path / "shared"), "runs/a b")
    share.keep(rows(0, PART + 3))
    share.keep(rows(PART + 3, 1))
    share.flush()
    share.flush()
    another = Share(url.format(folder=tmp_path / "shared"), "runs/a b")
    with Store(tmp_path / "s.sqlite") as store:
        assert another.take_in(store) == PART + 4
        assert another.take_in(store) == PART + 4  # once more is nothing new
        place, found = store.rows_after(0, "runs/a b", 2 * PART)
        assert (place, found) == (PART + 4, rows(0, PART + 4))


def test_runs_are_apart(tmp_path: Path) -> None:
    share = Share(str(tmp_path), "one")
    share.keep(rows(0, 1))
    share.flush()
    with Store(tmp_path / "s.sqlite") as store:
        assert Share(str(tmp_path), "two").take_in(store) == 0


def test_what_cannot_be_opened_written_or_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cluster\.share nosuch://x"):
        Share("nosuch://x", "r")
    (tmp_path / "file").write_text("")
    share = Share(str(tmp_path / "file"), "r")
    share.keep(rows(0, 1))
    with pytest.raises(FractionateError, match="the run's own store has everything"):
        share.flush()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "part-0-00000.parquet").write_text("no Parquet")
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(FractionateError, match="cannot be read"):
        Share(str(tmp_path), "r").take_in(store)
