"""Paired comparisons of cells over the same questions, with Holm's adjustment over the whole family of a run.

The family is fixed before any number is seen, for each test set:

1. every student's pair against the undistilled pair under the same two-stage strategy, and single-stage students
   against the undistilled pair that is judged;
2. every two-stage cell against its solver's single-stage cells;
3. decomposers against each other, under the same strategy and solver;
4. two-stage strategies against each other, with the same decomposer and solver;
5. students as solvers, and their untuned base, against each other, under the same strategy and decomposer;
6. single-stage strategies against each other, with the same solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fractionate.analysis.pairs import (
    SINGLE_STAGE,
    TestSet,
    by_test_set,
    has_student_decomposer,
    has_student_solver,
    is_single_stage_student,
    judged_strategy,
    outcomes,
    pair_up,
    undistilled,
)
from fractionate.analysis.statistics import Difference, holm, paired_difference
from fractionate.config import Config
from fractionate.types import Cell


@dataclass(frozen=True, slots=True)
class Comparison:
    """a − b over the same questions, in [−1, 1]. `a` and `b` are cell names, unique in the run; `n` questions."""

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float
    test: str
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {name: getattr(self, name) for name in self.__slots__}


def compare(cells: Iterable[Cell], config: Config) -> list[Comparison]:
    """Return every comparison of the family, in its order, each pair once."""
    rows: list[tuple[str, str, int, Difference]] = []
    for test in by_test_set(cells):
        for a, b in _family(test, config):
            mine, theirs = pair_up(a, b)
            difference = paired_difference(
                outcomes(mine, a.metric),
                outcomes(theirs, a.metric),
                config.verdict.confidence,
            )
            rows.append((test.name(a), test.name(b), len(mine), difference))
    adjusted = holm([row[3].p_value for row in rows])
    return [
        Comparison(a, b, found.difference, found.low, found.high, found.p_value, adjusted_p, found.test, n)
        for (a, b, n, found), adjusted_p in zip(rows, adjusted, strict=True)
    ]


def _family(test: TestSet, config: Config) -> Iterator[tuple[Cell, Cell]]:
    seen: set[frozenset[int]] = set()
    sources = (
        _students(test, config),
        _single_stage_students(test, config),
        _baselines(test),
        _same_but_for(test.two_stage(), lambda cell: (cell.strategy, cell.solver)),
        _same_but_for(test.two_stage(), lambda cell: (cell.decomposer, cell.solver)),
        _same_but_for(
            [cell for cell in test.cells if config.variant(cell.solver) or cell.solver == "student"],
            lambda cell: (cell.strategy, cell.decomposer),
        ),
        _same_but_for(
            [cell for cell in test.cells if cell.strategy in SINGLE_STAGE], lambda cell: (cell.solver, "single stage")
        ),
    )
    for source in sources:
        for a, b in source:
            pair = frozenset((id(a), id(b)))
            if len(pair) == 2 and pair not in seen:
                seen.add(pair)
                yield a, b


def _students(test: TestSet, config: Config) -> Iterator[tuple[Cell, Cell]]:
    for cell in test.two_stage():
        reference = undistilled(test, cell.strategy, config)
        if reference is None:
            continue
        decomposer_fits = has_student_decomposer(cell, config) or cell.decomposer == reference.decomposer
        solver_fits = has_student_solver(cell, config) or cell.solver == reference.solver
        if decomposer_fits and solver_fits:
            yield cell, reference


def _single_stage_students(test: TestSet, config: Config) -> Iterator[tuple[Cell, Cell]]:
    reference = undistilled(test, judged_strategy(test, config), config)
    if reference is None:
        return
    for solver in dict.fromkeys(cell.solver for cell in test.cells):
        if is_single_stage_student(solver, config):
            yield from ((cell, reference) for cell in test.single_stage(solver))


def _baselines(test: TestSet) -> Iterator[tuple[Cell, Cell]]:
    for cell in test.two_stage():
        for baseline in test.single_stage(cell.solver):
            yield cell, baseline


def _same_but_for(cells: Sequence[Cell], key: Callable[[Cell], tuple[str, str]]) -> Iterator[tuple[Cell, Cell]]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    for members in groups.values():
        yield from combinations(members, 2)
