"""The store's rows to the digit, and each fault of its file by its cause."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from helpers import ask

from fractionate.calls import store_file
from fractionate.calls.store import Amount, Spent, Store, StoredCall, _is_amount
from fractionate.calls.store_file import LATEST, STEPS, StoreFile, fix, has_no_room, is_busy, migrate
from fractionate.calls.stored_call import COLUMNS, WIDTH, DamagedRow, billed, call_of, completion_of, row_of, spent_of
from fractionate.errors import FractionateError
from fractionate.types import Completion, Message, Request, Usage

USED = Usage(1, 10, 2, 5, 3, 0.25, 1)
CALL = StoredCall(
    "ab",
    "openai:m",
    "openai:m+x",
    "r",
    Request((Message("system", "Be brief."), Message("user", "q")), "decomposer", 16, 0.5, ("\n",), 2, '{"type":"x"}'),
    Completion("four", "length", USED, 0.75, "let me see", "none"),
    1234.5,
    False,
)


def test_a_call_is_the_same_after_a_row_held_it() -> None:
    row = row_of(CALL)
    assert len(row) == WIDTH == len(COLUMNS.split(", "))
    named = dict(zip(COLUMNS.split(", "), row, strict=True))
    assert [named[name] for name in ("key", "model", "identity", "run", "role")] == [
        "ab", "openai:m", "openai:m+x", "r", "decomposer",
    ]  # fmt: skip
    assert [named[name] for name in ("calls", "input_tokens", "cached_input_tokens", "output_tokens")] == [1, 10, 2, 5]
    assert [named[name] for name in ("reasoning_tokens", "compute_s", "counted")] == [3, 0.25, 1]
    assert [named[name] for name in ("latency_s", "created", "paid")] == [0.75, 1234.5, 0]
    assert call_of(row) == CALL
    assert completion_of(row[6:18]) == CALL.completion
    assert billed(row) is None
    assert billed((*row[:19], 1)) == ("openai:m", "decomposer", Usage(1, 10, 2, 5, 3, 0.25, 1))


@pytest.mark.parametrize("column", range(WIDTH - 1))
def test_a_row_with_a_value_of_another_kind_is_damaged(column: int) -> None:
    """Texts are texts, numbers are numbers of at least 0, and the request is JSON."""
    for value in (None, b"x", "x" if column >= 10 else 5):
        row = list(row_of(CALL))
        row[column] = value
        with pytest.raises(DamagedRow):
            call_of(row)


@pytest.mark.parametrize("column", range(10, 18))
def test_no_count_is_negative_and_each_may_be_nothing(column: int) -> None:
    row = list(row_of(CALL))
    row[column] = 0
    call_of(row)
    row[column] = -1
    with pytest.raises(DamagedRow, match="not negative"):
        call_of(row)


@pytest.mark.parametrize(
    "body",
    ["[]", "{}", "{", '{"messages": [["user", 5]]}', '{"messages": [["user"]]}', '{"messages": 5}', '"' * 3],
)
def test_a_request_that_is_none_is_damaged(body: str) -> None:
    row = list(row_of(CALL))
    row[5] = body
    with pytest.raises(DamagedRow):
        call_of(row)


@pytest.mark.parametrize("created", [1e300, float("inf"), float("nan"), -1e300])
def test_a_call_was_made_at_some_time(created: float) -> None:
    row = list(row_of(CALL))
    row[18] = created
    with pytest.raises(DamagedRow):
        call_of(row)


def test_spending_is_read_column_by_column() -> None:
    row: list[Any] = ["openai:m", "solver", 1, 10, 2, 5, 3, 1, 7]
    assert spent_of(row) == Spent("openai:m", "solver", Usage(1, 10, 2, 5, 3, 0.0, 1), 7)
    assert spent_of([*row[:2], *[0] * 7]) == Spent("openai:m", "solver", Usage(0, 0, 0, 0, 0, 0.0, 0), 0)
    for column, value in [
        (0, None),
        (1, "critic"),
        *((at, odd) for at in range(2, 9) for odd in (-1, 1.0, "1", None, True)),
    ]:
        with pytest.raises(DamagedRow):
            spent_of([*row[:column], value, *row[column + 1 :]])


@pytest.mark.parametrize(
    ("usd", "tokens", "nothing"),
    [(0.0, 0, True), (1e-9, 0, False), (0.0, 1, False), (-1e-9, 0, True), (0.0, -1, True), (1.0, -1, False)],
)
def test_an_amount_is_nothing_where_both_are(usd: float, tokens: int, nothing: bool) -> None:
    assert Amount(usd, tokens).is_zero is nothing


def test_an_amount_of_dollars_may_be_a_rounding_below_nothing() -> None:
    assert [_is_amount(value) for value in (0.0, -9e-7, -1e-6, 1.0, float("inf"), float("nan"), 1)] == [
        True, True, False, True, False, False, False,
    ]  # fmt: skip


def test_reservations_are_summed_by_role_and_dropped_at_nothing(store: Store) -> None:
    store.put_many(
        [],
        holds=("r", {"a": {"solver": Amount(0.5, 40)}, "b": {"solver": Amount(0.25, 2), "decomposer": Amount(1.0, 7)}}),
    )
    store.put_many([], holds=("s", {"a": {"solver": Amount(8.0, 800)}}))
    assert store.held("r") == {"solver": (0.75, 42), "decomposer": (1.0, 7), "judge": (0.0, 0)}
    assert store.held("r", others=True) == {"solver": (8.0, 800), "decomposer": (0.0, 0), "judge": (0.0, 0)}
    assert store.holders("r")["b"] == {"solver": (0.25, 2), "decomposer": (1.0, 7)}
    store.put_many([], holds=("r", {"b": {"solver": Amount(0.0, 0)}, "a": {"solver": Amount(0.1, 1)}}))
    assert store.holders("r") == {"a": {"solver": (0.1, 1)}, "b": {"decomposer": (1.0, 7)}}
    for damage in ("usd = -1", "tokens = 1.5", "role = 'critic'", "usd = 'x'"):
        with sqlite3.connect(store.path) as connection:
            before = connection.execute("SELECT * FROM holds WHERE run = 's'").fetchone()
            connection.execute(f"UPDATE holds SET {damage} WHERE run = 's'")
        with pytest.raises(FractionateError, match="reservation"):
            store.held("s")
        with sqlite3.connect(store.path) as connection:
            connection.execute("DELETE FROM holds WHERE run = 's'")
            connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", before)


def numbered(count: int) -> list[StoredCall]:
    texts = [str(number) for number in range(count)]
    return [
        StoredCall(f"{at:04x}", "m", "i", "r", ask(f"q{text}"), Completion(text, usage=USED), 1000.0 + at)
        for at, text in enumerate(texts)
    ]


def test_many_keys_are_read_in_parts(store: Store) -> None:
    calls = numbered(1201)
    store.put_many(calls)
    keys = [call.key for call in calls]
    for some in (keys[:499], keys[:500], keys[:501], keys):
        assert store.get_many([*some, "ffff"]) == {call.key: call.completion for call in calls[: len(some)]}
    assert store.get_many([]) == {}
    assert store.find(["ffff", keys[3], keys[4]]) == calls[3].completion
    assert store.find(["ffff"]) is None


def test_calls_are_listed_newest_first_and_filtered(store: Store) -> None:
    store.put_many(
        [
            *numbered(5),
            *(StoredCall(f"f{n}", "o", "i", "s", ask("q", role="decomposer"), Completion("x"), 1.0) for n in range(2)),
        ]
    )
    assert [call.key for call in store.calls()] == ["0004", "0003", "0002", "0001", "0000", "f0", "f1"]
    assert [call.key for call in store.calls(limit=2)] == ["0004", "0003"]
    assert [call.key for call in store.calls(limit=0)] == []
    assert [call.key for call in store.calls(key="000", role="solver", run="r", model="m", limit=1)] == ["0004"]
    for fields, count in (
        ({}, 7),
        ({"key": "f"}, 2),
        ({"key": "f0"}, 1),
        ({"run": "s"}, 2),
        ({"role": "solver"}, 5),
        ({"model": "x"}, 0),
    ):
        assert store.count(**fields) == len(list(store.calls(**fields))) == count
    assert store.of_other_identities("m", "i") == 0
    assert store.of_other_identities("m", "j") == 5


def test_the_newest_calls_of_a_model_are_looked_for_among_the_newest_rows(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fractionate.calls.store._NEWEST", 3)
    store.put_many(numbered(5))
    assert [completion.text for _, completion in store.newest("i", "solver", 9)] == ["4", "3", "2"]
    assert [completion.text for _, completion in store.newest("i", "solver", 1)] == ["4"]
    assert list(store.newest("j", "solver", 9)) == list(store.newest("i", "decomposer", 9)) == []


def test_purged_calls_stay_spent_and_only_paid_ones_do(store: Store) -> None:
    store.put_many(numbered(3))
    store.put_many([StoredCall("ff", "m", "i", "r", ask("free"), Completion("x", usage=USED), paid=False)])
    spent = [Spent("m", "solver", Usage(1, 10, 2, 5, 3, 0.0, 1), 3)]
    assert store.spent("r") == spent
    assert store.spent("r", others=True) == []
    assert store.spent("s", others=True) == spent
    assert store.purge(key="0000") == 1
    assert store.purge() == 3
    assert (len(store), sum(one.rows for one in store.spent("r"))) == (0, 3)


def test_rows_go_from_store_to_store_once(tmp_path: Path) -> None:
    with Store(tmp_path / "a.sqlite") as a, Store(tmp_path / "b.sqlite") as b:
        a.put_many([*numbered(3), *(StoredCall("ff", "m", "i", "s", ask("q"), Completion("x")),)])
        place, rows, spent = a.export(0, "r")
        assert (place, spent) == (4, [Spent("m", "solver", Usage(1, 10, 2, 5, 3, 0.0, 1), 3)])
        b.put_many(numbered(1))
        b.merge(rows, ("r", {"shard": {"solver": Amount(0.5, 5)}}))
        assert (len(b), b.held("r")["solver"]) == (3, (0.5, 5))
        assert a.export(place, "r") == (4, b"", [])
        assert a.export(1, "r")[2][0].rows == 2
        b.merge(b"", ("r", {"shard": {"solver": Amount(0.0, 0)}}))
        assert b.held("r")["solver"] == (0.0, 0)
        b.adopt([row_of(call) for call in a.calls()])
        assert len(b) == 4


def test_a_row_is_read_again_after_a_lock(store: Store) -> None:
    store.put_many(numbered(1))
    row = store._get_again("0000")
    assert row is not None
    assert completion_of(row).text == "0"
    assert store._get_again("ffff") is None


def test_open_batches_are_listed_oldest_first(store: Store) -> None:
    for name in ("b2", "b1"):
        store.put_batch(name, "i", "r", ["k1", name])
    store.put_batch("b2", "i", "r", ["other"])
    assert store.open_batches("i") == [("b2", ["k1", "b2"]), ("b1", ["k1", "b1"])]
    store.close_batch("b2")
    assert store.open_batches("i") == [("b1", ["k1", "b1"])]
    assert store.open_batches("j") == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (sqlite3.DatabaseError("file is not a database"), "this file is no fractionate store"),
        (sqlite3.DatabaseError("database disk image is malformed"), "the file is damaged"),
        (sqlite3.DatabaseError("index corrupt"), "the file is damaged"),
        (sqlite3.OperationalError("no such table: calls"), "is not a fractionate store"),
        (sqlite3.OperationalError("no such column: x"), "is not a fractionate store"),
        (sqlite3.OperationalError("table calls already exists"), "is not a fractionate store"),
        (sqlite3.OperationalError("duplicate column name: paid"), "is not a fractionate store"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "read-only"),
        (OSError(30, "Read-only file system"), "cannot be written"),
        (PermissionError(13, "Permission denied"), "cannot be written"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (sqlite3.OperationalError("disk I/O error"), "the disk gave an error"),
        (sqlite3.OperationalError("database is locked"), "another process has kept it locked for 60 s"),
        (sqlite3.OperationalError("database table is busy"), "another process"),
        (sqlite3.OperationalError("unable to open database file"), "cannot be opened"),
        (OSError(5, "Input/output error"), "Input/output error: check the path"),
        (OSError("odd"), "SQLite says 'odd'"),
        (sqlite3.OperationalError("odd\n  news"), "SQLite says 'odd news'"),
    ],
)
def test_every_fault_of_the_file_says_what_fixes_it(error: Exception, said: str) -> None:
    assert said in fix(error)


def coded(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


def test_faults_are_told_apart_by_sqlites_code_whatever_its_extension() -> None:
    full, io, busy, locked = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY_SNAPSHOT, 262
    assert [has_no_room(coded(code)) for code in (full, io, busy, locked, 0, 1)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert [is_busy(coded(code)) for code in (full, io, busy, locked, 0, 1)] == [False, False, True, True, False, False]
    assert not has_no_room(sqlite3.OperationalError("x"))
    assert not is_busy(sqlite3.OperationalError("x"))


def test_a_file_of_two_names_is_refused_and_so_is_one_that_was_replaced(tmp_path: Path) -> None:
    with Store(tmp_path / "calls.sqlite") as store:
        store.check_there()
        os.link(store.path, tmp_path / "twin")
    with pytest.raises(FractionateError, match="2 hard links"):
        Store(tmp_path / "calls.sqlite")
    (tmp_path / "twin").unlink()
    with Store(tmp_path / "calls.sqlite") as store:
        store.path.rename(tmp_path / "moved")
        with pytest.raises(FractionateError, match="deleted, moved or replaced"):
            store.check_there()
        store.path.touch()
        with pytest.raises(FractionateError, match="deleted, moved or replaced"):
            store.check_there()


def test_room_is_what_the_file_system_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StoreFile(tmp_path / "calls.sqlite", read_only=False)
    left = os.statvfs_result((4096, 512, 0, 0, 8, 0, 0, 0, 0, 255))
    monkeypatch.setattr(store_file.os, "statvfs", lambda path: left)
    assert file.has_room(8 * 512)
    assert not file.has_room(8 * 512 + 1)
    file.connection.close()


def test_only_the_owner_reads_a_store_and_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    Store(path).close()
    for end in ("", "-wal", "-shm", "-locks"):
        beside = path.with_name(path.name + end)
        beside.touch()
        beside.chmod(0o644)
    Store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("calls.sqlite-locks").stat().st_mode) == 0o600


@pytest.mark.parametrize("done", range(LATEST + 1))
def test_each_step_of_the_schema_is_taken_once(tmp_path: Path, done: int) -> None:
    connection = sqlite3.connect(tmp_path / "calls.sqlite", isolation_level=None)
    for number, statements in enumerate(STEPS[:done], 1):
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    migrate(connection, "x")
    assert connection.execute("PRAGMA user_version").fetchone() == (LATEST,)
    migrate(connection, "x")
    connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    with pytest.raises(FractionateError, match=f"schema {LATEST + 1}, this one knows {LATEST}"):
        migrate(connection, "x")
    connection.close()


def test_a_damaged_table_of_batches_is_named(store: Store) -> None:
    store.put_batch("b", "i", "r", ["k"])
    for keys in ("{", "5", json.dumps(None)):
        with sqlite3.connect(store.path) as connection:
            connection.execute("UPDATE batches SET keys = ?", (keys,))
        with pytest.raises(FractionateError, match="table of batches is damaged"):
            store.open_batches("i")
