"""attempts/: the attempts of a large run as Parquet files, written as they come and read a column or a group at a time.

    attempts/cells.json              which cells there are, in order, and which files hold them
    attempts/questions-00.parquet    a test set's questions, one a row
    attempts/cell-000.parquet        a cell's attempts, a question's repeats one after another, in the same order

Each file is cut into groups of rows; nothing here ever holds more than one group of a file. The folder takes its name
when all of it is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fractionate.averages import mean_attempt
from fractionate.columns import AMOUNTS, FIELDS, Columns, digest, in_order_of_sight
from fractionate.errors import FractionateError, UsageError
from fractionate.files import write_text
from fractionate.run.cells import Pair, TestSet
from fractionate.run.parquet_file import (
    GROUP,
    open_file,
    open_writer,
    parquet,
    read_column,
    write_group,
    write_table,
)
from fractionate.types import ROLES, Attempt, Cell, Component, Decomposition, Problem, Score, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CELLS = "cells.json"
_OF_QUESTIONS = ("id_digest", "cluster_digest")
_OF_ATTEMPTS = tuple(name for name in FIELDS if name not in _OF_QUESTIONS)
_MEANS = ("exact_match", "f1", "lenient_exact_match", "lenient_f1", "latency_s")
_META = ("dataset", "split", "strategy", "stages", "label", "metric", "reference")


class PartsWriter:
    """Writes the attempts of a run, cell by cell, into a folder beside `folder`, which it replaces at the end."""

    def __init__(self, folder: Path) -> None:
        parquet(f"{folder}")
        if folder.exists() and not has_parts(folder):
            raise FractionateError(f"{folder} is in the way of the run's attempts: move it, or name another run.out")
        self._folder = folder
        self._new = folder.with_name(f".{folder.name}.part")
        self._cells: list[dict[str, Any]] = []
        self._questions: dict[str, _Questions] = {}
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(parents=True)

    def cell(self, test: TestSet, pair: Pair) -> CellWriter:
        """Return what keeps the attempts of the next cell."""
        if test.reference not in self._questions:
            path = self._new / f"questions-{len(self._questions):02}.parquet"
            write_table(path, _question_schema(), map(_question_row, test.problems))
            self._questions[test.reference] = _Questions(path, test.name, test.split)
        path = self._new / f"cell-{len(self._cells):03}.parquet"
        return CellWriter(path, self._questions[test.reference], test.repeats)

    def add(self, cell: Cell) -> None:
        """Note a cell whose attempts are all kept."""
        stored = cell.attempts
        assert isinstance(stored, StoredAttempts), "its attempts were kept here"
        row: dict[str, Any] = {name: getattr(cell, name) for name in _META}
        row |= {"decomposer": asdict(cell.decomposer), "solver": asdict(cell.solver), "repeats": stored.repeats}
        self._cells.append({**row, "questions": stored.questions.path.name, "attempts": stored.path.name})

    def finish(self) -> None:
        """Give the folder its name, with the cells so far."""
        write_text(
            json.dumps({"schema": 1, "cells": self._cells}, ensure_ascii=False, indent=1) + "\n", self._new / _CELLS
        )
        named = {row[what] for row in self._cells for what in ("questions", "attempts")}
        try:
            for file in self._new.glob("*.parquet"):
                if file.name not in named:
                    file.unlink()  # of a cell that was not worked through
            remove_parts(self._folder)
            self._new.rename(self._folder)
        except OSError as error:
            raise FractionateError(f"{self._folder} cannot be written: {error.strerror or error}") from None


def read_parts(folder: Path) -> list[Cell]:
    """Return the cells of a folder of parts. Raises UsageError where they cannot be read."""
    parquet(str(folder))
    questions: dict[str, _Questions] = {}
    cells = []
    try:
        table = json.loads((folder / _CELLS).read_text(encoding="utf-8"))
        for row in table["cells"]:
            name = row["questions"]
            of = questions.setdefault(name, _Questions(folder / name, row["dataset"], row["split"]))
            parts = [Component(**{**row[role], "learnt_from": tuple(row[role]["learnt_from"])}) for role in ROLES]
            attempts = StoredAttempts(folder / row["attempts"], of, row["repeats"])
            fields: dict[str, Any] = {name: row[name] for name in _META}
            cells.append(Cell(**fields, decomposer=parts[0], solver=parts[1], attempts=attempts))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} cannot be read ({error}): run fractionate evaluate again") from None
    return cells


def has_parts(folder: Path) -> bool:
    """Return whether a folder of parts was written to its end."""
    return (folder / _CELLS).is_file()


def remove_parts(folder: Path) -> None:
    """Remove a folder of parts; whatever else may have that name, or lie in it, stays."""
    if not has_parts(folder):
        return
    for pattern in (_CELLS, "cell-*.parquet", "questions-*.parquet"):
        for file in folder.glob(pattern):
            file.unlink()
    with suppress(OSError):
        folder.rmdir()


class CellWriter:
    """Keeps the attempts of one cell in its file, in groups."""

    def __init__(self, path: Path, questions: _Questions, repeats: int) -> None:
        self._path = path
        self._questions = questions
        self._repeats = repeats
        self._group = max(1, GROUP // repeats) * repeats
        self._waiting: list[Attempt] = []
        self._writer = open_writer(path, _attempt_schema())

    def append(self, attempt: Attempt) -> None:
        """Take the next attempt."""
        self._waiting.append(attempt)
        if len(self._waiting) == self._group:
            self._flush()

    def attempts(self) -> StoredAttempts:
        """End the file and return what it holds."""
        if self._waiting:
            self._flush()
        self._writer.close()
        return StoredAttempts(self._path, self._questions, self._repeats)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        columns: dict[str, list[Any]] = {name: [FIELDS[name][1](one) for one in waiting] for name in _OF_ATTEMPTS}
        columns |= {name: [read(one) for one in waiting] for name, read in _TEXTS.items()}
        columns["repeat"] = [place % self._repeats for place in range(len(waiting))]
        write_group(self._writer, self._path, columns)


_TEXTS: dict[str, Callable[[Attempt], Any]] = {
    "id": lambda one: one.problem.id,
    "output": lambda one: one.output,
    "prediction": lambda one: one.prediction,
    "decomposition": lambda one: one.decomposition.raw if one.decomposition else None,
    "decomposition_status": lambda one: one.decomposition.status if one.decomposition else None,
    "subquestions": lambda one: one.decomposition.subquestions if one.decomposition else None,
    "subquestions_dropped": lambda one: one.decomposition.dropped if one.decomposition else None,
    "what_failed": lambda one: one.failures,
    "who_was_cut_off": lambda one: one.cut_off,
}
_LISTS = ("prediction", "subquestions", "what_failed", "who_was_cut_off")


class StoredAttempts(Sequence[Attempt]):
    """A cell's attempts in a file: one a question, the mean of its repeats, made as they are asked for."""

    def __init__(self, path: Path, questions: _Questions, repeats: int) -> None:
        self.path = path
        self.questions = questions
        self.repeats = repeats
        self._last: tuple[int, list[Attempt]] = (-1, [])

    def __len__(self) -> int:
        return len(self.questions)

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = range(len(self))[place]
        group, within = divmod(at, self._in_group)
        if self._last[0] != group:
            self._last = (group, list(self._attempts(group)))
        return self._last[1][within]

    def __iter__(self) -> Iterator[Attempt]:
        for group in range(self._file.num_row_groups):
            yield from self._attempts(group)

    @cached_property
    def columns(self) -> Columns:
        """The attempts as arrays."""
        outputs = _Outputs(self)
        return outputs if self.repeats == 1 else _Means(self, outputs)

    def read(self, name: str) -> NDArray[Any]:
        """Return a column of numbers, a row an output."""
        return read_column(self._file, name)

    @property
    def _in_group(self) -> int:
        return max(1, GROUP // self.repeats)

    @cached_property
    def _file(self) -> Any:
        return open_file(self.path)

    def _attempts(self, group: int) -> Iterator[Attempt]:
        first = group * self._in_group
        names = [*_OF_ATTEMPTS, *_TEXTS]
        table = self._file.read_row_group(group, columns=names, use_threads=False).to_pydict()
        rows = zip(*(table[name] for name in names), strict=True)
        count = table_rows(table) // self.repeats
        for problem in self.questions.between(first, first + count):
            yield mean_attempt(
                [_attempt(problem, dict(zip(names, next(rows), strict=True))) for _ in range(self.repeats)]
            )


def table_rows(table: dict[str, list[Any]]) -> int:
    """Return the number of rows of a table of columns."""
    return len(next(iter(table.values())))


class _Questions:
    """A test set's questions in a file, read in groups; shared by the cells that ask them."""

    def __init__(self, path: Path, dataset: str, split: str) -> None:
        self.path = path
        self._dataset = dataset
        self._split = split
        self._last: tuple[int, list[Problem]] = (-1, [])

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def between(self, start: int, end: int) -> Iterator[Problem]:
        """Yield the questions from one place to another."""
        for place in range(start, end):
            group, within = divmod(place, GROUP)
            if self._last[0] != group:
                self._last = (group, self._group(group))
            yield self._last[1][within]

    @cached_property
    def ids(self) -> NDArray[np.uint64]:
        """What stands for each question."""
        return read_column(self._file, "id_digest")

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """The independent unit of each question."""
        return in_order_of_sight(read_column(self._file, "cluster_digest"))

    def read(self, name: str) -> NDArray[Any]:
        """Return a column of numbers."""
        return self.ids if name == "id_digest" else read_column(self._file, name)

    @cached_property
    def _file(self) -> Any:
        return open_file(self.path)

    def _group(self, group: int) -> list[Problem]:
        found = []
        for row in self._file.read_row_group(group, use_threads=False).drop_columns(list(_OF_QUESTIONS)).to_pylist():
            row["answers"] = tuple(tuple(answer) for answer in row["answers"])
            found.append(Problem(**row, dataset=self._dataset, split=self._split))
        return found


class _Outputs(Columns):
    """The columns of a cell's outputs."""

    def __init__(self, stored: StoredAttempts) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored) * self._stored.repeats

    def column(self, name: str) -> NDArray[Any]:
        import numpy as np

        if name not in _OF_QUESTIONS:
            return self._stored.read(name)
        of_questions = self._stored.questions.read(name)
        return of_questions if self._stored.repeats == 1 else np.repeat(of_questions, self._stored.repeats)

    @property
    def clusters(self) -> NDArray[np.int64]:
        import numpy as np

        return np.repeat(self._stored.questions.clusters, self._stored.repeats)


