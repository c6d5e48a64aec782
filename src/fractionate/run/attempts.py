"""attempts.sqlite: every attempt of every cell, enough to make every report again without a call.

    cells       a cell a row: its fields as JSON, its test set, how often each question was answered
    questions   a question a row, as JSON, shared by the cells that ask it
    attempts    an attempt a row, as JSON: the same fields as in attempts.jsonl
    arrays      the numbers of the same attempts once more, as arrays: a column of a cell is read with one SELECT
    scores      a view for people: id, kind, exact match and F1 of each attempt

Rows stand at integers that anybody can compute (`number << 32 | place`), so that parts of a cell that were scored in
other processes are merged by SQLite alone, in any order (`pack_attempts`, `AttemptSink`).

The file is written beside its place and takes its name when the stage ends, as every other file of a run does. Nothing
here ever holds more than `GROUP` attempts.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fractionate.averages import MeanAttempts
from fractionate.columns import FIELDS, Columns, is_of_gold, is_of_tool, kind_of_tool_column, make_column, tool_columns
from fractionate.errors import FractionateError, UsageError
from fractionate.run.attempt_rows import (
    INVALID,
    attempt_lines,
    attempt_of,
    attempt_row,
    cell_of,
    cell_row,
    describe,
    problem_of,
    question_row,
    read_jsonl,
)
from fractionate.run.cells import Pair, TestSet
from fractionate.run.folder import RunFolder, write_rows
from fractionate.strategies.judge import Judge
from fractionate.types import Attempt, Cell, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 1024
"""Attempts that are written, and read, at a time."""
VERSION = 1
_PLACE_BITS = 32
_TABLES = f"""
PRAGMA user_version = {VERSION};
CREATE TABLE cells (cell INTEGER PRIMARY KEY, test_set INTEGER, questions INTEGER, repeats INTEGER, fields TEXT);
CREATE TABLE questions (question INTEGER PRIMARY KEY, fields TEXT);
CREATE TABLE attempts (attempt INTEGER PRIMARY KEY, cell INTEGER, question INTEGER, repeat INTEGER, fields TEXT);
CREATE TABLE arrays (cell INTEGER, name TEXT, first INTEGER, kind TEXT, packed BLOB, PRIMARY KEY (cell, name, first));
CREATE VIEW scores AS SELECT
    json_extract(c.fields, '$.reference') AS test_set, json_extract(c.fields, '$.strategy') AS strategy,
    json_extract(c.fields, '$.decomposer') AS decomposer, json_extract(c.fields, '$.solver') AS solver,
    json_extract(q.fields, '$.id') AS id, json_extract(q.fields, '$.kind') AS kind, a.repeat,
    json_extract(a.fields, '$.exact_match') AS exact_match, json_extract(a.fields, '$.f1') AS f1
    FROM attempts a JOIN cells c USING (cell) JOIN questions q USING (question);
"""


@dataclass(frozen=True, slots=True)
class CellKey:
    """Where a cell's attempts stand in the store. It can be sent to another process."""

    cell: int
    test_set: int
    repeats: int


