"""A spool is a list on disk."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.errors import FractionateError
from fractionate.spool import Spool, SpoolIndex, collect

texts = st.lists(st.text(st.characters(), max_size=8), max_size=12)


def spool_of(kept: int) -> Spool[str]:
    return Spool(lambda text: (text,), lambda row: row[0], kept)


@given(texts, texts, st.integers(0, 6))
def test_it_holds_what_a_list_holds_also_between_reads(first: list[str], more: list[str], kept: int) -> None:
    spool, values = spool_of(kept), list(first)
    for text in first:
        spool.append(text)
    assert list(spool) == values
    for text in more:
        spool.append(text)
        values.append(text)
        assert spool[-1] == text
    assert len(spool) == len(values)
    assert [spool[place] for place in range(len(values))] == values
    assert spool[1:-1] == values[1:-1]
    assert list(zip(spool, spool, strict=True)) == list(zip(values, values, strict=True))
    with pytest.raises(IndexError):
        spool[len(values)]


def test_few_values_stay_a_list_and_many_leave_memory() -> None:
    assert collect("abc", spool_of(3)) == ["a", "b", "c"]

    def held(count: int) -> int:
        tracemalloc.start()
        kept = collect((f"{number} {'x' * 500}" for number in range(count)), spool_of(10))
        found = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert sum(1 for _ in kept) == count
        return found

    assert (held(30_000) - held(10_000)) / 20_000 < 20, "8 bytes a value, and room to grow"


def test_a_temporary_file_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(FractionateError, match=r"nowhere cannot be written .*TMPDIR"):
        collect("abc", spool_of(1))


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_places_of_a_key_are_all_of_them_in_order(keys: list[str]) -> None:
    places = SpoolIndex()
    for place, key in enumerate(keys):
        places.add(key, place)
        assert places.of(key)[-1] == place
    for key in "abcdx":
        assert places.of(key) == [place for place, one in enumerate(keys) if one == key]
