"""Every completed call, in one SQLite file: nothing is paid for twice.

The file is in WAL mode with `synchronous=NORMAL`: a committed row survives the death of the process at any moment
(kill -9 included). Losing power may undo the last commits since a checkpoint (those calls would be sent again) but
never damages the file (https://sqlite.org/pragma.html#pragma_synchronous). Several processes may share one file, and
several runs: each call names the run that paid for it.

Keys of providers and headers never come here: a row holds the request's messages and parameters and the reply.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fractionate.calls.store_connection import BUSY_ONCE_S, StoreBusy, StoreConnection, locked_out
from fractionate.calls.store_file import BUSY_S, is_busy, migrate
from fractionate.calls.stored_call import (
    COLUMNS,
    REPLY,
    USAGE,
    WIDTH,
    Amount,
    DamagedRow,
    Spent,
    StoredCall,
    call_of,
    completion_of,
    row_of,
    spent_of,
)
from fractionate.errors import FractionateError
from fractionate.types import CALL_ROLES, CallRole, Completion, Request

_CHUNK = 500
_NEWEST = 20_000
"""Rows among which the newest calls of a model are looked for."""
_INSERT = f"INSERT INTO calls ({COLUMNS}) VALUES ({', '.join('?' * WIDTH)}) ON CONFLICT (key) DO NOTHING"
_GET = f"SELECT {REPLY} FROM calls WHERE key = ?"
_PUT_HOLD = (
    "INSERT INTO holds VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET usd = excluded.usd, tokens = excluded.tokens"
)
_DROP_HOLD = "DELETE FROM holds WHERE run = ? AND holder = ? AND role = ?"
_KEEP_SPENT = (
    f"INSERT INTO purged SELECT run, model, role, {USAGE}, count(*) FROM calls{{where}}"
    + "".join(
        f" AND typeof({column.strip()}) = 'integer'" for column in USAGE.split(",")
    )  # a damaged row tells nothing
    + f" GROUP BY run, model, role, {USAGE}"
)

Holds = Mapping[str, Mapping[CallRole, Amount]]
"""Amounts of a run's budget by holder (a process, a shard, or one call of a provider's batch) and role."""


class Store(StoreConnection):
    """Completed calls by key. Opening creates the file, or brings an older one up to date.

    Raises FractionateError with one line if the file is no store, has a newer schema, or cannot be read or written.
    """

    def __len__(self) -> int:
        return self.count()

    def get(self, key: str) -> Completion | None:
        """Return the completion stored under a key, or None."""
        with self._lock:
            try:
                row = self._connection.execute(_GET, (key,)).fetchone()
            except sqlite3.Error:
                row = self._get_again(key)
        if row is None:
            return None
        try:
            return completion_of(row)
        except DamagedRow as damage:
            raise self._damaged(key, damage) from None

    def of_other_identities(self, model: str, identity: str) -> int:
        """Return how many calls of a model are stored under other identities: it has changed since."""
        query = "SELECT count(*) FROM calls WHERE model = ? AND identity <> ?"
        with self._clear_errors(), self._lock:
            (count,) = self._connection.execute(query, (model, identity)).fetchone()
        return int(count)

    def find(self, keys: Iterable[str]) -> Completion | None:
        """Return the completion under the first of these keys that has one, None if none has."""
        return next((found for key in keys if (found := self.get(key)) is not None), None)

    def get_many(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return the completions stored under any of the keys."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), _CHUNK):
            part = keys[start : start + _CHUNK]
            query = f"SELECT key, {REPLY} FROM calls WHERE key IN ({', '.join('?' * len(part))})"
            try:
                with self._lock:
                    rows = self._connection.execute(query, part).fetchall()
                found.update((row[0], completion_of(row[1:])) for row in rows)
            except (sqlite3.Error, DamagedRow):  # one by one: the one that is at fault says so
                found.update((key, stored) for key in part if (stored := self.get(key)) is not None)
        return found

    def put_many(
        self, calls: Sequence[StoredCall], *, holds: tuple[str, Holds] | None = None, patience_s: float = BUSY_S
    ) -> dict[str, Completion]:
        """Commit rows, and what holders now hold of a run's budget (run, holds), in one transaction.

        Returns the stored completions of those keys that another process had stored first: they are to be used
        instead, so that every run over this store sees the same replies. Waits so long for another process's
        transaction; with 0 raises StoreBusy at once.
        """
        rows = [row_of(call) for call in calls]

        def write() -> int:
            inserted = self._connection.executemany(_INSERT, rows).rowcount if rows else 0
            self._write_holds(holds)
            return inserted

        inserted = self._transaction(write, patience_s=patience_s)
        if inserted == len(rows):
            return {}
        mine = {call.key: call.completion for call in calls}
        return {key: stored for key, stored in self.get_many(list(mine)).items() if stored != mine[key]}

    def export(self, place: int, run: str) -> tuple[int, bytes, list[Spent]]:
        """Return a run's rows beyond a place of the file as an SQLite database (see `merge`), b"" for none.

        Returns the place of the last row and what the paid ones used, too. All of it is done by SQLite: a row costs
        microseconds.
        """
        connection = self._connection
        with self._clear_errors(), self._lock:
            last = int(connection.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()[0])
            connection.execute("ATTACH ':memory:' AS outgoing")
            try:
                connection.execute(f"CREATE TABLE outgoing.calls ({COLUMNS})")
                insert = f"INSERT INTO outgoing.calls SELECT {COLUMNS} FROM main.calls WHERE rowid > ? AND run = ?"
                if not connection.execute(insert, (place, run)).rowcount:
                    return last, b"", []
                group = f"model, role, {USAGE}"
                query = f"SELECT {group}, count(*) FROM outgoing.calls WHERE paid GROUP BY {group}"
                spent = [spent_of(row) for row in connection.execute(query)]
                return last, connection.serialize(name="outgoing"), spent
            finally:
                connection.execute("DETACH outgoing")

    def merge(self, database: bytes, holds: tuple[str, Holds] | None = None) -> None:
        """Commit the rows that another store's `export` gave, and what holders now hold, in one transaction.

        Calls that are stored here already stay as they are.
        """

        def write() -> None:
            if database:
                insert = f"INSERT OR IGNORE INTO calls ({COLUMNS}) SELECT {COLUMNS} FROM incoming.calls"
                self._connection.execute(insert)
            self._write_holds(holds)

        if not database:
            self._transaction(write)
            return
        with self._lock:
            with self._clear_errors():
                self._connection.execute("ATTACH ':memory:' AS incoming")
                self._connection.deserialize(database, name="incoming")
            try:
                self._transaction(write)
            finally:
                self._connection.execute("DETACH incoming")

    def adopt(self, rows: Sequence[tuple[Any, ...]], holds: tuple[str, Holds] | None = None) -> None:
        """Commit rows of another store, and what holders now hold, in one transaction; calls stored here stay."""

        def write() -> None:
            self._connection.executemany(_INSERT, rows)
            self._write_holds(holds)

        self._transaction(write)

    def spent(self, run: str, *, others: bool = False) -> list[Spent]:
        """Return what a run's paid calls used, purged ones too, equal ones counted together.

        With `others` return instead what all other runs over this store have spent.
        """
        which = "run != ?1" if others else "run = ?1"
        query = (
            f"SELECT model, role, {USAGE}, count(*) FROM calls WHERE {which} AND paid GROUP BY model, role, {USAGE} "
            f"UNION ALL SELECT model, role, {USAGE}, rows FROM purged WHERE {which}"
        )
        with self._clear_errors(), self._lock:
            return [spent_of(row) for row in self._connection.execute(query, (run,))]

    def held(self, run: str, *, others: bool = False) -> dict[CallRole, Amount]:
        """Return what is reserved for a run in all, or with `others` for all other runs over this store."""
        total = {role: Amount(0.0, 0) for role in CALL_ROLES}
        for _, role, hold in self._holds(run, others=others):
            total[role] = Amount(total[role].usd + hold.usd, total[role].tokens + hold.tokens)
        return total

    def holders(self, run: str) -> dict[str, dict[CallRole, Amount]]:
        """Return what each holder has reserved for a run, processes that died with calls in flight included."""
        found: dict[str, dict[CallRole, Amount]] = {}
        for holder, role, hold in self._holds(run):
            found.setdefault(holder, {})[role] = hold
        return found

    def _holds(self, run: str, *, others: bool = False) -> list[tuple[str, CallRole, Amount]]:
        query = f"SELECT holder, role, usd, tokens FROM holds WHERE run {'!=' if others else '='} ?"
        with self._clear_errors(), self._lock:
            rows = self._connection.execute(query, (run,)).fetchall()
            for _, role, usd, tokens in rows:
                if role not in CALL_ROLES or type(tokens) is not int or not _is_amount(usd):
                    raise DamagedRow(f"a reservation for {run!r} cannot be read")
        return [(holder, role, Amount(usd, tokens)) for holder, role, usd, tokens in rows]

    def newest(self, identity: str, role: CallRole, limit: int) -> Iterator[tuple[Request, Completion]]:
        """Yield the newest calls of a model in a role, as many as are wanted; damaged ones are passed over.

        They are looked for among the newest rows alone: a file of millions is not read for them.
        """
        query = (
            f"SELECT {self._columns} FROM calls WHERE rowid > (SELECT coalesce(max(rowid), 0) FROM calls) - {_NEWEST} "
            "AND identity = ? AND role = ? ORDER BY rowid DESC LIMIT ?"
        )
        with self._clear_errors(), self._lock:
            rows = self._connection.execute(query, (identity, role, limit)).fetchall()
        for row in rows:
            with suppress(DamagedRow):
                call = call_of(row)
                yield call.request, call.completion

    def count(self, *, key: str = "", model: str = "", run: str = "", role: str = "") -> int:
        """Return how many calls `calls` and `purge` would find."""
        where, values = _filter(key, model, run, role)
        with self._clear_errors(), self._lock:
            return int(self._connection.execute(f"SELECT count(*) FROM calls{where}", values).fetchone()[0])

    def calls(
        self,
        *,
        key: str = "",
        model: str = "",
        run: str = "",
        role: str = "",
        limit: int | None = None,
        on_damaged: Callable[[str], None] | None = None,
    ) -> Iterator[StoredCall]:
        """Return stored calls, newest first: all whose key starts with `key` and that match what else is given.

        A row that cannot be read is left out and `on_damaged` is told why; without it the row raises FractionateError.
        """
        where, values = _filter(key, model, run, role)
        query = f"SELECT rowid, CAST(key AS BLOB) FROM calls{where} ORDER BY created DESC, key"
        query_row = f"SELECT {self._columns} FROM calls WHERE rowid = ?"
        if limit is not None:
            query += f" LIMIT {int(limit)}"
        with self._clear_errors():
            # Row by row, so that one whose bytes are damaged does not take the others along.
            for place, name in self._connection.execute(query, values):
                try:
                    row = self._connection.execute(query_row, (place,)).fetchone()
                    if row is None:
                        continue  # purged meanwhile
                    yield call_of(row)
                except (DamagedRow, sqlite3.DataError, sqlite3.OperationalError) as error:
                    damage = self._damaged((name or b"").decode("utf-8", "replace"), error)
                    if on_damaged is None:
                        raise damage from None
                    on_damaged(str(damage))

    def purge(self, *, key: str = "", model: str = "", run: str = "", role: str = "") -> int:
        """Delete matching calls, give their room back to the disk, and return how many there were.

        What their runs have spent on them stays on record: a budget is not refilled by forgetting replies.
        """
        where, values = _filter(key, model, run, role)

        def write() -> int:
            paid = f"{where} AND paid" if where else " WHERE paid"
            self._connection.execute(_KEEP_SPENT.format(where=paid), values)
            return self._connection.execute(f"DELETE FROM calls{where}", values).rowcount

        deleted = self._transaction(write)
        with self._clear_errors(), self._lock:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_ONCE_S * 1000)}")
        return deleted

    def open_batches(self, identity: str) -> list[tuple[str, list[str]]]:
        """Return the batches of a model that a provider has not finished: (batch id, store keys), oldest first."""
        query = "SELECT id, keys FROM batches WHERE identity = ? AND state = 'open' ORDER BY created, id"
        with self._clear_errors(), self._lock:
            rows = self._connection.execute(query, (identity,)).fetchall()
        try:
            return [(str(batch), [str(key) for key in json.loads(keys)]) for batch, keys in rows]
        except (ValueError, TypeError, RecursionError):
            raise FractionateError(f"store {self.path}: its table of batches is damaged: restore a copy") from None

    def put_batch(self, batch: str, identity: str, run: str, keys: Sequence[str]) -> None:
        """Remember a batch that was handed to a provider."""
        row = (batch, identity, run, json.dumps(list(keys)), time.time())
        query = "INSERT INTO batches VALUES (?, ?, ?, ?, 'open', ?) ON CONFLICT (id) DO NOTHING"
        self._transaction(lambda: self._connection.execute(query, row))

    def close_batch(self, batch: str) -> None:
        """Mark a batch as done: all that it will ever give is stored."""
        self._transaction(lambda: self._connection.execute("UPDATE batches SET state = 'done' WHERE id = ?", (batch,)))

    def _write_holds(self, holds: tuple[str, Holds] | None) -> None:
        if holds is None:
            return
        run, by_holder = holds
        entries = [(who, role, hold) for who, held in by_holder.items() for role, hold in held.items()]
        kept = [(run, who, role, *hold) for who, role, hold in entries if not hold.is_zero]
        gone = [(run, who, role) for who, role, hold in entries if hold.is_zero]
        self._connection.executemany(_PUT_HOLD, kept)
        self._connection.executemany(_DROP_HOLD, gone)

    def _get_again(self, key: str) -> tuple[Any, ...] | None:
        """Read with patience: a reader can meet a lock for a moment while a log is being recovered."""
        deadline = time.monotonic() + BUSY_S
        while True:
            with self._clear_errors():
                try:
                    row: tuple[Any, ...] | None = self._connection.execute(_GET, (key,)).fetchone()
                    return row
                except sqlite3.OperationalError as error:
                    if "decode" in str(error):
                        raise self._damaged(key, error) from None
                    if not is_busy(error) or time.monotonic() > deadline:
                        raise
            time.sleep(0.005)

    def _damaged(self, key: str, why: Exception) -> FractionateError:
        return FractionateError(
            f"store {self.path}: the row of call {key!r} is damaged ({why}): delete it with 'fractionate store purge "
            f"{self.path} --key {key} --yes', then it is made again"
        )


class MemoryStore(Store):
    """A store of this process alone, which ends with it: a place for calls that are shipped elsewhere."""

    is_shared = False

    def __init__(self) -> None:
        self.path = Path(":memory:")
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._columns = COLUMNS
        migrate(self._connection, ":memory:")

    @property
    def locks(self) -> Path:
        """No file: nobody shares this store."""
        return self.path

    def check_there(self) -> None:
        """Do nothing: memory cannot be moved away."""

    def try_room(self, size: int) -> None:
        """Do nothing: there is no disk to be full."""

    def has_room(self, size: int) -> bool:
        """Return True."""
        return True


def _is_amount(usd: object) -> bool:
    return isinstance(usd, float) and -1e-6 < usd < float("inf")  # sums of floats may be a rounding below 0


def _filter(key: str, model: str, run: str, role: str) -> tuple[str, list[str]]:
    clauses, values = [], []
    if key:
        clauses.append("key >= ? AND key < ?")
        values += [key, key + "g"]  # "g" sorts after every hexadecimal digit
    for column, value in (("model", model), ("run", run), ("role", role)):
        if value:
            clauses.append(f"{column} = ?")
            values.append(value)
    return (" WHERE " + " AND ".join(clauses) if clauses else ""), values


__all__ = ["Amount", "MemoryStore", "Spent", "Store", "StoreBusy", "StoredCall", "locked_out"]
