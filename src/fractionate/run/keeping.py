"""Where the attempts of a run are kept: a small run's in memory and in attempts.jsonl, a large one's in attempts/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fractionate.averages import mean_attempt
from fractionate.run.attempts import attempt_rows, read_cells
from fractionate.run.cells import Keeper, Pair, TestSet
from fractionate.run.folder import RunFolder, write_rows
from fractionate.run.parquet_file import parquet
from fractionate.run.parts import PartsWriter, has_parts, read_parts, remove_parts
from fractionate.run.run import Run
from fractionate.types import Attempt, Cell


class Keeping(Protocol):
    """Keeps the attempts of a run, cell by cell."""

    def cell(self, test: TestSet, pair: Pair) -> Keeper:
        """Return what keeps the attempts of the next cell."""

    def add(self, cell: Cell) -> None:
        """Note a cell that was worked through."""

    def finish(self) -> list[Cell]:
        """Leave the cells so far in the run's folder, in place of earlier ones, and return them."""


def keeping(run: Run) -> Keeping:
    """Return where a run's attempts are to be kept. Raises UsageError where that takes an extra that is missing."""
    return _InParts(run.folder) if is_large(run) else _InRows(run.folder)


def is_large(run: Run) -> bool:
    """Return whether a run makes more attempts than are held in memory."""
    asked = sum(len(test.problems) * test.repeats for test in run.data.tests)
    return asked * len(run.pairs()) > run.config.run.rows_at_most


def check_large(run: Run) -> None:
    """Raise UsageError, before anything is paid for, where a large run lacks what keeps its attempts."""
    if is_large(run):
        most = run.config.run.rows_at_most
        parquet(f"a run of more than {most:,} attempts (run.rows_at_most; above that many all are held in memory)")


def read_measured(folder: RunFolder) -> list[Cell]:
    """Return the cells in a run's folder, however they are kept. Raises UsageError where they cannot be read."""
    return read_parts(folder.parts) if has_parts(folder.parts) else read_cells(folder.attempts)


def is_measured(folder: RunFolder) -> bool:
    """Return whether a run's folder holds attempts."""
    return has_parts(folder.parts) or folder.attempts.is_file()


class _InRows:
    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._cells: list[Cell] = []

    def cell(self, test: TestSet, pair: Pair) -> Keeper:
        return _InMemory(test.repeats)

    def add(self, cell: Cell) -> None:
        self._cells.append(cell)

    def finish(self) -> list[Cell]:
        remove_parts(self._folder.parts)
        write_rows(self._folder.attempts, attempt_rows(self._cells))
        return self._cells


class _InParts:
    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._writer = PartsWriter(folder.parts)

    def cell(self, test: TestSet, pair: Pair) -> Keeper:
        return self._writer.cell(test, pair)

    def add(self, cell: Cell) -> None:
        self._writer.add(cell)

    def finish(self) -> list[Cell]:
        self._folder.attempts.unlink(missing_ok=True)
        self._writer.finish()
        return read_parts(self._folder.parts)


class _InMemory:
    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self._outputs: list[Attempt] = []

    def append(self, attempt: Attempt) -> None:
        self._outputs.append(attempt)

    def attempts(self) -> Sequence[Attempt]:
        starts = range(0, len(self._outputs), self._repeats)
        return tuple(mean_attempt(self._outputs[start : start + self._repeats]) for start in starts)