class AttemptWriter:
    """Writes a run's attempts, cell by cell, into a new file that takes the place of `folder`'s when it is finished."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._beside = folder.attempts.with_name(f".{folder.attempts.name}.part")
        self._test_sets: dict[str, int] = {}
        self._written: set[int] = set()
        self._cells = 0
        with _writing(folder.attempts):
            folder.path.mkdir(parents=True, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            os.close(os.open(self._beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self.sink = AttemptSink(self._beside.resolve(), folder.attempts)
            self._database = self.sink.database
            self._database.executescript(_TABLES)

    def cell(self, test: TestSet, pair: Pair) -> CellWriter:
        """Return what takes the attempts of the next cell."""
        self._test_sets.setdefault(test.reference, len(self._test_sets))
        key = CellKey(self._cells, self._test_sets[test.reference], test.repeats)
        self._cells += 1
        cell = Cell(
            dataset=test.name,
            split=test.split,
            strategy=pair.strategy.name,
            stages=pair.strategy.stages,
            decomposer=pair.decomposer,
            solver=pair.solver,
            metric=test.metric,
            attempts=(),
            reference=test.reference,
            label=pair.strategy.label,
            judge=test.grader.identity if isinstance(test.grader, Judge) else "",
        )
        write_questions = partial(self._write_questions, key.test_set, test.problems)
        return CellWriter(key, self._database, self._folder.attempts, cell, len(test.problems), write_questions)

    def _write_questions(self, test_set: int, problems: Sequence[Problem]) -> None:
        """Write the questions of a test set with attempts made here. Shards write those of their own attempts."""
        if test_set not in self._written:
            self._written.add(test_set)
            _insert_questions(self._database, test_set, enumerate(problems))

    def finish(self, rows_at_most: int) -> list[Cell]:
        """Give the file its name, with the cells that were completed; write attempts.jsonl too where it is short.

        Returns the cells, read back.
        """
        target = self._folder.attempts
        with _writing(target):
            for table in ("attempts", "arrays"):
                self._database.execute(f"DELETE FROM {table} WHERE cell NOT IN (SELECT cell FROM cells)")
            self._database.close()
            with self._beside.open("rb") as file:
                os.fsync(file.fileno())
            self._beside.replace(target)
        cells = read_attempts(target)
        if sum(len(cell.columns.outputs) for cell in cells) <= rows_at_most:
            write_rows(self._folder.attempt_lines, attempt_lines(cells))
        else:
            self._folder.attempt_lines.unlink(missing_ok=True)
        return cells

    def close(self) -> None:
        """Drop what was not finished."""
        self._database.close()
        self._beside.unlink(missing_ok=True)


class AttemptSink:
    """Takes attempts that were packed in other processes (`pack_attempts`), and their questions.

    It is made for the file that an `AttemptWriter` is writing, and can be sent to another process of the same machine.
    """

    def __init__(self, beside: Path, path: Path) -> None:
        self._paths = beside, path

    def __reduce__(self) -> tuple[type[AttemptSink], tuple[Path, Path]]:
        return AttemptSink, self._paths

    @cached_property
    def database(self) -> sqlite3.Connection:
        """This process's connection to the file. A file that was cut off is never read, so it has no journal."""
        database = sqlite3.connect(self._paths[0], isolation_level=None, check_same_thread=False, timeout=60.0)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "ATTACH ':memory:' AS shard"):
            database.execute(statement)
        return database

    def __call__(self, packed: bytes) -> None:
        """Commit packed attempts. Raises FractionateError."""
        with _writing(self._paths[1]):
            self.database.deserialize(packed, name="shard")
            self.database.execute("BEGIN")
            self.database.execute("INSERT OR IGNORE INTO main.questions SELECT * FROM shard.questions")
            for table in ("attempts", "arrays"):
                self.database.execute(f"INSERT INTO main.{table} SELECT * FROM shard.{table}")
            self.database.execute("COMMIT")


@dataclass
class CellWriter:
    """Takes the attempts of one cell, a question's repeats one after another, or parts of them in any order."""

    key: CellKey
    _database: sqlite3.Connection
    _path: Path
    _cell: Cell
    _questions: int
    _write_questions: Callable[[], None]
    _first: int = 0
    _waiting: list[Attempt] = field(default_factory=list)

    def append(self, attempt: Attempt) -> None:
        """Take the next attempt."""
        self._waiting.append(attempt)
        if len(self._waiting) == GROUP:
            self._flush()

    def cell(self) -> Cell:
        """Return the cell, once all its attempts are there. Raises FractionateError where some are missing."""
        self._flush()
        with _writing(self._path):
            span = (first := self.key.cell << _PLACE_BITS), first + (1 << _PLACE_BITS) - 1
            ((found,),) = self._database.execute("SELECT count(*) FROM attempts WHERE attempt BETWEEN ? AND ?", span)
            if found != self._questions * self.key.repeats:
                raise FractionateError(f"{self._path}: {found:,} attempts of {self._questions * self.key.repeats:,}")
            values = (self.key.cell, self.key.test_set, self._questions, self.key.repeats, _json(cell_row(self._cell)))
            self._database.execute("INSERT INTO cells VALUES (?, ?, ?, ?, ?)", values)
        return _stored(self._database, self._path, self.key, self._cell, self._questions)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        with _writing(self._path):
            self._database.execute("BEGIN")
            if waiting:
                self._write_questions()
            _insert(self._database, self.key, self._first, waiting)
            self._database.execute("COMMIT")
        self._first += len(waiting)


