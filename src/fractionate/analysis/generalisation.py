"""How far what a student learnt carries: over data sets, over kinds of questions, beside other partners (paper §5.3).

Each row lays a student's cell beside another cell of the same test set, strategy and partner: the one of the part that
it stands in for (the teacher, the undistilled solver), or of a student of the same variant that learnt from other
data. The figures are those of the run's paired comparisons, so Holm's adjustment covers them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fractionate.analysis.comparisons import Comparison
from fractionate.analysis.pairs import TestSet, by_test_set, decomposes_as_teacher, reference_solver
from fractionate.config import DECOMPOSER_VARIANTS, Config
from fractionate.datasets import parse_reference
from fractionate.types import Cell, Role


@dataclass(frozen=True, slots=True)
class Generalisation:
    """A student against another player in the same place. Values and differences are shares of 1, over n questions."""

    test_set: str
    part: Role
    strategy: str
    partner: str
    student: str
    learnt_from: tuple[str, ...]
    seen: Literal["yes", "no", ""]
    """Whether it learnt from the test set's data and kinds of questions ("" where the references cannot tell)."""
    against: str
    against_learnt_from: tuple[str, ...]
    n: int
    value: float
    against_value: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def measure_generalisation(
    cells: Sequence[Cell], config: Config, comparisons: Sequence[Comparison]
) -> list[Generalisation]:
    """Return the rows of every student, in the order of the cells; none where each was tested on its own data alone."""
    of = {(one.a, one.b): one for one in comparisons}
    rows = [
        _row(test, part, cell, rival, compared, config)
        for test in by_test_set(cells)
        for part, cell, rival in _encounters(test, config)
        if (compared := of.get((test.name(cell), test.name(rival))) or _reversed(of, test, cell, rival))
    ]
    asked = bool(config.students) or any(row.seen == "no" for row in rows)
    return rows if asked else []


def covers(learnt_from: Sequence[str], test: str) -> Literal["yes", "no", ""]:
    """Return whether a test reference asks what training references taught: the same data set, no kind beside theirs.

    Files of the user's own (`jsonl:`) have names that say nothing about what is in them: "" for these.
    """
    asked = parse_reference(test) if test else None
    taught = [parse_reference(reference) for reference in learnt_from]
    if asked is None or asked.name == "jsonl" or any(one.name == "jsonl" for one in taught):
        return ""
    same = [one for one in taught if one.name == asked.name]
    whole = any(not one.kinds for one in same)
    kinds = {kind for one in same for kind in one.kinds}
    return "yes" if same and (whole or (asked.kinds and kinds.issuperset(asked.kinds))) else "no"


def _encounters(test: TestSet, config: Config) -> Iterator[tuple[Role, Cell, Cell]]:
    for cell in test.cells:
        for part, variant in (
            ("decomposer", config.variant(cell.decomposer)),
            ("solver", config.variant(cell.solver)),
        ):
            if not variant or (variant in DECOMPOSER_VARIANTS) != (part == "decomposer"):
                continue
            role: Role = "decomposer" if part == "decomposer" else "solver"
            for rival in test.cells:
                if _same_place(cell, rival, role) and _is_rival(test, cell, rival, role, config):
                    yield role, cell, rival


def _same_place(cell: Cell, rival: Cell, part: Role) -> bool:
    partners = (cell.solver, rival.solver) if part == "decomposer" else (cell.decomposer, rival.decomposer)
    return cell is not rival and cell.strategy == rival.strategy and partners[0] == partners[1]


def _is_rival(test: TestSet, cell: Cell, rival: Cell, part: Role, config: Config) -> bool:
    """Whether the rival is the undistilled part, or a student of this variant that learnt more of the test's data."""
    if part == "decomposer" and decomposes_as_teacher(rival, config):
        return True
    if part == "solver" and rival.solver == reference_solver(test, config):
        return True
    mine, other = _player(cell, part), _player(rival, part)
    if config.variant(other) != config.variant(mine) or _learnt_from(other, config) == _learnt_from(mine, config):
        return False
    seen, rival_seen = (covers(_learnt_from(name, config), cell.reference) for name in (mine, other))
    if seen != rival_seen:
        return rival_seen == "yes"
    order = list(config.students)
    return (order.index(mine) if mine in order else -1) > (order.index(other) if other in order else -1)


def _row(test: TestSet, part: Role, cell: Cell, rival: Cell, compared: Comparison, config: Config) -> Generalisation:
    mine, other = _player(cell, part), _player(rival, part)
    learnt_from = _learnt_from(mine, config)
    return Generalisation(
        test.label,
        part,
        cell.strategy,
        cell.solver if part == "decomposer" else cell.decomposer,
        mine,
        learnt_from,
        covers(learnt_from, cell.reference),
        other,
        _learnt_from(other, config) if config.variant(other) else (),
        compared.n,
        _mean(cell),
        _mean(rival),
        compared.difference,
        compared.ci_low,
        compared.ci_high,
        compared.p_value,
        compared.p_adjusted,
    )


def _reversed(of: dict[tuple[str, str], Comparison], test: TestSet, cell: Cell, rival: Cell) -> Comparison | None:
    found = of.get((test.name(rival), test.name(cell)))
    if found is None:
        return None
    return Comparison(
        found.b, found.a, -found.difference, -found.ci_high, -found.ci_low,
        found.p_value, found.p_adjusted, found.test, found.n,
    )  # fmt: skip


def _player(cell: Cell, part: Role) -> str:
    return cell.decomposer if part == "decomposer" else cell.solver


def _learnt_from(name: str, config: Config) -> tuple[str, ...]:
    own = config.students[name].train if name in config.students else []
    return tuple(own or config.data.train)


def _mean(cell: Cell) -> float:
    values = cell.values()
    return math.fsum(values) / len(values) if values else 0.0
