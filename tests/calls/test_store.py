"""The store keeps completed calls, names the faults of a file, and migrates by numbered steps."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from helpers import ask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fractionate.calls import store_file
from fractionate.calls.store import Amount, Store, StoreBusy, StoredCall
from fractionate.errors import FractionateError
from fractionate.types import Completion, Usage


def row(key: str, text: str = "four", run: str = "r", **fields: object) -> StoredCall:
    completion = Completion(text, usage=Usage(1, 10, 2, 5, 1, 0.25, 0), latency_s=0.5, **fields)  # type: ignore[arg-type]
    return StoredCall(key, "openai:m", "openai:m", run, ask(f"q {key}"), completion)


def test_what_is_put_is_there_after_closing(store: Store) -> None:
    call = row("ab", reasoning="let me see", finish_reason="length")
    store.put_many([call])
    store.close()
    with Store(store.path) as again:
        assert again.get("ab") == call.completion
        assert again.get("cd") is None
        assert list(again.calls()) == [call]
        assert len(again) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    st.builds(
        Completion,
        text=st.text(),
        finish_reason=st.sampled_from(["stop", "length", "refusal"]),
        usage=st.builds(Usage, *[st.integers(0, 2**40)] * 5, st.floats(0, 1e6), st.integers(0, 1)),
        latency_s=st.floats(0, 1e6),
        reasoning=st.text(),
        error=st.text(),
    ),
    st.integers(0, 2**62),
)
def test_every_completion_comes_back_equal(store: Store, completion: Completion, number: int) -> None:
    key = f"{number:x}"
    store.purge(key=key)
    store.put_many([StoredCall(key, "m", "m", "", ask("q"), completion)])
    assert store.get(key) == completion
    assert store.get_many([key, "absent"]) == {key: completion}


def test_of_two_writers_the_first_wins_and_the_second_is_told(store: Store) -> None:
    store.put_many([row("ab", "first")])
    with Store(store.path) as second:
        others = second.put_many([row("ab", "second"), row("cd")])
        assert {key: completion.text for key, completion in others.items()} == {"ab": "first"}
        assert len(second) == 2


def test_a_locked_store_is_told_from_a_broken_one(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        store.put_many([row("ab")], patience_s=0)
    assert store.get("ab") is None
    other.execute("COMMIT")
    other.close()
    store.put_many([row("ab")], patience_s=0)
    assert len(store) == 1


def test_a_file_that_is_no_store_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database\n" * 100)
    with pytest.raises(FractionateError, match="no fractionate store") as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text().startswith("these are my notes")


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE calls (number TEXT)")
    other.commit()
    with pytest.raises(FractionateError, match="not a fractionate store"):
        Store(path)
    assert other.execute("PRAGMA user_version").fetchone() == (0,)
    other.close()


def test_a_newer_schema_is_refused(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute(f"PRAGMA user_version = {store_file.LATEST + 1}")
    connection.close()
    with pytest.raises(FractionateError, match="newer fractionate"):
        Store(store.path)


@pytest.mark.parametrize("version", range(store_file.LATEST))
def test_a_store_of_every_older_schema_opens_with_its_rows(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    for step in store_file.STEPS[:version]:
        for statement in step:
            connection.execute(statement)
    if version:
        body = {"messages": [["user", "q"]], "max_tokens": 9, "temperature": 0, "stop": [], "sample": 0}
        request = json.dumps({**body, "response_format": None})
        values = ("k", "m", "m", "r", "solver", request, "old", "", "stop", "", 1, 2, 0, 3, 0, 0.0, 0, 0.1, 9.0)
        connection.execute(f"INSERT INTO calls VALUES ({', '.join('?' * 19)})", values)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    if version:
        with Store(path, read_only=True) as old:
            assert [call.completion.text for call in old.calls()] == ["old"]
    with Store(path) as store:
        kept = store.get("k")
        assert (kept.text if kept else None) == ("old" if version else None)
        store.put_many([row("ab")], holds=("r", {"h": {"solver": Amount(0.5, 3)}}))
        assert store.held("r")["solver"] == Amount(0.5, 3)
        store.put_batch("b1", "m", "r", ["k"])
        assert store.open_batches("m") == [("b1", ["k"])]


def test_a_read_only_file_is_one_clear_line(store: Store) -> None:
    store.put_many([row("ab")])
    store.close()
    os.chmod(store.path, stat.S_IREAD)
    try:
        if os.access(store.path, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(FractionateError, match="read-only"), Store(store.path) as again:
            again.put_many([row("cd")])
    finally:
        os.chmod(store.path, stat.S_IREAD | stat.S_IWRITE)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(store: Store) -> None:
    """A page limit makes SQLite itself report that the database is full."""
    store.put_many([row("ab")])
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FractionateError, match="disk is full"):
        store.put_many([row(f"{number:04x}", "x" * 5000) for number in range(100)])
    assert len(store) == 1


def test_a_missing_store_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(FractionateError, match="no store at"):
        Store(tmp_path / "absent.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_purging_takes_what_matches_and_nothing_else(store: Store) -> None:
    store.put_many([row("aa"), row("ab", run="s"), row("bb")])
    assert [call.key for call in store.calls(key="a", run="r")] == ["aa"]
    assert store.purge(key="a") == 2
    assert [call.key for call in store.calls()] == ["bb"]
    assert b"q aa" not in store.path.read_bytes()


def test_spending_is_read_by_run_and_role(store: Store) -> None:
    store.put_many([row("aa"), row("bb"), row("cc", run="s")])
    (spent,) = store.spent("r")
    assert (spent.model, spent.role, spent.rows) == ("openai:m", "solver", 2)
    assert spent.usage.input_tokens == 10
