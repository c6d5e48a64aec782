"""The store's schema, as numbered steps. A step, once released, is never edited: changes are new steps.

`PRAGMA user_version` holds the number of the last step a file has been through.
"""

from __future__ import annotations

import sqlite3

from fractionate.errors import FractionateError

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
