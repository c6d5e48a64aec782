"""What a student learnt: how closely its decompositions follow the teacher's, and how far its gains carry.

Agreement does not depend on the solver; outcome does. A low agreement with an equal outcome says that there are several
good decompositions; a high one with a bad outcome says that the solver is the bottleneck.

Generalisation (paper §5.3) compares a student's cell with another cell of the same test set, strategy and partner: that
of the part which it replaces (the teacher, the undistilled solver), or of a student of the same variant that learnt
from other data. The figures are those of the run's paired comparisons, so Holm's adjustment covers them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fractionate.analysis.comparisons import Comparison
from fractionate.analysis.contrasts import Contrast, paired_places
from fractionate.analysis.corrections import value_of
from fractionate.analysis.matrix import Matrix, matrices
from fractionate.analysis.rule import Rule
from fractionate.datasets import parse_reference
from fractionate.types import Cell, Component, Decomposition, Role

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


@dataclass(frozen=True, slots=True)
class Generalisation:
    """A student's cell (a of the contrast) beside another component in the same place."""

    part: Role
    contrast: Contrast
    p_adjusted: float

    @property
    def student(self) -> Component:
        """The student."""
        return _component(self.contrast.a, self.part)

    @property
    def against(self) -> Component:
        """What it is laid beside."""
        return _component(self.contrast.b, self.part)

    @property
    def seen(self) -> Literal["yes", "no", ""]:
        """Whether it learnt from the test set's data and kinds of questions ("" where the references cannot tell)."""
        return covers(self.student.learnt_from, self.contrast.a.reference)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        found = self.contrast
        partner = found.a.solver if self.part == "decomposer" else found.a.decomposer
        return {
            "test_set": found.matrix.label,
            "part": self.part,
            "strategy": found.a.strategy,
            "partner": partner.name,
            "student": self.student.name,
            "learnt_from": list(self.student.learnt_from),
            "seen": self.seen,
            "against": self.against.name,
            "against_learnt_from": list(self.against.learnt_from),
            "n": found.n,
            "value": value_of(found.a),
            "against_value": value_of(found.b),
            **found.interval_fields(),
            "p_value": found.p_value,
            "p_adjusted": self.p_adjusted,
        }


def measure_generalisation(
    cells: Sequence[Cell], rule: Rule, comparisons: Sequence[Comparison]
) -> list[Generalisation]:
    """Return the rows of every student, in the order of the cells; none where each was tested on its own data alone."""
    of = {one.contrast.names: one for one in comparisons}
    rows = [
        row
        for matrix in matrices(cells)
        for part, cell, rival in _encounters(matrix, rule)
        if (row := _row(of, part, matrix.name(cell), matrix.name(rival)))
    ]
    own_names = any(row.student.name != row.student.variant for row in rows)
    return rows if own_names or any(row.seen == "no" for row in rows) else []


def covers(learnt_from: Sequence[str], test: str) -> Literal["yes", "no", ""]:
    """Return whether a test reference asks what training references taught: the same data set, no kind beside theirs.

    Files of the user's own (`jsonl:`, `traffic:`) have names that say nothing about what is in them: "" for these.
    """
    asked = parse_reference(test) if test else None
    taught = [parse_reference(reference) for reference in learnt_from]
    if asked is None or asked.name == "jsonl" or any(one.name in ("jsonl", "traffic") for one in taught):
        return ""
    same = [one for one in taught if one.name == asked.name]
    whole = any(not one.kinds for one in same)
    kinds = {kind for one in same for kind in one.kinds}
    return "yes" if same and (whole or (asked.kinds and kinds.issuperset(asked.kinds))) else "no"


def _encounters(matrix: Matrix, rule: Rule) -> Iterator[tuple[Role, Cell, Cell]]:
    parts: tuple[Role, Role] = ("decomposer", "solver")
    for cell in matrix.cells:
        for part in parts:
            if _component(cell, part).trained_for != part:
                continue
            for rival in matrix.cells:
                if _same_place(cell, rival, part) and _is_rival(matrix, cell, rival, part, rule):
                    yield part, cell, rival


def _same_place(cell: Cell, rival: Cell, part: Role) -> bool:
    other: Role = "solver" if part == "decomposer" else "decomposer"
    return cell is not rival and cell.strategy == rival.strategy and _component(cell, other) == _component(rival, other)


def _is_rival(matrix: Matrix, cell: Cell, rival: Cell, part: Role, rule: Rule) -> bool:
    """Whether the rival is the undistilled part, or a student of this variant that learnt more of the test's data."""
    mine, other = _component(cell, part), _component(rival, part)
    if part == "decomposer" and other.kind == "teacher":
        return True
    if part == "solver" and other == matrix.reference_solver(rule):
        return True
    if other.variant != mine.variant or other.learnt_from == mine.learnt_from:
        return False
    seen, rival_seen = (covers(one.learnt_from, cell.reference) for one in (mine, other))
    if seen != rival_seen:
        return rival_seen == "yes"
    order = list(dict.fromkeys(_component(one, part) for one in matrix.cells))
    return order.index(mine) > order.index(other)


def _row(of: dict[tuple[str, str], Comparison], part: Role, mine: str, theirs: str) -> Generalisation | None:
    """Return the row of a comparison that was made, either way round."""
    if found := of.get((mine, theirs)):
        return Generalisation(part, found.contrast, found.p_adjusted)
    if found := of.get((theirs, mine)):
        return Generalisation(part, found.contrast.reversed(), found.p_adjusted)
    return None


def _component(cell: Cell, part: Role) -> Component:
    return cell.decomposer if part == "decomposer" else cell.solver
