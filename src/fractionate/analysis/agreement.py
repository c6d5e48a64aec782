"""How closely a student's decompositions follow the teacher's, on the very same questions.

Outcome is what counts, but it depends on the solver; agreement does not. A low agreement with an equal outcome says
that there are several good decompositions, a high one with a bad outcome that the solver is the bottleneck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fractionate.types import Cell, Component, Decomposition


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
        shared = {attempt.problem.id for attempt in reference.attempts}
        found += [
            _compare(cell, reference)
            for cell in decomposers.values()
            if cell is not reference and shared & {attempt.problem.id for attempt in cell.attempts}
        ]
    return found


def _reference(cells: Sequence[Cell]) -> Cell | None:
    """Return the teacher's cell, by whatever name it was asked, or else that of the reference decompositions."""
    order = [cell for kind in ("teacher", "gold") for cell in cells if cell.decomposer.kind == kind]
    return next((cell for cell in order if cell.decomposer.name == "teacher"), next(iter(order), None))


def _compare(cell: Cell, reference: Cell) -> Agreement:
    of_reference = {attempt.problem.id: attempt.decomposition for attempt in reference.attempts}
    pairs = [
        (_words(attempt.decomposition), _words(of_reference[attempt.problem.id]))
        for attempt in cell.attempts
        if attempt.problem.id in of_reference
    ]
    n = len(pairs)
    return Agreement(
        cell.dataset,
        cell.split,
        cell.decomposer.name,
        reference.decomposer.name,
        n,
        exact=sum(ours == theirs for ours, theirs in pairs) / n,
        token_f1=sum(_f1(_flat(ours), _flat(theirs)) for ours, theirs in pairs) / n,
        subquestions=sum(len(ours) for ours, _ in pairs) / n,
        reference_subquestions=sum(len(theirs) for _, theirs in pairs) / n,
    )


def _words(decomposition: Decomposition | None) -> list[list[str]]:
    return [question.lower().split() for question in decomposition.subquestions] if decomposition else []


def _flat(questions: list[list[str]]) -> list[str]:
    return [word for question in questions for word in question]


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))
