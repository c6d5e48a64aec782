"""A connection to a store's SQLite file: opening, transactions that wait for other processes, one-line errors."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from fractionate.calls.store_file import (
    BESIDE,
    BUSY_S,
    StoreFile,
    fix,
    has_column,
    has_no_room,
    is_busy,
    migrate,
    refuse_newer,
)
from fractionate.calls.stored_call import COLUMNS, DamagedRow
from fractionate.errors import FractionateError

BUSY_ONCE_S = 0.02
"""Seconds that SQLite itself waits for another process's lock; `_transaction` then tries again."""


class StoreBusy(Exception):  # noqa: N818 - a state, not an error
    """Another process is writing just now; try again in a moment."""


class StoreConnection:
    """One connection to a store's file, which opening creates or migrates to the newest schema.

    Raises FractionateError with one line if the file is no store, has a newer schema, or cannot be read or written.
    """

    is_shared = True
    """Whether other processes may have it open too."""

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        with self._clear_errors():
            self._file = StoreFile(self.path, read_only=read_only)
            self._connection = self._file.connection
            try:
                if not read_only:
                    self._connection.execute("PRAGMA journal_mode = WAL")
                    self._connection.execute("PRAGMA synchronous = NORMAL")
                (refuse_newer if read_only else migrate)(self._connection, str(self.path))
                self._connection.execute("PRAGMA wal_autocheckpoint = 4000")
                self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_ONCE_S * 1000)}")
                self._columns = COLUMNS if has_column(self._connection, "paid") else COLUMNS.replace("paid", "1")
                if not read_only:
                    self._file.remember()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was committed stays."""
        self._connection.close()

    @property
    def locks(self) -> Path:
        """The file of locks that processes which share the store see, whatever link they named it by."""
        return self._file.path.with_name(f"{self._file.path.name}-locks")

    @property
    def files(self) -> list[Path]:
        """All files that the store is made of: none of them is anybody else's to write."""
        return [self._file.path.with_name(self._file.path.name + end) for end in ("", *BESIDE)]

    def check_there(self) -> None:
        """Raise FractionateError if the file was deleted, moved or replaced since it was opened."""
        self._file.check_there()

    def has_room(self, size: int) -> bool:
        """Return whether the disk has room for so many bytes, as far as the file system says."""
        return self._file.has_room(size)

    def try_room(self, size: int) -> None:
        """Write so many bytes, to SQLite's log and to the file, and take them back.

        Raises FractionateError if there is no room for them: quotas and limits on the size of files show only so. What
        was set aside is used by the next rows.
        """
        try:
            self._transaction(lambda: self._connection.execute("INSERT INTO room VALUES (zeroblob(?))", (size,)))
            with self._clear_errors(), self._lock:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            with suppress(FractionateError):
                self._transaction(lambda: self._connection.execute("DELETE FROM room"))

    def _transaction(self, write: Callable[[], object], *, patience_s: float = BUSY_S) -> int:
        """Run `write` in one transaction; wait for other processes' unless told not to.

        Where there is no room for it, SQLite's log is emptied into the file first, which may have some.
        """
        deadline = time.monotonic() + patience_s
        emptied = False
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
                    if has_no_room(error) and not emptied:
                        emptied = True
                        with suppress(sqlite3.Error):
                            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                        continue
                    if not is_busy(error):
                        raise
                    if not patience_s:
                        raise StoreBusy from None
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.005)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn what SQLite and the file system say into one line with the fix."""
        try:
            yield
        except DamagedRow as damage:
            raise FractionateError(f"store {self.path} is damaged: {damage}: restore a copy") from None
        except (sqlite3.Error, OSError, OverflowError, UnicodeDecodeError) as error:
            raise FractionateError(f"store {self.path}: {fix(error)}") from None


def locked_out(path: Path) -> FractionateError:
    """Return the error for a store that another process would not let go of."""
    return FractionateError(f"store {path}: {fix(sqlite3.OperationalError('locked'))}")
