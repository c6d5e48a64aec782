"""Hard budgets of a server: what a call may cost at most is set aside, on disk, before the call leaves.

The book is an SQLite file in the run's folder, with one row per account: the server's, and one per key. It outlives
every process. What a killed server had set aside stays set aside, since the provider may bill those calls.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from fractionate.analysis.pricing import Pricing
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Model
from fractionate.serve.refusals import Refusal
from fractionate.types import Request, Usage

SERVER = "server"
"""The account that every paid call counts for."""
_EPSILON = 1e-9
_TABLE = (
    "CREATE TABLE IF NOT EXISTS accounts "
    "(name TEXT PRIMARY KEY, spent REAL NOT NULL DEFAULT 0, held REAL NOT NULL DEFAULT 0)"
)


@dataclass(frozen=True, slots=True)
class Held:
    """What one call in flight has set aside: dollars, for the server and for one account."""

    account: str
    usd: float


class Spending:
    """What may be spent: `usd` dollars by the whole server, `usd_per_key` by each account; None bounds nothing.

    Raises FractionateError where the book at `path` cannot be used.
    """

    def __init__(self, path: Path, pricing: Pricing, usd: float | None, usd_per_key: float | None) -> None:
        self.path = path
        self._pricing = pricing
        self._caps = {"server": usd, "key": usd_per_key}
        self.active = usd is not None or usd_per_key is not None
        self._book: sqlite3.Connection | None = None
        if self.active:
            try:
                self._book = sqlite3.connect(path, isolation_level=None, timeout=5)
                self._book.execute("PRAGMA journal_mode = WAL")
                self._book.execute("PRAGMA synchronous = NORMAL")
                self._book.execute(_TABLE)
            except sqlite3.Error as error:
                raise FractionateError(f"the book of spending {path} cannot be opened: {error}") from None

    def close(self) -> None:
        """Close the book."""
        if self._book is not None:
            self._book.close()
            self._book = None

    def check_priced(self, model: Model) -> None:
        """Raise UsageError where a budget is to be kept and what a model's calls cost is not known."""
        if self.active and model.paid and self._pricing.usd(model.name, Usage(1, 1, 0, 1)) is None:
            raise UsageError(
                f'no price is known for {model.name}, so no budget can be kept: give [prices."{model.name}"] '
                "input_per_million and output_per_million (0 if it is free) in the run's config and report again"
            )

    def check_left(self, account: str) -> None:
        """Raise Refusal (402) where a budget is used up, so that nothing is begun that cannot be ended."""
        if self.active:
            for name, what, cap in self._accounts(account):
                if cap is not None and self.spent(name) >= cap:
                    raise self._refusal(what, name, cap)

    def hold(self, account: str, model: Model, request: Request) -> Held | None:
        """Set aside what a call can cost at most, on disk when this returns; None where nothing has to be.

        Raises Refusal (402) if it does not fit.
        """
        if not (self.active and model.paid):
            return None
        usage = model.most_usage(request)
        cached = replace(usage, cached_input_tokens=usage.input_tokens)
        usd = max(self._pricing.usd(model.name, each) or 0.0 for each in (usage, cached))
        with self._transaction() as book:
            for name, what, cap in self._accounts(account):
                most = float("inf") if cap is None else cap + _EPSILON
                book.execute("INSERT OR IGNORE INTO accounts (name) VALUES (?)", (name,))
                fits = book.execute(
                    "UPDATE accounts SET held = held + :usd WHERE name = :name AND spent + held + :usd <= :most",
                    {"usd": usd, "name": name, "most": most},
                ).rowcount
                if not fits:
                    raise self._refusal(what, name, cap or 0.0)
        return Held(account, usd)

    def settle(self, held: Held | None, usd: float | None) -> None:
        """Replace what was set aside by what the call has cost; None where that is not known: then by all of it."""
        if held is None:
            return
        cost = held.usd if usd is None else usd
        with self._transaction() as book:
            for name, _, _ in self._accounts(held.account):
                book.execute(
                    "UPDATE accounts SET held = max(0, held - ?), spent = spent + ? WHERE name = ?",
                    (held.usd, cost, name),
                )

    def spent(self, name: str = SERVER) -> float:
        """Return the dollars that an account has spent or set aside."""
        if self._book is None:
            return 0.0
        row = self._book.execute("SELECT spent + held FROM accounts WHERE name = ?", (name,)).fetchone()
        return float(row[0]) if row else 0.0

    def _accounts(self, account: str) -> tuple[tuple[str, str, float | None], ...]:
        return (SERVER, "the server", self._caps["server"]), (account, "this key", self._caps["key"])

    def _refusal(self, what: str, name: str, cap: float) -> Refusal:
        option = "--budget-usd" if name == SERVER else "--budget-usd-per-key"
        said = f"the budget of {what} ({option} {cap:g}) is used up: ${self.spent(name):.4f} are spent or set aside"
        return Refusal(402, said, code="budget_reached")

    def _transaction(self) -> _Transaction:
        assert self._book is not None, "no book is kept without a budget"
        return _Transaction(self._book, self.path)


class _Transaction:
    """All or nothing. An unwritable book lets nothing be spent."""

    def __init__(self, book: sqlite3.Connection, path: Path) -> None:
        self._book = book
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._book.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return self._book

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._book.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error as failed:
            raise self._unwritable(failed) from None
        if isinstance(error, sqlite3.Error):
            raise self._unwritable(error) from None

    def _unwritable(self, error: sqlite3.Error) -> Refusal:
        return Refusal(503, f"the book of spending {self._path.name} cannot be written: {error}", code="no_book")