class _Means(Columns):
    """The columns of a cell's questions, each the mean over its repeats, as `averages.mean_attempt` makes it."""

    def __init__(self, stored: StoredAttempts, outputs: Columns) -> None:
        self._stored = stored
        self._outputs = outputs

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def outputs(self) -> Columns:
        return self._outputs

    @property
    def starts(self) -> NDArray[np.int64]:
        import numpy as np

        return np.arange(len(self)) * self.repeats

    @property
    def repeats(self) -> int:
        return self._stored.repeats

    @property
    def clusters(self) -> NDArray[np.int64]:
        return self._stored.questions.clusters

    def column(self, name: str) -> NDArray[Any]:
        import numpy as np

        if name in _OF_QUESTIONS:
            return self._stored.questions.read(name)
        if name in _MEANS:
            return self._sums(name) / self.repeats
        role, _, amount = name.partition("_")
        if amount not in AMOUNTS:
            kind, read = FIELDS[name]
            return np.fromiter(map(read, self._stored), dtype=kind, count=len(self))
        mean = self._sums(name) / self.repeats
        alike = np.logical_and.reduce([self._alike(f"{role}_{each}") for each in AMOUNTS])
        first = self._rows(name)[:, 0]
        return np.where(alike, first, mean if amount == "compute_s" else np.rint(mean)).astype(first.dtype)

    def _rows(self, name: str) -> NDArray[Any]:
        return self._outputs.column(name).reshape(len(self), self.repeats)

    def _sums(self, name: str) -> NDArray[Any]:
        """Return the sum over the repeats, added one after another as Python adds."""
        rows = self._rows(name)
        total = rows[:, 0].copy()
        for repeat in range(1, self.repeats):
            total += rows[:, repeat]
        return total

    def _alike(self, name: str) -> NDArray[np.bool_]:
        rows = self._rows(name)
        alike: NDArray[np.bool_] = (rows == rows[:, :1]).all(axis=1)
        return alike


