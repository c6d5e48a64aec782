"""Paired comparisons of cells over the same questions, in two families with Holm's adjustment over each.

What is compared is fixed before any number is seen, for each test set. The primary family holds what the verdict rests
on, so that a large matrix does not hide it:

1. every distilled configuration against the undistilled pair under the same two-stage strategy, and single-stage
   students against the undistilled pair that is judged;
2. the undistilled pair against its solver's single-stage cells;
3. every student's cell against the same cell with its untrained base in its place.

The exploratory family holds the rest:

4. every other two-stage cell against its solver's single-stage cells;
5. decomposers against each other, under the same strategy and solver;
6. two-stage strategies against each other, with the same decomposer and solver;
7. students as solvers, and their untrained base, against each other, under the same strategy and decomposer;
8. single-stage strategies against each other, with the same solver.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.findings import CLAIMS, untrained_in_place
from fractionate.analysis.matrix import Matrix, is_candidate_decomposer, is_candidate_solver, matrices
from fractionate.analysis.rule import Rule
from fractionate.config import PublishedFigure
from fractionate.statistics import holm
from fractionate.types import Cell

Family = Literal["primary", "exploratory"]
_Pairs = Iterator[tuple[Cell, Cell]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contrast, the family it belongs to, and its p-value adjusted over that family."""

    contrast: Contrast
    family: Family
    p_adjusted: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        found = self.contrast
        a, b = found.names
        return {
            "a": a,
            "b": b,
            "family": self.family,
            **found.interval_fields(),
            "p_value": found.p_value,
            "p_adjusted": self.p_adjusted,
            "test": found.test,
            "n": found.n,
        }


def compare(cells: Iterable[Cell], rule: Rule) -> list[Comparison]:
    """Return every comparison, the primary ones of each test set first, each pair once."""
    found = [
        (family, contrast(matrix, a, b, rule.confidence))
        for matrix in matrices(cells)
        for family, a, b in _pairs(matrix, rule)
    ]
    adjusted: dict[int, float] = {}
    families: tuple[Family, Family] = ("primary", "exploratory")
    for family in families:
        places = [place for place, (of, _) in enumerate(found) if of == family]
        adjusted |= dict(zip(places, holm([found[place][1].p_value for place in places]), strict=True))
    return [Comparison(one, family, adjusted[place]) for place, (family, one) in enumerate(found)]


def _pairs(matrix: Matrix, rule: Rule) -> Iterator[tuple[Family, Cell, Cell]]:
    seen: set[frozenset[int]] = set()
    two_stage = matrix.two_stage()
    sources: tuple[tuple[Family, _Pairs], ...] = (
        ("primary", _distilled(matrix, rule)),
        ("primary", _single_stage_students(matrix, rule)),
        ("primary", _decomposing(matrix, rule)),
        ("primary", _training(matrix)),
        ("exploratory", _baselines(matrix)),
        ("exploratory", _same_but_for(two_stage, lambda cell: (cell.strategy, cell.solver))),
        ("exploratory", _same_but_for(two_stage, lambda cell: (cell.decomposer, cell.solver))),
        (
            "exploratory",
            _same_but_for(
                [cell for cell in matrix.cells if cell.solver.kind in ("student", "base")],
                lambda cell: (cell.strategy, cell.decomposer),
            ),
        ),
        ("exploratory", _same_but_for(matrix.single_stage(), lambda cell: cell.solver)),
    )
    for family, source in sources:
        for a, b in source:
            pair = frozenset((id(a), id(b)))
            if len(pair) == 2 and pair not in seen:
                seen.add(pair)
                yield family, a, b


def _distilled(matrix: Matrix, rule: Rule) -> _Pairs:
    for cell in matrix.two_stage():
        reference = matrix.undistilled(cell.strategy, rule)
        if reference is None:
            continue
        decomposer, solver = is_candidate_decomposer(cell.decomposer), is_candidate_solver(cell.solver)
        fits = (decomposer or cell.decomposer == reference.decomposer) and (solver or cell.solver == reference.solver)
        if fits:
            yield cell, reference


def _decomposing(matrix: Matrix, rule: Rule) -> _Pairs:
    for strategy in dict.fromkeys(cell.strategy for cell in matrix.two_stage()):
        reference = matrix.undistilled(strategy, rule)
        if reference is not None:
            yield from ((reference, baseline) for baseline in matrix.single_stage(reference.solver))


def _training(matrix: Matrix) -> _Pairs:
    for cell in matrix.cells:
        for claim in CLAIMS:
            yield from ((cell, base) for base in untrained_in_place(matrix, cell, claim))


def _single_stage_students(matrix: Matrix, rule: Rule) -> _Pairs:
    reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
    if reference is None:
        return
    for solver in dict.fromkeys(cell.solver for cell in matrix.cells):
        if solver.variant.startswith("S-"):
            yield from ((cell, reference) for cell in matrix.single_stage(solver))


def _baselines(matrix: Matrix) -> _Pairs:
    for cell in matrix.two_stage():
        for baseline in matrix.single_stage(cell.solver):
            yield cell, baseline


def _same_but_for(cells: Sequence[Cell], key: Callable[[Cell], Hashable]) -> _Pairs:
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    for members in groups.values():
        yield from combinations(members, 2)


def published_rows(published: Sequence[PublishedFigure], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per published figure and matching cell: published, measured and measured − published, in [0, 1].

    A figure names its pair by the names of the matrix or by model names. Without a strategy it belongs to every
    two-stage cell of the pair (single-stage ones where the decomposer is "none"), without a data set to every test
    set. `cells` are those of results.json. A figure without a measured cell is kept, with nulls.
    """
    rows: list[dict[str, Any]] = []
    for figure in published:
        matching = [cell for cell in cells if _measures(figure, cell)]
        rows += [_published_row(figure, cell) for cell in matching] or [_published_row(figure, None)]
    return rows


def _measures(figure: PublishedFigure, cell: Mapping[str, Any]) -> bool:
    right_stage = (cell["stages"] == "single") == (figure.decomposer == "none")
    return (
        figure.decomposer in (cell["decomposer"], cell["decomposer_model"])
        and figure.solver in (cell["solver"], cell["solver_model"])
        and (cell["strategy"] == figure.strategy if figure.strategy else right_stage)
        and figure.dataset in ("", cell["dataset"])
    )


def _published_row(figure: PublishedFigure, cell: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = cell["value"] if cell else None
    return {
        "dataset": cell["dataset"] if cell else figure.dataset,
        "strategy": cell["strategy"] if cell else figure.strategy,
        "decomposer": figure.decomposer,
        "solver": figure.solver,
        "cell": cell["name"] if cell else None,
        "published": figure.share,
        "source": figure.source,
        "measured": measured,
        "ci_low": cell["ci_low"] if cell else None,
        "ci_high": cell["ci_high"] if cell else None,
        "n": cell["n"] if cell else 0,
        "difference": measured - figure.share if measured is not None else None,
    }
