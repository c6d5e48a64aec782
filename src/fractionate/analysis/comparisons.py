"""Paired comparisons of cells over the same questions, with Holm's adjustment over the whole family of a run.

The family is fixed before any number is seen, for each test set:

1. every student's pair against the undistilled pair under the same two-stage strategy, and single-stage students
   against the undistilled pair that is judged;
2. every two-stage cell against its solver's single-stage cells;
3. decomposers against each other, under the same strategy and solver;
4. two-stage strategies against each other, with the same decomposer and solver;
5. students as solvers, and their untrained base, against each other, under the same strategy and decomposer;
6. single-stage strategies against each other, with the same solver.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.matrix import Matrix, is_candidate_decomposer, is_candidate_solver, matrices
from fractionate.analysis.rule import Rule
from fractionate.analysis.statistics import holm
from fractionate.types import Cell


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contrast of the family, and its p-value adjusted over all of them."""

    contrast: Contrast
    p_adjusted: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        found = self.contrast
        a, b = found.names
        return {
            "a": a,
            "b": b,
            **found.interval_fields(),
            "p_value": found.p_value,
            "p_adjusted": self.p_adjusted,
            "test": found.test,
            "n": found.n,
        }


def compare(cells: Iterable[Cell], rule: Rule) -> list[Comparison]:
    """Return every comparison of the family, in its order, each pair once."""
    found = [contrast(matrix, a, b, rule) for matrix in matrices(cells) for a, b in _family(matrix, rule)]
    adjusted = holm([one.p_value for one in found])
    return [Comparison(one, p) for one, p in zip(found, adjusted, strict=True)]


def _family(matrix: Matrix, rule: Rule) -> Iterator[tuple[Cell, Cell]]:
    seen: set[frozenset[int]] = set()
    two_stage = matrix.two_stage()
    sources = (
        _students(matrix, rule),
        _single_stage_students(matrix, rule),
        _baselines(matrix),
        _same_but_for(two_stage, lambda cell: (cell.strategy, cell.solver)),
        _same_but_for(two_stage, lambda cell: (cell.decomposer, cell.solver)),
        _same_but_for(
            [cell for cell in matrix.cells if cell.solver.kind in ("student", "base")],
            lambda cell: (cell.strategy, cell.decomposer),
        ),
        _same_but_for(matrix.single_stage(), lambda cell: cell.solver),
    )
    for source in sources:
        for a, b in source:
            pair = frozenset((id(a), id(b)))
            if len(pair) == 2 and pair not in seen:
                seen.add(pair)
                yield a, b


def _students(matrix: Matrix, rule: Rule) -> Iterator[tuple[Cell, Cell]]:
    for cell in matrix.two_stage():
        reference = matrix.undistilled(cell.strategy, rule)
        if reference is None:
            continue
        decomposer_fits = is_candidate_decomposer(cell.decomposer) or cell.decomposer == reference.decomposer
        solver_fits = is_candidate_solver(cell.solver) or cell.solver == reference.solver
        if decomposer_fits and solver_fits:
            yield cell, reference


def _single_stage_students(matrix: Matrix, rule: Rule) -> Iterator[tuple[Cell, Cell]]:
    reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
    if reference is None:
        return
    for solver in dict.fromkeys(cell.solver for cell in matrix.cells):
        if solver.variant.startswith("S-"):
            yield from ((cell, reference) for cell in matrix.single_stage(solver))


def _baselines(matrix: Matrix) -> Iterator[tuple[Cell, Cell]]:
    for cell in matrix.two_stage():
        for baseline in matrix.single_stage(cell.solver):
            yield cell, baseline


def _same_but_for(cells: Sequence[Cell], key: Callable[[Cell], Hashable]) -> Iterator[tuple[Cell, Cell]]:
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    for members in groups.values():
        yield from combinations(members, 2)