def _attempt(problem: Problem, row: dict[str, Any]) -> Attempt:
    status = row["decomposition_status"]
    lenient = Score(row["lenient_exact_match"], row["lenient_f1"])
    return Attempt(
        problem=problem,
        prediction=None if row["prediction"] is None else tuple(row["prediction"]),
        score=Score(row["exact_match"], row["f1"]),
        output=row["output"],
        decomposition=None
        if status is None
        else Decomposition(tuple(row["subquestions"]), status, row["decomposition"], row["subquestions_dropped"]),
        fell_back=row["fell_back"],
        decomposer_usage=Usage(*(row[f"decomposer_{amount}"] for amount in AMOUNTS)),
        solver_usage=Usage(*(row[f"solver_{amount}"] for amount in AMOUNTS)),
        latency_s=row["latency_s"],
        failures=tuple(row["what_failed"]),
        cut_off=tuple(row["who_was_cut_off"]),
        lenient=None if lenient.exact_match != lenient.exact_match else lenient,
    )


def _question_row(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "index": problem.index,
        "kind": problem.kind,
        "group": problem.group,
        "question": problem.question,
        "context": problem.context,
        "answers": problem.answers,
        "id_digest": digest(problem.id),
        "cluster_digest": digest(problem.cluster),
    }


def _question_schema() -> Any:
    pa, _ = parquet("attempts/")
    texts = [(name, pa.string()) for name in ("id", "kind", "group", "question", "context")]
    numbers = [("index", pa.int64()), *((name, pa.uint64()) for name in _OF_QUESTIONS)]
    return pa.schema([*texts, ("answers", pa.list_(pa.list_(pa.string()))), *numbers])


def _attempt_schema() -> Any:
    pa, _ = parquet("attempts/")
    kinds = {"float64": pa.float64(), "bool": pa.bool_(), "int64": pa.int64(), "": pa.int64()}
    texts = [(name, pa.list_(pa.string()) if name in _LISTS else pa.string()) for name in _TEXTS]
    texts = [(name, pa.int64() if name == "subquestions_dropped" else kind) for name, kind in texts]
    return pa.schema([*texts, *((name, kinds[FIELDS[name][0]]) for name in _OF_ATTEMPTS), ("repeat", pa.int64())])
