"""The file that a store is in: opening it, its schema, seeing that it is there and has room, and what its errors mean.

The schema is a list of numbered steps. A step, once released, is never edited: changes are new steps. `PRAGMA
user_version` holds the number of the last step that a file has been through.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from pathlib import Path

from fractionate.errors import FractionateError
from fractionate.files import make_private

BESIDE = ("-wal", "-shm", "-locks")
"""How the names of the files beside a store end: SQLite's log and its index, and the locks of calls."""
BUSY_S = 60.0
"""Seconds a write waits for other processes' writes before it gives up."""


class StoreFile:
    """One SQLite file and a connection to it.

    `path` is the file itself, whatever link it was named by: what lies beside it (SQLite's log, the locks of calls) is
    then the same for every process. Raises sqlite3.Error or OSError; `fix` turns those into a line.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = Path(os.path.realpath(path))
        if read_only:
            if not self.path.is_file():
                raise FractionateError(f"no store at {path}: give the SQLite file, or the folder that holds it")
            self.connection, copy = _open_to_read(self.path)
            if copy:
                weakref.finalize(self, shutil.rmtree, copy, ignore_errors=True)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_private(self.path)  # SQLite gives the files beside it the rights of this one
            for end in BESIDE:
                if (beside := self.path.with_name(self.path.name + end)).exists():
                    make_private(beside)
            self.connection = _connect(self.path, "mode=rwc")
        self._seen: tuple[int, int] | None = None

    def remember(self) -> None:
        """Take note of which file this is, once it exists; a file of two names is refused."""
        found = os.stat(self.path)
        if found.st_nlink > 1:
            # SQLite's log lies beside the name it was opened by: two names would be two logs of one file.
            raise FractionateError(
                f"store {self.path}: the file has {found.st_nlink} hard links, and SQLite needs it to have one: copy "
                "it, or name another with run.store"
            )
        self._seen = found.st_dev, found.st_ino

    def check_there(self) -> None:
        """Raise FractionateError if the file was deleted, moved or replaced since it was opened."""
        try:
            found = os.stat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._seen:
            raise FractionateError(
                f"store {self.path} was deleted, moved or replaced while this run was using it, so nothing more is "
                "sent: put it back, or run the same command again to begin a new one"
            )

    def has_room(self, size: int) -> bool:
        """Return whether the disk has room for so many bytes, as far as the file system says."""
        try:
            room = os.statvfs(self.path)
        except (OSError, AttributeError):  # gone, or Windows: the write that follows raises
            return True
        return room.f_bavail * room.f_frsize >= size


def _connect(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )


def _open_to_read(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open a file to read, also where SQLite cannot write the two files that it wants beside it.

    Returns the folder of a copy too, if it took one.
    """
    log = path.with_name(f"{path.name}-wal")
    # A connection that may write takes the files with it that SQLite made for it; one that may not leaves them behind.
    # Where there is a log already, it is another process's, or what one that died has left: then nothing is touched.
    connection = _connect(path, "mode=ro" if log.exists() else "mode=rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA user_version").fetchone()
        return connection, ""
    except sqlite3.OperationalError as error:
        connection.close()
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
    if log.is_file() and log.stat().st_size:
        # What was committed last is in the log alone, which can be read only where it may be written.
        folder = tempfile.mkdtemp(prefix="fractionate-store-")
        for file in (path, log):
            shutil.copy(file, folder)
        return _connect(Path(folder) / path.name, "mode=rw"), folder
    return _connect(path, "mode=ro&immutable=1"), ""


def fix(error: Exception) -> str:
    """Return what an error of SQLite or of the file system means and what fixes it, in one line."""
    text = " ".join(str(error).split())
    if "not a database" in text:
        return f"this file is no fractionate store ({text}): choose another with run.store, or move it away"
    if "malformed" in text or "corrupt" in text:
        return (
            f"the file is damaged ({text}): restore a copy, or move it away and rescue what can be read with "
            "'sqlite3 FILE .recover'"
        )
    if "no such table" in text or "no such column" in text or "already exists" in text or "duplicate column" in text:
        return f"this SQLite file is not a fractionate store ({text}): choose another with run.store"
    if "readonly" in text or "read-only" in text.lower() or isinstance(error, PermissionError):
        return "it cannot be written (read-only): give write permission, or choose another file with run.store"
    if "is full" in text or "No space left" in text:
        return "the disk is full: free some room and run the same command again; what was committed is kept"
    if "disk I/O error" in text:
        return (
            "the disk gave an error, or a limit on the size of files was reached: check both and run the same command "
            "again; what was committed is kept"
        )
    if "locked" in text or "busy" in text:
        return f"another process has kept it locked for {BUSY_S:.0f} s: wait for it or stop it, then run again"
    if "unable to open" in text:
        return "it cannot be opened: check that it is a file, and that its folder exists and may be written"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: check the path"
    return f"SQLite says {text!r}: check the disk, or choose another file with run.store"


