"""Every completed call, in one SQLite file: nothing is paid for twice.

The file is in WAL mode with `synchronous=NORMAL`: a committed row survives the death of the process at any moment
(kill -9 included). Losing power may undo the last commits since a checkpoint (those calls would be sent again) but
never damages the file (https://sqlite.org/pragma.html#pragma_synchronous). Several processes may share one file.

Keys of providers and headers never come here: a row holds the request's messages and parameters and the reply.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fractionate.engine.migrations import migrate, refuse_newer
from fractionate.errors import FractionateError
from fractionate.types import ROLES, Completion, Message, Request, Role, Usage

BUSY_S = 60.0
"""Seconds a write waits for other processes' writes before it gives up."""
_BUSY_ONCE_S = 0.02
_CHUNK = 500
_REPLY = (
    "text, reasoning, finish_reason, error, calls, input_tokens, cached_input_tokens, output_tokens, "
    "reasoning_tokens, compute_s, counted, latency_s"
)
_COLUMNS = f"key, model, identity, run, role, request, {_REPLY}, created"
_INSERT = f"INSERT INTO calls ({_COLUMNS}) VALUES ({', '.join('?' * 19)}) ON CONFLICT (key) DO NOTHING"
_GET = f"SELECT {_REPLY} FROM calls WHERE key = ?"


class StoreBusy(Exception):  # noqa: N818 - a state, not an error
    """Another process is writing just now; try again in a moment."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One row: a request, the model it went to, the run that made it and what came back."""

    key: str
    model: str
    identity: str
    run: str
    request: Request
    completion: Completion
    created: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Hold:
    """Dollars and tokens reserved by one process for one role's calls in flight."""

    usd: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Spent:
    """How many calls of a run used the same usage: what a budget reads at a resume. `usage` is one call's."""

    model: str
    role: Role
    usage: Usage
    rows: int


class Store:
    """Completed calls by key. Opening creates the file, or brings an older one up to date.

    Raises FractionateError with one line if the file is no store, has a newer schema, or cannot be read or written.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        with self._clear_errors():
            if read_only and not self.path.is_file():
                raise FractionateError(f"no store at {self.path}: run.store names it, calls.sqlite in the run's folder")
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if not read_only:
                    self._connection.execute("PRAGMA journal_mode = WAL")
                    self._connection.execute("PRAGMA synchronous = NORMAL")
                (refuse_newer if read_only else migrate)(self._connection, str(self.path))
                self._connection.execute("PRAGMA wal_autocheckpoint = 4000")
                self._connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_ONCE_S * 1000)}")
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._connection.close()

    def __len__(self) -> int:
        with self._clear_errors(), self._lock:
            return int(self._connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def get(self, key: str) -> Completion | None:
        """Return the completion stored under a key, or None."""
        with self._lock:
            try:
                row = self._connection.execute(_GET, (key,)).fetchone()
            except sqlite3.Error:
                row = self._get_again(key)
        return None if row is None else _completion(row)

    def get_many(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return the completions stored under any of the keys."""
        found: dict[str, Completion] = {}
        with self._clear_errors(), self._lock:
            for start in range(0, len(keys), _CHUNK):
                part = keys[start : start + _CHUNK]
                query = f"SELECT key, {_REPLY} FROM calls WHERE key IN ({', '.join('?' * len(part))})"
                found.update((row[0], _completion(row[1:])) for row in self._connection.execute(query, part))
        return found

    def put_many(
        self,
        calls: Sequence[StoredCall],
        *,
        holds: tuple[str, str, Mapping[Role, Hold]] | None = None,
        wait: bool = True,
    ) -> dict[str, Completion]:
        """Commit rows, and what a process (run, holder) now holds of the budget, in one transaction.

        Returns the stored completions of those keys that another process had stored first: they are to be used
        instead, so that every run over this store sees the same replies. With `wait=False` raises StoreBusy instead of
        waiting for another process's transaction.
        """
        rows = [_row(call) for call in calls]

        def write() -> int:
            inserted = self._connection.executemany(_INSERT, rows).rowcount if rows else 0
            if holds is not None:
                run, holder, by_role = holds
                self._connection.executemany(
                    "INSERT INTO holds VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET usd = excluded.usd, "
                    "tokens = excluded.tokens",
                    [(run, holder, role, hold.usd, hold.tokens) for role, hold in by_role.items()],
                )
                self._connection.execute("DELETE FROM holds WHERE usd <= 0 AND tokens <= 0")
            return inserted

        inserted = self._transaction(write, wait=wait)
        if inserted == len(rows):
            return {}
        mine = {call.key: call.completion for call in calls}
        return {key: stored for key, stored in self.get_many(list(mine)).items() if stored != mine[key]}

    def spent(self, run: str) -> list[Spent]:
        """Return what a run's stored calls used, equal ones counted together."""
        columns = "calls, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, counted"
        query = f"SELECT model, role, {columns}, count(*) FROM calls WHERE run = ? GROUP BY model, role, {columns}"
        with self._clear_errors(), self._lock:
            return [
                Spent(model, role, Usage(calls, inputs, cached, outputs, reasoning, 0.0, counted), rows)
                for model, role, calls, inputs, cached, outputs, reasoning, counted, rows in self._connection.execute(
                    query, (run,)
                )
            ]

    def held(self, run: str) -> dict[Role, Hold]:
        """Return what processes hold of a run's budget, those that died with calls in flight included."""
        query = "SELECT role, sum(usd), sum(tokens) FROM holds WHERE run = ? GROUP BY role"
        with self._clear_errors(), self._lock:
            found = {role: Hold(usd, tokens) for role, usd, tokens in self._connection.execute(query, (run,))}
        return {role: found.get(role, Hold(0.0, 0)) for role in ROLES}

    def calls(
        self, *, key: str = "", model: str = "", run: str = "", role: str = "", limit: int | None = None
    ) -> Iterator[StoredCall]:
        """Return stored calls, newest first: all whose key starts with `key` and that match what else is given."""
        where, values = _filter(key, model, run, role)
        query = f"SELECT {_COLUMNS} FROM calls{where} ORDER BY created DESC, key"
        if limit is not None:
            query += f" LIMIT {int(limit)}"
        with self._clear_errors():
            for row in self._connection.execute(query, values):
                yield _call(row)

    def purge(self, *, key: str = "", model: str = "", run: str = "", role: str = "") -> int:
        """Delete matching calls, give their room back to the disk, and return how many there were."""
        where, values = _filter(key, model, run, role)
        deleted = self._transaction(lambda: self._connection.execute(f"DELETE FROM calls{where}", values).rowcount)
        with self._clear_errors(), self._lock:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_ONCE_S * 1000)}")
        return deleted

    def open_batches(self, identity: str) -> list[tuple[str, list[str]]]:
        """Return the batches of a model that a provider has not finished: (batch id, store keys), oldest first."""
        query = "SELECT id, keys FROM batches WHERE identity = ? AND state = 'open' ORDER BY created, id"
        with self._clear_errors(), self._lock:
            return [(batch, json.loads(keys)) for batch, keys in self._connection.execute(query, (identity,))]

    def put_batch(self, batch: str, identity: str, run: str, keys: Sequence[str]) -> None:
        """Remember a batch that was handed to a provider."""
        row = (batch, identity, run, json.dumps(list(keys)), time.time())
        self._transaction(lambda: self._connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, 'open', ?)", row))

    def close_batch(self, batch: str) -> None:
        """Mark a batch as done: all that it will ever give is stored."""
        self._transaction(lambda: self._connection.execute("UPDATE batches SET state = 'done' WHERE id = ?", (batch,)))

    def _transaction(self, write: Callable[[], object], *, wait: bool = True) -> int:
        """Run `write` in one transaction; wait for other processes' unless told not to."""
        deadline = time.monotonic() + BUSY_S
        while True:
            with self._clear_errors(), self._lock:
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                    try:
                        result = write()
                        self._connection.execute("COMMIT")
                    except BaseException:
                        if self._connection.in_transaction:
                            self._connection.execute("ROLLBACK")
                        raise
                    return result if isinstance(result, int) else 0
                except sqlite3.OperationalError as error:
                    if not _is_busy(error):
                        raise
                    if not wait:
                        raise StoreBusy from None
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.005)

    def _get_again(self, key: str) -> tuple[object, ...] | None:
        """Read with patience: a reader can meet a lock for a moment while a log is being recovered."""
        deadline = time.monotonic() + BUSY_S
        while True:
            with self._clear_errors():
                try:
                    row: tuple[object, ...] | None = self._connection.execute(_GET, (key,)).fetchone()
                    return row
                except sqlite3.OperationalError as error:
                    if not _is_busy(error) or time.monotonic() > deadline:
                        raise
            time.sleep(0.005)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn what SQLite and the file system say into one line with the mend."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise FractionateError(f"store {self.path}: {_mend(error)}") from None


