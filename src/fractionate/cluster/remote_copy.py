"""A remote copy of the calls that shards made, for a machine that is lost: Parquet parts at an fsspec URL.

    URL/RUN/part-XXXXXXXX-00000.parquet     rows of the store, in the order in which they were merged

The run's store stays the one that is read; it is one file on one machine's disk. A run that is started anew elsewhere,
with the same config, restores the parts first and pays for nothing in them.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from fractionate.calls.store import Store
from fractionate.calls.stored_call import COLUMNS
from fractionate.errors import FractionateError, UsageError, missing_extra

PART = 5_000
"""Rows of a part; fewer at the end of a piece of work."""
_NAMES = [name.strip() for name in COLUMNS.split(",")]


class RemoteCopy:
    """A folder of parts of one run. `url` is what fsspec takes (`s3://bucket/path`, a path); `run` the run's name.

    Raises UsageError where what opens the URL is not installed, FractionateError where it cannot be read or written.
    """

    def __init__(self, url: str, run: str) -> None:
        self._url = f"{url.rstrip('/')}/{re.sub(r'[^A-Za-z0-9._-]+', '-', run).strip('-') or 'run'}"
        self._name = secrets.token_hex(4)
        self._parts = 0
        self._waiting: list[tuple[Any, ...]] = []
        self._files = _file_system(self._url)

    def restore(self, store: Store) -> int:
        """Bring rows that a store lacks into it. Returns how many rows the parts have."""
        import pyarrow.parquet as parquet

        rows = 0
        try:
            for path in sorted(self._files.glob(f"{self._files._strip_protocol(self._url)}/part-*.parquet")):
                with self._files.open(path, "rb") as file:
                    for batch in parquet.ParquetFile(file).iter_batches():
                        columns = [batch.column(name).to_pylist() for name in _NAMES]
                        store.adopt(list(zip(*columns, strict=True)))
                        rows += batch.num_rows
        except FractionateError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise FractionateError(f"cluster.share {self._url} cannot be read: {_line(error)}") from None
        return rows

    def keep(self, database: bytes) -> None:
        """Keep the rows of a database that `Store.export` gave; they are written when there are enough for a part."""
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(database)
            self._waiting += connection.execute(f"SELECT {COLUMNS} FROM calls").fetchall()
        while len(self._waiting) >= PART:
            part, self._waiting = self._waiting[:PART], self._waiting[PART:]
            self._write(part)

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            part, self._waiting = self._waiting, []
            self._write(part)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        columns = dict(zip(_NAMES, map(list, zip(*rows, strict=True)), strict=True))
        name = f"{self._url}/part-{self._name}-{self._parts:05}.parquet"
        self._parts += 1
        try:
            self._files.makedirs(self._files._strip_protocol(self._url), exist_ok=True)
            with self._files.open(self._files._strip_protocol(name), "wb") as file:
                parquet.write_table(arrow.table(columns), file)
        except Exception as error:
            raise FractionateError(
                f"{name} cannot be written ({_line(error)}): fix it, or run without cluster.share; "
                "the run's own store has everything"
            ) from None


def _file_system(url: str) -> Any:
    try:
        import fsspec
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise missing_extra(error.name or "fsspec", "ray", "cluster.share") from None
    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        raise UsageError(f"cluster.share {url}: {_line(error)}") from None
    except Exception as error:
        raise UsageError(f"cluster.share {url} cannot be opened: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
