"""A handful of attempts to look at: the same questions by the undistilled pair and by the nearest rival."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from fractionate.analysis.contrasts import outcomes, paired_places
from fractionate.analysis.matrix import (
    Matrix,
    is_candidate_decomposer,
    is_candidate_solver,
    matrices,
    of_whole_students,
    short_pair_names,
)
from fractionate.analysis.rule import Rule
from fractionate.types import Attempt, Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TEXT = 1500
"""Characters of an output or a passage that are shown."""


def pick_examples(cells: Sequence[Cell], rule: Rule, limit: int = 6) -> list[dict[str, Any]]:
    """Return up to `limit` questions of a run, each worked through by two pairs, chosen for their disagreement.

    First come questions that only one of the two got right, then ones that both did, then ones that neither did, in
    the order of the test set. Each is {"test_set", "question", "context", "gold", "attempts": [{"pair",
    "subquestions", "output", "prediction", "value", "right"}]}.
    """
    tests = matrices(of_whole_students(cells))
    share = max(1, limit // max(len(tests), 1))
    return [example for matrix in tests for example in _of_test_set(matrix, rule, share)][:limit]


def _of_test_set(matrix: Matrix, rule: Rule, limit: int) -> list[dict[str, Any]]:
    import numpy as np

    shown = _shown_cells(matrix, rule)
    if not shown:
        return []
    names = short_pair_names(
        (cell.decomposer.name for cell in matrix.cells), (cell.solver.name for cell in matrix.cells)
    )
    labels = [f"{cell.strategy}, {names[cell.decomposer.name]} → {names[cell.solver.name]}" for cell in shown]
    places = paired_places(shown[0], shown[1]) if len(shown) == 2 else (None,)
    rows = [np.arange(len(cell.columns)) if of is None else of for cell, of in zip(shown, places, strict=True)]
    right = [
        cell.columns.outputs.column("exact_match")[cell.columns.starts[of]] == 1
        for cell, of in zip(shown, rows, strict=True)
    ]
    return [
        _example(
            matrix.label,
            [(label, cell.outputs_at(of[row])[0]) for label, cell, of in zip(labels, shown, rows, strict=True)],
        )
        for row in _disagreeing_first(right, limit)
    ]


def _shown_cells(matrix: Matrix, rule: Rule) -> list[Cell]:
    """Return the undistilled pair and its best student pair, or else its single-stage baseline; or any cell."""
    reference = matrix.undistilled(matrix.judged_strategy(rule), rule)
    if reference is None:
        return list(matrix.cells[:1])
    students = [
        cell
        for cell in matrix.two_stage()
        if cell.strategy == reference.strategy
        and cell is not reference
        and (is_candidate_decomposer(cell.decomposer) or is_candidate_solver(cell.solver))
    ]
    rivals = students or matrix.single_stage(reference.solver)
    return [reference, *sorted(rivals, key=lambda cell: -sum(outcomes(cell.columns, cell.metric).tolist()))[:1]]


def _disagreeing_first(right: Sequence[NDArray[np.bool_]], limit: int) -> list[int]:
    """Return the rows to show, given which of them each cell got right."""
    import numpy as np

    code = sum((holds.astype(np.int64) << place for place, holds in enumerate(right)), np.int64(0))
    kinds, first = np.unique(code, return_index=True)
    groups = {
        tuple(bool(holds[place]) for holds in right): np.flatnonzero(code == kind)[:limit].tolist()
        for place, kind in sorted(zip(first.tolist(), kinds.tolist(), strict=True))
    }
    order = sorted(groups, key=lambda right: (len(set(right)) == 1, not any(right)))
    taken = chain.from_iterable(zip_longest(*(groups[key] for key in order)))
    return [row for row in taken if row is not None][:limit]


def _example(test_set: str, worked: list[tuple[str, Attempt]]) -> dict[str, Any]:
    problem = worked[0][1].problem
    return {
        "test_set": test_set,
        "question": problem.question,
        "context": _cut(problem.background),
        "gold": [", ".join(answer) for answer in problem.answers],
        "attempts": [
            {
                "pair": label,
                "subquestions": list(attempt.decomposition.subquestions) if attempt.decomposition else [],
                "output": _cut(attempt.output),
                "prediction": ", ".join(attempt.prediction) if attempt.prediction is not None else None,
                "value": attempt.score.f1,
                "right": attempt.score.exact_match == 1,
            }
            for label, attempt in worked
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1].rstrip() + "…"