def locked_out(path: Path) -> FractionateError:
    """Return the error for a store that another process would not let go of."""
    return FractionateError(f"store {path}: {_mend(sqlite3.OperationalError('locked'))}")


def _mend(error: Exception) -> str:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return f"this file is no fractionate store ({text}): choose another with run.store, or move it away"
    if "no such table" in text or "no such column" in text or "already exists" in text:
        return f"this SQLite file is not a fractionate store ({text}): choose another with run.store"
    if "readonly" in text or "read-only" in text or isinstance(error, PermissionError):
        return "it cannot be written (read-only): give write permission, or choose another file with run.store"
    if "disk is full" in text or "No space left" in text:
        return "the disk is full: free some room and run the same command again; what was completed is kept"
    if "locked" in text or "busy" in text:
        return f"another process has kept it locked for {BUSY_S:.0f} s: wait for it or stop it, then run again"
    if "unable to open" in text:
        return "it cannot be opened: check that the folder exists and may be written"
    return text


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


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


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _row(call: StoredCall) -> tuple[object, ...]:
    request, reply, usage = call.request, call.completion, call.completion.usage
    body = {
        "messages": request.messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": request.stop,
        "sample": request.sample,
        "response_format": request.response_format,
    }
    return (
        call.key,
        call.model,
        call.identity,
        call.run,
        request.role,
        _encodable(_encode(body)),
        _encodable(reply.text),
        _encodable(reply.reasoning),
        reply.finish_reason,
        _encodable(reply.error),
        usage.calls,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.compute_s,
        usage.counted,
        reply.latency_s,
        call.created,
    )


def _encodable(text: str) -> str:
    """Replace lone surrogates, which a reply's JSON may hold and SQLite refuses."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _completion(row: Sequence[Any]) -> Completion:
    text, reasoning, finish_reason, error, calls, inputs, cached, outputs, thought, compute_s, counted, latency_s = row
    usage = Usage(calls, inputs, cached, outputs, thought, compute_s, counted)
    return Completion(text, finish_reason, usage, latency_s, reasoning, error)


def _call(row: Sequence[Any]) -> StoredCall:
    key, model, identity, run, role, body = row[:6]
    fields = json.loads(body)
    request = Request(
        messages=tuple(Message(*message) for message in fields["messages"]),
        role=role,
        max_tokens=fields["max_tokens"],
        temperature=fields["temperature"],
        stop=tuple(fields["stop"]),
        sample=fields["sample"],
        response_format=fields["response_format"],
    )
    return StoredCall(key, model, identity, run, request, _completion(row[6:18]), row[18])