def has_no_room(error: sqlite3.Error) -> bool:
    """Return whether a write failed for want of room; past a limit on files it is a plain I/O error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether an error says that another process is in the middle of a transaction."""
    code = getattr(error, "sqlite_errorcode", 0)  # what the module raises by itself, before SQLite is asked, has none
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


STEPS: tuple[tuple[str, ...], ...] = (
    # 1: one row a completed call. Usage is kept raw; dollars are computed when they are reported.
    (
        """
        CREATE TABLE calls (
            key TEXT PRIMARY KEY,            -- SHA-256 (hex) of all that decides the reply
            model TEXT NOT NULL,             -- the name in the model grammar
            identity TEXT NOT NULL,          -- what the key was made with: name, endpoint or weights
            run TEXT NOT NULL,               -- the run that made (and paid for) the call
            role TEXT NOT NULL,              -- decomposer or solver
            request TEXT NOT NULL,           -- JSON: messages, max_tokens, temperature, stop, sample, response_format
            text TEXT NOT NULL,
            reasoning TEXT NOT NULL,
            finish_reason TEXT NOT NULL,
            error TEXT NOT NULL,
            calls INTEGER NOT NULL,
            input_tokens INTEGER NOT NULL,
            cached_input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            compute_s REAL NOT NULL,
            counted INTEGER NOT NULL,
            latency_s REAL NOT NULL,
            created REAL NOT NULL            -- seconds since 1970, UTC
        )
        """,
    ),
    # 2: money reserved for calls in flight, so that a killed process's calls still count against the cap.
    (
        """
        CREATE TABLE holds (
            run TEXT NOT NULL,
            holder TEXT NOT NULL,            -- one process's hold on the budget
            role TEXT NOT NULL,
            usd REAL NOT NULL,
            tokens INTEGER NOT NULL,
            PRIMARY KEY (run, holder, role)
        ) WITHOUT ROWID
        """,
    ),
    # 3: batches handed to a provider's batch endpoint, so that a restarted run polls instead of paying again.
    (
        """
        CREATE TABLE batches (
            id TEXT PRIMARY KEY,             -- the provider's batch id, or "local-…" while it is being submitted
            identity TEXT NOT NULL,
            run TEXT NOT NULL,
            keys TEXT NOT NULL,              -- JSON list of the store keys it holds
            state TEXT NOT NULL,             -- open or done
            created REAL NOT NULL
        )
        """,
    ),
    # 4: what runs have spent, apart from the replies: whether a call was paid for, and what purged calls had used.
    (
        "ALTER TABLE calls ADD COLUMN paid INTEGER NOT NULL DEFAULT 1",
        "UPDATE calls SET paid = 0 WHERE model LIKE 'local:%' OR model LIKE 'recorded:%' OR model LIKE 'echo:%'",
        "CREATE INDEX calls_of_run ON calls (run)",
        """
        CREATE TABLE purged (
            run TEXT NOT NULL,
            model TEXT NOT NULL,
            role TEXT NOT NULL,
            calls INTEGER NOT NULL,          -- one call's usage, as in the table of calls
            input_tokens INTEGER NOT NULL,
            cached_input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL,
            counted INTEGER NOT NULL,
            rows INTEGER NOT NULL            -- how many purged calls had used just that
        )
        """,
        "CREATE TABLE room (bytes BLOB)",  # written to and emptied again, to see that the disk has room
    ),
)

LATEST = len(STEPS)


def refuse_newer(connection: sqlite3.Connection, path: str) -> None:
    """Raise FractionateError if a store has been through steps that this version does not know."""
    version = _version(connection)
    if version > LATEST:
        raise FractionateError(
            f"{path} was written by a newer fractionate (schema {version}, this one knows {LATEST}): upgrade, "
            "or choose another file with run.store"
        )


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring a store's schema up to date, each step in a transaction of its own. Raises for a newer schema."""
    if _version(connection) == LATEST:
        return
    for number, statements in enumerate(STEPS, start=1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again under the lock: another process may have taken this step meanwhile.
            refuse_newer(connection, path)
            if _version(connection) < number:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def has_column(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether the table of calls has a column: one that is opened to be read may be of an older schema."""
    return name in {row[1] for row in connection.execute("PRAGMA table_info(calls)")}


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
