"""Queries of a database file that can only read: SQLite, and DuckDB by its suffix.

A query comes from a model, so the connection is opened to be read only, whatever else the query tries is refused, and
it is stopped when its time is up.
"""

from __future__ import annotations

import importlib.util
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from fractionate.errors import missing_extra

T = TypeVar("T")
Rows = Iterator[tuple[Any, ...]]
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33)  # 33: SQLITE_RECURSIVE


class QueryError(Exception):
    """A query that cannot be run: it is malformed, writes, or takes too long."""


class Database:
    """An SQLite file, or a DuckDB file (`.duckdb`, `.ddb`), opened anew for every query."""

    def __init__(self, path: Path, key: str) -> None:
        """`key` is the key of a config that names the file. Raises UsageError where duckdb is needed and missing."""
        self.path = path
        self.is_duckdb = path.suffix.lower() in (".duckdb", ".ddb")
        if self.is_duckdb and importlib.util.find_spec("duckdb") is None:
            raise missing_extra("duckdb", "duckdb", f"{key}: a DuckDB file")

    @property
    def dialect(self) -> str:
        """The name of its SQL, for messages."""
        return "DuckDB" if self.is_duckdb else "SQLite"

    def query(self, query: str, values: Mapping[str, str], seconds: float, take: Callable[[list[str], Rows], T]) -> T:
        """Return what `take` makes of a query's columns and rows; `:name` in the query stands for `values["name"]`.

        Raises QueryError, with a message for the model that wrote the query.
        """
        run = self._run_duckdb if self.is_duckdb else self._run_sqlite
        return run(query, values, seconds, take)

    def _run_sqlite(
        self, query: str, values: Mapping[str, str], seconds: float, take: Callable[[list[str], Rows], T]
    ) -> T:
        until = time.monotonic() + seconds
        try:
            with closing(self._open_sqlite()) as database:
                database.set_progress_handler(lambda: time.monotonic() > until, 10_000)
                cursor = database.execute(query, values)
                return take([column[0] for column in cursor.description or ()], cursor)
        except sqlite3.Error as error:
            message = str(error)
            refused = "not authorized" in message or "readonly" in message
            raise QueryError("only queries that read are allowed" if refused else message) from None

    def _open_sqlite(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        return database

    def _run_duckdb(
        self, query: str, values: Mapping[str, str], seconds: float, take: Callable[[list[str], Rows], T]
    ) -> T:
        import duckdb

        try:
            with closing(duckdb.connect(str(self.path), read_only=True)) as database:
                # Or a query could read and write any file of the machine by its name.
                database.execute("SET enable_external_access = false; SET lock_configuration = true")
                stopping = threading.Timer(seconds, database.interrupt)
                stopping.start()
                try:
                    named = query
                    for name in values:
                        named = named.replace(f":{name}", f"${name}")
                    cursor = database.execute(named, dict(values) or None)
                    return take([column[0] for column in cursor.description or ()], iter(cursor.fetchone, None))
                finally:
                    stopping.cancel()
        except duckdb.Error as error:
            raise QueryError(str(error)) from None

    def schema(self) -> list[str]:
        """Return each table with its columns: "cities (name, country)"."""
        tables: dict[str, list[str]] = {}
        if self.is_duckdb:
            import duckdb

            with closing(duckdb.connect(str(self.path), read_only=True)) as database:
                rows = database.execute("SELECT table_name, column_name FROM information_schema.columns").fetchall()
        else:
            with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as plain:
                rows = plain.execute(
                    "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type IN "
                    "('table', 'view') AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid"
                ).fetchall()
        for table, column in rows:
            tables.setdefault(table, []).append(column)
        return [f"{table} ({', '.join(columns)})" for table, columns in tables.items()]
