"""The ledger of looks on disk: a table in the store of a project's calls, which no run's folder can reset."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.analysis.looks import Judged, Ledger, Look
from fractionate.analysis.matrix import matrices, of_whole_students
from fractionate.analysis.rule import Rule, Standing
from fractionate.analysis.systems import System
from fractionate.analysis.verdict import candidates_of
from fractionate.columns import digest
from fractionate.config import Config
from fractionate.errors import FractionateError
from fractionate.types import Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TABLE = """
CREATE TABLE IF NOT EXISTS looks (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    run TEXT NOT NULL,
    test_set TEXT NOT NULL,
    questions BLOB NOT NULL,      -- sorted 64-bit digests of the questions' texts
    candidates TEXT NOT NULL,     -- JSON
    fingerprint TEXT NOT NULL,    -- of settings, systems and outcomes
    parent INTEGER NOT NULL,      -- the look that this one extends, counted from 0; -1: none
    family INTEGER NOT NULL,
    sealed INTEGER NOT NULL
)
"""
_WAIT_S = 60.0


def enter_looks(store: Path, run: str, config: Config, cells: Sequence[Cell]) -> dict[str, Standing]:
    """Enter a verdict on measured cells in the ledger, and return where it stands, by test set.

    It is entered before anybody reads it, so that a report that fails afterwards is paid for too. Raises
    FractionateError where the ledger cannot be read or written.
    """
    rule, found = Rule.of(config), {}
    with _open(store) as connection:
        ledger = Ledger(_read(connection))
        for matrix in matrices(of_whole_students(cells)):
            reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
            if reference is None or not candidates_of(matrix, reference) or not rule.has_all_runs(reference):
                continue
            judged = Judged(matrix, rule, reference, _questions(reference))
            found[matrix.label] = ledger.standing(judged, sealed=rule.sealed)
            look = ledger.add(judged, sealed=rule.sealed)
            if look is not None:
                _write(connection, look, run)
    return found


class Compared(Judged):
    """What a comparison of two logs rests on: its settings, and what both systems scored at the shared questions."""

    def __init__(self, key: str, systems: Sequence[System], settings: Sequence[float]) -> None:
        """`key` names the series of comparisons that share one error."""
        import numpy as np

        first, *others = systems
        shared = [one for one in first.outcomes if all(one in other.outcomes for other in others)]
        asked = np.asarray([digest(f"{key}\0{one}") for one in shared], dtype=np.uint64)
        order = np.argsort(asked, kind="stable")
        self.test_set = f"compare {key}"
        self.candidates = ("new",)
        self.questions = asked[order]
        self._settings = repr(tuple(settings))
        self._scores = {
            f"{place}": np.asarray([system.outcomes[one] for one in shared], dtype=np.float64)[order]
            for place, system in enumerate(systems)
        }


def enter_comparison(
    file: Path, key: str, systems: Sequence[System], *, confidence: float, margin: float, looks: int | str
) -> tuple[float, str]:
    """Enter a comparison in a ledger of looks. Returns the confidence to compare at, and where it stands in words.

    `looks` is a budget: so many different comparisons under one key share the error in equal parts, whatever led to
    each. "any" sets no number: intervals hold at any look as questions are added to the same two systems, and other
    systems at the same questions get what the first comparison has left. The same comparison again is no new look.
    Raises FractionateError where the budget is used up, or the ledger cannot be kept.
    """
    judged = Compared(key, systems, (confidence, margin))
    with _open(file) as connection:
        ledger = Ledger(_read(connection))
        standing = ledger.standing(judged)
        before = sum(look.test_set == judged.test_set for look in ledger.looks)
        if isinstance(looks, int) and before >= looks and not standing.known:
            raise FractionateError(
                f"the budget of {looks} looks at {key!r} in {file} is used up: these questions can show no more; "
                "collect new ones under another --key"
            )
        look = ledger.add(judged)
        if look is not None:
            _write(connection, look, key)
    number = before + (not standing.known)
    if isinstance(looks, int):
        return 1 - (1 - confidence) / looks, f"look {number} of {looks} at {key!r}"
    rule = Rule(confidence=confidence, looks="any", standings={judged.test_set: standing})
    said = f"look {number} at {key!r}, at any time"
    return rule.confidence_at(judged.test_set, len(judged.questions)), said


@contextmanager
def _open(store: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(store, timeout=_WAIT_S, isolation_level=None)) as connection:
            connection.execute(_TABLE)
            # Two verdicts at once must not both be the first look.
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise FractionateError(
            f"the ledger of looks in {store} cannot be kept ({error}): a verdict without it is not valid"
        ) from None


def _read(connection: sqlite3.Connection) -> list[Look]:
    import numpy as np

    rows = connection.execute(
        "SELECT test_set, questions, candidates, fingerprint, parent, family, sealed FROM looks ORDER BY id"
    )
    return [
        Look(name, np.frombuffer(asked, dtype="<u8"), tuple(json.loads(told)), print_, parent, family, bool(sealed))
        for name, asked, told, print_, parent, family, sealed in rows
    ]


def _write(connection: sqlite3.Connection, look: Look, run: str) -> None:
    connection.execute(
        "INSERT INTO looks (at, run, test_set, questions, candidates, fingerprint, parent, family, sealed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            datetime.now(UTC).isoformat(timespec="seconds"),
            run,
            look.test_set,
            look.questions.astype("<u8").tobytes(),
            json.dumps(look.candidates),
            look.fingerprint,
            look.parent,
            look.family,
            look.sealed,
        ),
    )


def _questions(reference: Cell) -> NDArray[np.uint64]:
    """Return digests of the questions' texts: ids may name other questions in another file."""
    import numpy as np

    texts = (f"{one.problem.question}\0{one.problem.background}" for one in reference.attempts)
    return np.asarray([digest(text) for text in texts], dtype=np.uint64)
