"""The family of comparisons is the stated one, each pair once, and every number can be recomputed by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import TEACHER, cell_of, matrix

from fractionate.analysis.comparisons import compare
from fractionate.analysis.contrasts import pair_up, paired_places
from fractionate.analysis.matrix import matrices, short_names
from fractionate.analysis.rule import Rule, question_points
from fractionate.statistics import holm, mcnemar

STUDENT_PAIR = "atlas/static/D-R/teacher"
UNDISTILLED = "atlas/static/teacher/teacher"


def rows_of(cells):
    return [found.as_dict() for found in compare(cells, Rule())]


def pairs_of(cells):
    return [(row["a"], row["b"]) for row in rows_of(cells)]


def test_the_family_holds_each_students_pair_baselines_and_decomposers_against_each_other():
    pairs = pairs_of(matrix(30))
    assert (STUDENT_PAIR, UNDISTILLED) in pairs
    assert ("atlas/static/teacher/E-A", UNDISTILLED) in pairs
    assert ("atlas/static/D-R/E-A", UNDISTILLED) in pairs
    assert (UNDISTILLED, "atlas/single/none/teacher") in pairs
    assert ("atlas/static/D-R/E-A", "atlas/single/none/E-A") in pairs
    assert ("atlas/static/D-T/teacher", STUDENT_PAIR) in pairs
    assert ("atlas/static/D-T/E-A", "atlas/static/D-R/E-A") in pairs


def test_no_pair_is_compared_twice_in_either_direction():
    pairs = [frozenset(pair) for pair in pairs_of(matrix(30))]
    assert len(pairs) == len(set(pairs))
    assert all(len(pair) == 2 for pair in pairs)


def test_strategies_are_compared_with_the_same_decomposer_and_solver():
    cells = [cell_of([1, 0, 1], strategy) for strategy in ("static", "stepwise", "dynamic")]
    assert len(pairs_of(cells)) == 3


def test_single_stage_students_meet_the_undistilled_pair():
    cells = [cell_of([1, 0]), cell_of([1, 1], "single", "none", "S-A")]
    assert ("atlas/single/none/S-A", UNDISTILLED) in pairs_of(cells)


def test_the_teacher_is_known_by_its_model_name_too():
    cells = [cell_of([1, 0], decomposer=TEACHER, solver=TEACHER), cell_of([1, 1], decomposer="D-R", solver=TEACHER)]
    assert (f"atlas/static/D-R/{TEACHER}", f"atlas/static/{TEACHER}/{TEACHER}") in pairs_of(cells)


def test_difference_is_a_minus_b_and_p_is_exact():
    cells = [cell_of([1, 0, 0, 0, 1, 0]), cell_of([1, 1, 1, 1, 0, 0], decomposer="D-R")]
    (found,) = rows_of(cells)
    assert (found["a"], found["b"]) == (STUDENT_PAIR, UNDISTILLED)
    assert found["difference"] == pytest.approx(2 / 6)
    assert found["p_value"] == found["p_adjusted"] == mcnemar(3, 1)
    assert found["test"] == "exact McNemar"


def test_holm_covers_each_family_of_the_whole_run_over_test_sets():
    cells = matrix(60) + matrix(60, dataset="other", seed=3)
    found = rows_of(cells)
    for family in ("primary", "exploratory"):
        members = [row for row in found if row["family"] == family]
        assert {row["a"].split("/")[0] for row in members} == {"atlas", "other"}
        assert [row["p_adjusted"] for row in members] == holm([row["p_value"] for row in members])


def test_what_the_verdict_rests_on_is_primary_and_a_larger_matrix_does_not_hide_it():
    cells = [
        cell_of([1, 1, 1, 1, 1, 1, 0, 0]),
        cell_of([0, 0, 0, 0, 0, 0, 1, 0], "single", "none"),
        cell_of([1, 1, 1, 1, 1, 1, 0, 1], decomposer="D-R"),
        cell_of([0, 0, 0, 0, 0, 1, 0, 0], decomposer="student"),
    ]
    rows = {(row["a"], row["b"]): row for row in rows_of(cells)}
    families = {pair: row["family"] for pair, row in rows.items()}
    assert families[STUDENT_PAIR, UNDISTILLED] == "primary"
    assert families[UNDISTILLED, "atlas/single/none/teacher"] == "primary"
    assert families[STUDENT_PAIR, "atlas/static/student/teacher"] == "primary", "its untrained base in its place"
    assert families[UNDISTILLED, "atlas/static/student/teacher"] == "exploratory"
    more = [cell_of([1, 0] * 4, "stepwise", name) for name in ("D-T", "gold")]
    for row in rows_of([*cells, *more]):
        if row["family"] == "primary" and (row["a"], row["b"]) in rows:
            assert row["p_adjusted"] == rows[row["a"], row["b"]]["p_adjusted"]


def test_cells_with_other_questions_are_paired_over_the_shared_ones():
    a, b = cell_of([1] * 10, first=0), cell_of([0] * 10, decomposer="D-R", first=4)
    mine, theirs = paired_places(a, b)
    assert [a.attempts[place].problem.id for place in mine] == [b.attempts[place].problem.id for place in theirs]
    assert [len(columns) for columns in pair_up(a, b)] == [6, 6]
    (found,) = compare([a, b], Rule())
    assert found.contrast.n == 6


@given(st.integers(0, 4), st.sampled_from(["exact_match", "f1"]))
@settings(max_examples=6, deadline=None)
def test_every_number_is_in_range_at_any_size(n, metric):
    for found in rows_of(matrix(n, metric=metric)):
        assert -1 <= found["ci_low"] <= found["difference"] <= found["ci_high"] <= 1
        assert 0 <= found["p_value"] <= found["p_adjusted"] <= 1


def test_cell_names_are_unique_even_where_a_test_set_comes_twice():
    cells = [cell_of([1]), cell_of([0]), cell_of([1], split="dev")]
    sets = matrices(cells)
    names = [test.name(cell) for test in sets for cell in test.cells]
    assert len(set(names)) == 3
    assert [test.label for test in sets] == ["atlas#test", "atlas#test (2)", "atlas#dev"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.integers(1, 4))
def test_short_names_stay_unique(parts, copies):
    names = [f"recorded:{'/'.join(parts)}/{index % 2}/chatgpt.jsonl" for index in range(copies)]
    names += ["none", "local:org/Tiny-1B", "local:org/Tiny-1B@runs/x/D-R"]
    short = short_names(names)
    assert len(set(short.values())) == len(set(names))
    assert short["none"] == "none"
    assert short["local:org/Tiny-1B@runs/x/D-R"] == "Tiny-1B@D-R"


def test_students_that_solve_meet_each_other_and_their_base_and_single_stages_each_other():
    solvers = ("student", "E-A", "E-A-direct", "D-R")
    cells = [cell_of([1, 0, 1], solver=solver) for solver in solvers]
    cells += [cell_of([0, 0, 1], strategy, "none", "student") for strategy in ("single", "single-cot")]
    found = {frozenset(pair) for pair in pairs_of(cells)}
    for one, other in combinations(solvers, 2):
        assert frozenset((f"atlas/static/teacher/{one}", f"atlas/static/teacher/{other}")) in found
    assert frozenset(("atlas/single/none/student", "atlas/single-cot/none/student")) in found


@pytest.mark.parametrize(("points", "asked"), [(0.02, "write 2"), (-0.05, "write -5"), (0.1, ""), (2.0, ""), (0.0, "")])
def test_a_margin_that_looks_like_a_share_is_questioned(points: float, asked: str) -> None:
    said = question_points(points)
    assert said.endswith(asked) if asked else not said
