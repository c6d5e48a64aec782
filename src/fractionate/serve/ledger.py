"""Hard budgets of a server: the most that a call can cost is reserved on disk before the call leaves.

The ledger is an SQLite file in the run's folder (0600), with one row for each account: the server's, and one for each
key. It outlives every process. What a killed server had reserved stays reserved, since the provider may bill those
calls.

A server that ignores `max_tokens` makes a call cost more than was reserved. From the first such call on, each call to
that model reserves at least the dearest one seen, so that a budget is passed by calls that were in flight at that
moment, and no further.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fractionate.analysis.pricing import Pricing
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Model
from fractionate.models.faults import PermanentFault
from fractionate.models.tokens import BYTES_PER_TOKEN
from fractionate.serve.errors import Refusal
from fractionate.types import Request, Usage

SERVER = "server"
"""The account that every paid call counts for."""
_LONGEST_TOKEN = 2 * BYTES_PER_TOKEN
"""Bytes per token over a whole reply that no text reaches: prose has 3.5 to 4.7 (`models/tokens.py`)."""
_LEAST_EXCESS = 64
"""Bytes of a reply that never count as an excess: a few long words may be few tokens."""
_EPSILON = 1e-9
_TABLES = (
    "CREATE TABLE IF NOT EXISTS accounts "
    "(name TEXT PRIMARY KEY, spent REAL NOT NULL DEFAULT 0, held REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS overruns (model TEXT PRIMARY KEY, usd REAL NOT NULL)",
)


@dataclass(slots=True)
class Reservation:
    """What one call in flight has reserved: dollars, for the server and for one account.

    `read` are the bytes of text that a stream has brought, `excess` the estimated usage of text beyond the reservation.
    """

    account: str
    model: str
    usd: float
    max_tokens: int
    read: int = 0
    excess: Usage | None = None

    def take(self, text: str) -> None:
        """Count the next text of a stream. Raises PermanentFault where its text has passed what was reserved.

        The connection closes then, so that the server has no reason to go on.
        """
        self.read += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if self.read > self.max_tokens * _LONGEST_TOKEN + _LEAST_EXCESS:
            self.excess = Usage(1, 0, 0, int(self.read / BYTES_PER_TOKEN))
            said = f"{self.model} writes more than the {self.max_tokens:,} tokens that it was allowed: reading stops"
            raise PermanentFault("max_tokens ignored", said, maybe_paid=True)


class Ledger:
    """What may be spent: `usd` dollars by the whole server, `usd_per_key` by each account; None bounds nothing.

    Raises FractionateError where the file at `path` cannot be used.
    """

    def __init__(self, path: Path, pricing: Pricing, usd: float | None, usd_per_key: float | None) -> None:
        self.path = path
        self._pricing = pricing
        self._caps = {"server": usd, "key": usd_per_key}
        self.active = usd is not None or usd_per_key is not None
        self._connection: sqlite3.Connection | None = None
        self._dearest: dict[str, float] = {}
        """Dollars of the dearest call that passed its reservation, by model."""
        if self.active:
            try:
                self._connection = _opened(path)
                self._dearest = dict(self._connection.execute("SELECT model, usd FROM overruns"))
            except (sqlite3.Error, OSError) as error:
                raise FractionateError(f"the ledger {path} cannot be opened: {error}") from None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def check_priced(self, model: Model) -> None:
        """Raise UsageError where a budget is to be kept and the price of a model is unknown."""
        if self.active and model.paid and self._pricing.usd(model.name, Usage(1, 1, 0, 1)) is None:
            raise UsageError(
                f'no price is known for {model.name}, so no budget can be kept: give [prices."{model.name}"] '
                "input_per_million and output_per_million (0 if it is free) in the run's config and report again"
            )

    def check_left(self, account: str) -> None:
        """Raise Refusal (402) where a budget is used up, so that no answer is begun that cannot be finished."""
        if self.active:
            for name, what, cap in self._accounts(account):
                if cap is not None and self.spent(name) >= cap:
                    raise self._refusal(what, name, cap)

    def reserve(self, account: str, model: Model, request: Request) -> Reservation | None:
        """Reserve the most that a call can cost, on disk when this returns; None where nothing has to be reserved.

        Raises Refusal (402) if it does not fit.
        """
        if not (self.active and model.paid):
            return None
        usage = model.most_usage(request)
        cached = replace(usage, cached_input_tokens=usage.input_tokens)
        bound = max(self._pricing.usd(model.name, each) or 0.0 for each in (usage, cached))
        usd = max(bound, self._dearest.get(model.name, 0.0))
        with self._transaction() as connection:
            for name, what, cap in self._accounts(account):
                most = float("inf") if cap is None else cap + _EPSILON
                connection.execute("INSERT OR IGNORE INTO accounts (name) VALUES (?)", (name,))
                fits = connection.execute(
                    "UPDATE accounts SET held = held + :usd WHERE name = :name AND spent + held + :usd <= :most",
                    {"usd": usd, "name": name, "most": most},
                ).rowcount
                if not fits:
                    raise self._refusal(what, name, cap or 0.0)
        return Reservation(account, model.name, usd, request.max_tokens)

    def charge(self, reservation: Reservation | None, usd: float | None, *, estimated: bool = False) -> None:
        """Replace a reservation by the cost of its call; where the cost is unknown (None), by all of it.

        An `estimated` cost, of a reply without usage, counts where it is above the reservation.
        """
        if reservation is None:
            return
        cost = reservation.usd if usd is None else max(usd, reservation.usd) if estimated else usd
        if reservation.excess is not None:
            cost = reservation.usd + (self._pricing.usd(reservation.model, reservation.excess) or 0.0)
        with self._transaction() as connection:
            for name, _, _ in self._accounts(reservation.account):
                connection.execute(
                    "UPDATE accounts SET held = max(0, held - ?), spent = spent + ? WHERE name = ?",
                    (reservation.usd, cost, name),
                )
            if cost > max(reservation.usd + _EPSILON, self._dearest.get(reservation.model, 0.0)):
                self._dearest[reservation.model] = cost
                connection.execute("INSERT OR REPLACE INTO overruns VALUES (?, ?)", (reservation.model, cost))

    def spent(self, name: str = SERVER) -> float:
        """Return the dollars that an account has spent or reserved."""
        if self._connection is None:
            return 0.0
        row = self._connection.execute("SELECT spent + held FROM accounts WHERE name = ?", (name,)).fetchone()
        return float(row[0]) if row else 0.0

    def _accounts(self, account: str) -> tuple[tuple[str, str, float | None], ...]:
        return (SERVER, "the server", self._caps["server"]), (account, "this key", self._caps["key"])

    def _refusal(self, what: str, name: str, cap: float) -> Refusal:
        option = "--budget-usd" if name == SERVER else "--budget-usd-per-key"
        said = f"the budget of {what} ({option} {cap:g}) is used up: ${self.spent(name):.4f} are spent or reserved"
        return Refusal(402, said, code="budget_reached")

    def _transaction(self) -> _Transaction:
        assert self._connection is not None, "no ledger is kept without a budget"
        return _Transaction(self._connection, self.path)


class _Transaction:
    """All or nothing. Where the file cannot be written, no call leaves."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error as failed:
            raise self._unwritable(failed) from None
        if isinstance(error, sqlite3.Error):
            raise self._unwritable(error) from None

    def _unwritable(self, error: sqlite3.Error) -> Refusal:
        return Refusal(503, f"the ledger {self._path.name} cannot be written: {error}", code="no_ledger")


def _opened(path: Path) -> sqlite3.Connection:
    """Open a ledger that its owner alone can read. SQLite gives its journals the rights of the database."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with suppress(PermissionError):  # another owner's file: its rights are not ours to change
        path.chmod(0o600)
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    for table in _TABLES:
        connection.execute(table)
    return connection
