"""Several runs of one protocol (other seeds, other training draws) as one: a question counts with its mean over them.

The columns of a pooled cell keep scores and usage run by run: its intervals and tests take runs and questions as two
sources of chance (`statistics/seeds.py`, `statistics/dollars.py`), and with two or three runs they are honestly wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fractionate.averages import MeanAttempts
from fractionate.errors import UsageError
from fractionate.types import Cell

Key = tuple[str, str, str, str, str]


def pool_cells(runs: Mapping[str, Sequence[Cell]]) -> tuple[list[Cell], dict[Key, dict[str, float]]]:
    """Return pooled cells, and each one's value in every run that measured it, by run name.

    A cell that only some runs measured is pooled over those. Raises UsageError where runs asked a cell other questions.
    """
    found: dict[Key, dict[str, Cell]] = {}
    for name, cells in runs.items():
        for cell in cells:
            if name in found.setdefault(key_of(cell), {}):
                raise UsageError(f"{name} holds {_said(cell)} twice: its test sets cannot be told apart")
            found[key_of(cell)][name] = cell
    pooled = [_pool(of_run) for of_run in found.values()]
    values = {
        key: {name: sum(cell.values()) / max(len(cell.columns), 1) for name, cell in of_run.items()}
        for key, of_run in found.items()
    }
    return pooled, values


def key_of(cell: Cell) -> Key:
    """Return what makes a cell the same one in several runs."""
    return cell.dataset, cell.split, cell.strategy, cell.decomposer.name, cell.solver.name


def _pool(of_run: Mapping[str, Cell]) -> Cell:
    (first_name, first), *others = of_run.items()
    import numpy as np

    for name, cell in others:
        if not np.array_equal(cell.columns.ids, first.columns.ids):
            raise UsageError(f"{name} and {first_name} asked other questions in {_said(cell)}: they cannot be pooled")
    return replace(first, attempts=MeanAttempts([cell.attempts for cell in of_run.values()], pooled=True))


def _said(cell: Cell) -> str:
    return f"{cell.dataset}#{cell.split}/{cell.strategy}/{cell.decomposer.name}/{cell.solver.name}"
