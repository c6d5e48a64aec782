"""How far what a student learnt carries: over data sets, over kinds of questions, beside other partners (paper §5.3).

Each row lays a student's cell beside another cell of the same test set, strategy and partner: the one of the part that
it stands in for (the teacher, the undistilled solver), or of a student of the same variant that learnt from other
data. The figures are those of the run's paired comparisons, so Holm's adjustment covers them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fractionate.analysis.comparisons import Comparison
from fractionate.analysis.contrasts import Contrast, mean, outcomes
from fractionate.analysis.matrix import Matrix, matrices
from fractionate.analysis.rule import Rule
from fractionate.datasets import parse_reference
from fractionate.types import Cell, Component, Role


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
            "value": _mean(found.a),
            "against_value": _mean(found.b),
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


def _mean(cell: Cell) -> float:
    return mean(outcomes(cell.columns, cell.metric))