def pack_attempts(parts: Iterable[tuple[CellKey, int, Sequence[Attempt]]]) -> bytes:
    """Return attempts, and their questions, as bytes for `AttemptSink`: of a cell those from a place on.

    The place of an attempt in its cell is the number of its question, from 0, times the repeats, plus its repeat.
    """
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        questions: dict[int, dict[int, Problem]] = {}
        for key, first, attempts in parts:
            _insert(database, key, first, attempts)
            own = questions.setdefault(key.test_set, {})
            own.update((place // key.repeats, attempt.problem) for place, attempt in enumerate(attempts, first))
        for test_set, problems in questions.items():
            _insert_questions(database, test_set, problems.items())
        database.commit()
        return database.serialize()


def _insert_questions(database: sqlite3.Connection, test_set: int, problems: Iterable[tuple[int, Problem]]) -> None:
    first = test_set << _PLACE_BITS
    rows = ((first + place, _json(question_row(problem))) for place, problem in problems)
    database.executemany("INSERT OR IGNORE INTO questions VALUES (?, ?)", rows)


def _insert(database: sqlite3.Connection, key: CellKey, first: int, attempts: Sequence[Attempt]) -> None:
    cell, question = key.cell << _PLACE_BITS, key.test_set << _PLACE_BITS
    rows = (
        (cell + place, key.cell, question + place // key.repeats, place % key.repeats, _json(attempt_row(attempt)))
        for place, attempt in enumerate(attempts, first)
    )
    database.executemany("INSERT INTO attempts VALUES (?, ?, ?, ?, ?)", rows)
    for name in (*FIELDS, *tool_columns(attempts)) if attempts else ():
        array = make_column(name, attempts)
        packed = zlib.compress(array.tobytes(), 1)
        database.execute("INSERT INTO arrays VALUES (?, ?, ?, ?, ?)", (key.cell, name, first, array.dtype.str, packed))


class StoredAttempts(Sequence[Attempt]):
    """All attempts of a cell in the store, a question's repeats one after another, made as they are asked for."""

    def __init__(self, database: sqlite3.Connection, path: Path, key: CellKey, cell: Cell, questions: int) -> None:
        self._database = database
        self._path = path
        self._key = key
        self._cell = cell
        self._count = questions * key.repeats
        self._last: tuple[int, list[Attempt]] = (-1, [])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        group, within = divmod(range(self._count)[place], GROUP)
        if self._last[0] != group:
            self._last = group, self._read(group * GROUP, min(self._count, (group + 1) * GROUP))
        return self._last[1][within]

    @cached_property
    def columns(self) -> Columns:
        """The attempts as arrays."""
        return _StoredColumns(self)

    def column(self, name: str) -> NDArray[Any]:
        """Return one of `FIELDS` or of a tool's columns, an entry an attempt. Raises UsageError for a damaged file."""
        import numpy as np

        with reading(self._path):
            query = "SELECT first, kind, packed FROM arrays WHERE cell = ? AND name = ? ORDER BY first"
            parts: list[NDArray[Any]] = []
            count = 0
            for first, kind, packed in self._database.execute(query, (self._key.cell, name)):
                if first > count and is_of_tool(name):  # no attempt between them used the tool
                    parts.append(np.zeros(first - count))
                    count = first
                if first != count:
                    raise ValueError(f"attempt {count} is not where it should be")
                parts.append(np.frombuffer(zlib.decompress(packed), dtype=np.dtype(kind)))
                count += len(parts[-1])
            if is_of_tool(name):
                parts.append(np.zeros(self._count - count))
                count = self._count
            if not count and is_of_gold(name):  # an older version wrote no gold
                return np.full(self._count, np.nan)
            if count != self._count:
                raise ValueError(f"{count} attempts are there, not {self._count}")
            if is_of_tool(name):
                return np.concatenate(parts).astype(kind_of_tool_column(name))
            return np.concatenate(parts) if parts else np.empty(0, dtype=FIELDS[name][0] or "int64")

    def _read(self, start: int, end: int) -> list[Attempt]:
        with reading(self._path):
            query = (
                "SELECT q.fields, a.fields FROM attempts a LEFT JOIN questions q USING (question) "
                "WHERE a.attempt BETWEEN ? AND ? ORDER BY a.attempt"
            )
            first = self._key.cell << _PLACE_BITS
            rows = self._database.execute(query, (first + start, first + end - 1)).fetchall()
            if len(rows) != end - start:
                raise ValueError(f"{end - start - len(rows)} attempts are missing")
            return [attempt_of(json.loads(own), problem_of(json.loads(asked), self._cell)) for asked, own in rows]


class _StoredColumns(Columns):
    def __init__(self, stored: StoredAttempts) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    def column(self, name: str) -> NDArray[Any]:
        return self._stored.column(name)


def read_attempts(path: Path) -> list[Cell]:
    """Return the cells of an attempts.sqlite; attempts are read as they are asked for. Raises UsageError."""
    with reading(path):
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise ValueError(f"its version is {version}, not {VERSION}")
        rows = database.execute("SELECT cell, test_set, questions, repeats, fields FROM cells ORDER BY cell").fetchall()
        cells = []
        for number, test_set, questions, repeats, fields in rows:
            for count in (number, test_set, questions, repeats - 1):
                if not isinstance(count, int) or not 0 <= count < 1 << _PLACE_BITS:
                    raise ValueError(f"{count!r} is no count")
            key, cell = CellKey(number, test_set, repeats), cell_of(json.loads(fields))
            cells.append(_stored(database, path, key, cell, questions))
        return cells


def _stored(database: sqlite3.Connection, path: Path, key: CellKey, cell: Cell, questions: int) -> Cell:
    """Return a cell with its attempts in the store."""
    stored = StoredAttempts(database, path, key, cell, questions)
    return replace(cell, attempts=MeanAttempts.of_repeats(stored, key.repeats))


def read_measured(folder: RunFolder) -> list[Cell]:
    """Return the cells in a run's folder. Raises UsageError where they cannot be read."""
    if folder.attempts.is_file():
        return read_attempts(folder.attempts)
    if (folder.path / "attempts" / "cells.json").is_file() and not folder.attempt_lines.is_file():
        raise UsageError(
            f"{folder.path} keeps its attempts as Parquet files, which this version does not read: run fractionate "
            "evaluate again (every call is in the store, so none is made again)"
        )
    return read_jsonl(folder.attempt_lines)


def is_measured(folder: RunFolder) -> bool:
    """Return whether a run's folder holds attempts."""
    return folder.attempts.is_file() or folder.attempt_lines.is_file()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a damaged file into one line that says what to do."""
    try:
        yield
    except (sqlite3.Error, zlib.error, MemoryError, OverflowError, *INVALID) as error:
        raise UsageError(f"{path} cannot be read ({describe(error)}): run fractionate evaluate again") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FractionateError(f"{path} cannot be written: {said}") from None


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields)  # ASCII: a reply may hold lone surrogates, which no UTF-8 can
