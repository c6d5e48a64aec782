"""How closely a student's decompositions follow the teacher's, on the very same questions.

Outcome is what counts, but it depends on the solver; agreement does not. A low agreement with an equal outcome says
that there are several good decompositions, a high one with a bad outcome that the solver is the bottleneck.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fractionate.analysis.contrasts import paired_places
from fractionate.types import Cell, Component, Decomposition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Means over the questions of a test set: all in [0, 1] but the two counts of subquestions."""

    dataset: str
    split: str
    decomposer: str
    reference: str
    n: int
    exact: float
    """Share of questions whose subquestions are the reference's, word for word."""
    token_f1: float
    """F1 of the bags of words of all subquestions."""
    subquestions: float
    reference_subquestions: float


def measure_agreement(cells: Sequence[Cell]) -> list[Agreement]:
    """Compare every decomposer with the teacher (or the reference decompositions where the teacher has no cell)."""
    by_test: dict[tuple[str, str], dict[Component, Cell]] = {}
    for cell in cells:
        if cell.attempts and cell.stages == "two-stage":
            by_test.setdefault((cell.dataset, cell.split), {}).setdefault(cell.decomposer, cell)
    found = []
    for decomposers in by_test.values():
        reference = _reference(list(decomposers.values()))
        if reference is None:
            continue
        for cell in decomposers.values():
            if cell is not reference and len(pairs := _Pairs(cell, reference)):
                found.append(_compare(cell, reference, pairs))
    return found


def _reference(cells: Sequence[Cell]) -> Cell | None:
    """Return the teacher's cell, by whatever name it was asked, or else that of the reference decompositions."""
    order = [cell for kind in ("teacher", "gold") for cell in cells if cell.decomposer.kind == kind]
    return next((cell for cell in order if cell.decomposer.name == "teacher"), next(iter(order), None))


class _Pairs:
    """Both decompositions of every question that two cells share, read anew each time."""

    def __init__(self, a: Cell, b: Cell) -> None:
        self._cells = a, b
        self._places = paired_places(a, b)

    def __len__(self) -> int:
        mine, _ = self._places
        return len(self._cells[0].columns) if mine is None else len(mine)

    def __iter__(self) -> Iterator[tuple[Decomposition | None, Decomposition | None]]:
        return zip(*map(_decompositions, self._cells, self._places), strict=True)


def _compare(cell: Cell, reference: Cell, pairs: _Pairs) -> Agreement:
    figures = [array("d") for _ in range(4)]
    for mine, theirs in pairs:
        ours, others = _words(mine), _words(theirs)
        measured = (ours == others, _f1(_flat(ours), _flat(others)), len(ours), len(others))
        for column, figure in zip(figures, measured, strict=True):
            column.append(figure)
    exact, token_f1, subquestions, reference_subquestions = (sum(column) / len(pairs) for column in figures)
    return Agreement(
        cell.dataset,
        cell.split,
        cell.decomposer.name,
        reference.decomposer.name,
        len(pairs),
        exact,
        token_f1,
        subquestions,
        reference_subquestions,
    )


def _decompositions(cell: Cell, places: NDArray[np.int64] | None) -> Iterator[Decomposition | None]:
    """Yield what a cell's questions were decomposed into, of all questions or of those at some places."""
    if places is None:
        return (attempt.decomposition for attempt in cell.attempts)
    return (cell.attempts[place].decomposition for place in places.tolist())


def _words(decomposition: Decomposition | None) -> list[list[str]]:
    return [question.lower().split() for question in decomposition.subquestions] if decomposition else []


def _flat(questions: list[list[str]]) -> list[str]:
    return [word for question in questions for word in question]


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))
