"""The verdict over several test sets: of one configuration, on each of them or over all their questions."""

from __future__ import annotations

import numpy as np
import pytest
from measured import cell_of
from test_verdict import GOOD, POOR, N, run, verdict_of

from fractionate.analysis.matrix import matrices
from fractionate.analysis.test_sets import stack


def two_students(first, second, dataset):
    """Return a test set with two student decomposers and all controls."""
    cells = run(decomposer=first, solver=None, pair=None, dataset=dataset)
    return [*cells, cell_of(second, decomposer="D-T", dataset=dataset)]


def test_two_students_that_each_pass_on_another_test_set_are_no_reason_to_distill_either():
    verdict = verdict_of([*two_students(GOOD, POOR, "a"), *two_students(POOR, GOOD, "b")])
    assert [one["distill"] for one in verdict.datasets] == ["decomposer", "decomposer"]
    assert (verdict.distill, verdict.basis) == ("undecided", "")
    assert "recommend different pairs (static/D-R/teacher on a, static/D-T/teacher on b)" in verdict.because


def test_the_configuration_that_passes_on_every_test_set_is_recommended_though_another_is_the_choice_of_one_set():
    cells = [*two_students(GOOD, GOOD, "a"), *two_students(POOR, GOOD, "b")]
    verdict = verdict_of(cells)
    assert verdict.datasets[0]["recommended"] == "a/static/D-R/teacher"
    assert (verdict.distill, verdict.basis) == ("decomposer", "each test set")
    assert "all demonstrations (D-T), decompose; gpt-4o-mini still solves, on all 2 test sets." in verdict.because


def test_all_questions_together_decide_where_each_test_set_has_too_few():
    def part(dataset):
        half, never = GOOD[350:450], [0.0] * 100
        cells = {"decomposer": half, "reference": half, "single": never, "cot": never, "untrained": never}
        return run(**cells, solver=None, pair=None, dataset=dataset)

    verdict = verdict_of([cell for name in "abcdef" for cell in part(name)])
    assert {one["distill"] for one in verdict.datasets} == {"undecided"}
    assert (verdict.distill, verdict.basis) == ("decomposer", "all test sets together")
    assert verdict.together is not None
    assert verdict.together["evidence"][0]["n"] == 600
    assert verdict.action.endswith("still solves, by all test sets together.")
    assert "600 questions" in verdict.effect


def test_a_test_set_that_shows_a_configuration_to_fail_is_not_outvoted():
    better = [1.0] * 560 + [0.0] * 40
    verdict = verdict_of([*run(decomposer=better, dataset="a"), *run(decomposer=POOR, dataset="b")])
    assert verdict.together is not None
    assert verdict.together["evidence"][0]["difference"] == pytest.approx((160 - 150) / 1200)
    assert verdict.distill == "undecided"


def test_stacked_cells_keep_every_question_and_each_sets_own_metric():
    first = [cell_of(GOOD, dataset="a", metric="exact_match"), cell_of(GOOD, "single", "none", dataset="a")]
    half = [0.5] * N
    stacked = stack(matrices([*first, cell_of(half, dataset="b", metric="f1")]))
    assert stacked is not None
    (cell,) = stacked.cells
    assert (len(cell.columns), len(set(cell.columns.ids.tolist()))) == (2 * N, 2 * N)
    assert cell.values() == [*GOOD, *half]
    assert cell.attempts[N].problem.dataset == "b"
    assert np.array_equal(cell.columns.column("exact_match")[:N], GOOD)
    assert stack(matrices(first)) is None
