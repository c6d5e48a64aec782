"""Files are written whole or not at all, also if a part fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fractionate.errors import FractionateError
from fractionate.files import write_text


def parts(fail: bool) -> Iterator[str]:
    yield "first\n"
    if fail:
        raise KeyboardInterrupt
    yield "second\n"


def test_parts_are_one_file(tmp_path: Path) -> None:
    write_text(parts(fail=False), tmp_path / "new/rows.txt")
    assert (tmp_path / "new/rows.txt").read_text() == "first\nsecond\n"


def test_what_is_cut_off_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_text(parts(fail=True), tmp_path / "rows.txt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("rows.txt", "old")]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FractionateError, match=r"file/rows\.txt cannot be written"):
        write_text("text", tmp_path / "file/rows.txt")
