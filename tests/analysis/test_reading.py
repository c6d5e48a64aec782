"""A gain is split into formatting gain and content gain; cells with many unparsed outputs are named with a fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import cell_of, config_of

from fractionate.analysis.contrasts import MOST, contrast, is_read_leniently, split_gain, unparsed_cells
from fractionate.analysis.findings import training_controls
from fractionate.analysis.matrix import Matrix, pool_cells
from fractionate.analysis.rule import Rule
from fractionate.report.facts import Facts
from fractionate.report.results import build_results
from fractionate.report.sections.verdict import controls
from fractionate.statistics import tango
from fractionate.types import Attempt, Cell, Component, Score

MISSED, RIGHT, WRONG = (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)
"""A question's strict and lenient score: right but not stated so, right, wrong."""


def read_both_ways(scores: Sequence[tuple[float, float]], **of_cell: object) -> Cell:
    cell = cell_of([strict for strict, _ in scores], **of_cell)  # type: ignore[arg-type]
    attempts = [
        replace(one, lenient=Score(lenient, lenient), prediction=None if strict < lenient else ("x",))
        for one, (strict, lenient) in zip(cell.attempts, scores, strict=True)
    ]
    return replace(cell, attempts=tuple(attempts))


def base_of(student: Component) -> Component:
    return Component("student", "base", student.role, student.model)


def test_an_untrained_model_that_only_missed_the_form_leaves_no_substance() -> None:
    student = read_both_ways([RIGHT] * 6 + [WRONG] * 4, solver="E-A")
    base = read_both_ways([MISSED] * 5 + [WRONG] * 5, solver="student")
    split = split_gain(Matrix("atlas", (student, base)), student, base, 0.95)
    assert split is not None
    assert contrast(split.formatting.matrix, student, base, 0.95).difference == pytest.approx(0.6)
    assert (split.formatting.difference, split.content.difference) == pytest.approx((0.5, 0.1))
    assert (split.content.ci_low, split.content.ci_high) == pytest.approx(tango(1, 0, 10))
    assert (split.formatting.ci_low, split.formatting.ci_high) == pytest.approx(tango(5, 0, 10))


pairs = st.lists(st.sampled_from([MISSED, RIGHT, WRONG]), min_size=4, max_size=30)


@settings(deadline=None, max_examples=25)
@given(ours=pairs, theirs=pairs)
def test_form_and_substance_add_up_to_the_gain(
    ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> None:
    a, b = read_both_ways(ours, solver="E-A"), read_both_ways(theirs[: len(ours)], solver="student")
    matrix = Matrix("atlas", (a, b))
    split = split_gain(matrix, a, b, 0.95)
    assert split is not None
    whole = contrast(matrix, a, b, 0.95).difference
    assert split.formatting.difference + split.content.difference == pytest.approx(whole)


def test_pooled_runs_are_split_too_and_one_attempt_without_a_lenient_reading_leaves_none() -> None:
    runs = {
        str(run): [
            read_both_ways([RIGHT] * (5 + run) + [WRONG] * (5 - run), solver="E-A"),
            read_both_ways([MISSED] * (2 + run) + [WRONG] * (8 - run), solver="student"),
        ]
        for run in range(3)
    }
    a, b = pool_cells(runs)[0]
    split = split_gain(Matrix("atlas", (a, b)), a, b, 0.95)
    assert split is not None
    assert split.content.seeds == 3
    assert (split.formatting.difference, split.content.difference) == pytest.approx((0.3, 0.3))
    without = replace(a, attempts=(replace(a.attempts[0], lenient=None), *a.attempts[1:]))
    assert split_gain(Matrix("atlas", (without, b)), without, b, 0.95) is None
    assert not is_read_leniently(without)
    mixed = {**runs, "old": [cell_of([1] * 10, solver="E-A"), cell_of([0] * 10, solver="student")]}
    assert not any(is_read_leniently(cell) for cell in pool_cells(mixed)[0])


def test_the_controls_show_the_split_of_a_trained_part() -> None:
    student = read_both_ways([RIGHT] * 30 + [WRONG] * 10, solver="E-A")
    base = read_both_ways([MISSED] * 10 + [WRONG] * 30, solver=base_of(student.solver))
    matrix = Matrix("atlas", (student, base))
    (control,) = training_controls(matrix, student, Rule(), 0.95)
    assert control.as_dict()["form"]["difference"] == pytest.approx(0.25)
    assert control.as_dict()["substance"]["difference"] == pytest.approx(0.5)
    teacher = read_both_ways([RIGHT] * 28 + [WRONG] * 12)
    results = build_results([teacher, student, base], config_of(), [], {})
    section = controls(Facts(results))
    assert section is not None
    (table,) = section.body
    shown = [row for row in table.rows if "substance" in row]  # type: ignore[union-attr]
    assert [(row["form"].text, row["substance"].text) for row in shown] == [("+25.0", "+50.0")]


def with_unread(count: int, of: int, **change: object) -> Cell:
    cell = cell_of([1.0] * of, solver=Component("m", "model", "solver", str(change.pop("model", "openai:m"))))
    bad = replace(cell.attempts[0], prediction=None, **change)  # type: ignore[arg-type]
    attempts: list[Attempt] = [replace(bad, problem=one.problem) for one in cell.attempts[:count]]
    return replace(cell, attempts=(*attempts, *cell.attempts[count:]))


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({}, 'models.options."openai:m".structured = true'),
        ({"model": "local:m"}, "few-shot"),
        ({"model": "recorded:m"}, "recorded as it is"),
        ({"cut_off": ("solver",), "failures": ("length",)}, 'models.options."openai:m".max_tokens'),
        ({"cut_off": ("decomposer",), "failures": ("length",)}, 'models.options."openai:gpt-4o-mini".max_tokens'),
        ({"failures": ("refusal",)}, "why calls failed"),
    ],
)
def test_more_than_a_tenth_unread_is_named_with_its_mend_and_a_tenth_is_not(
    change: dict[str, object], fix: str
) -> None:
    assert MOST == 0.1
    assert unparsed_cells(Matrix("atlas", (with_unread(2, 20, **change),))) == []
    (found,) = unparsed_cells(Matrix("atlas", (with_unread(3, 20, **change),)))
    assert found.unread_share == pytest.approx(0.15)
    assert found.cut_off_share == pytest.approx(0.15 if "cut_off" in change else 0)
    (said,) = found.fixes
    assert fix in said


def test_cut_off_answers_that_were_read_all_the_same_are_named_too() -> None:
    cell = with_unread(3, 20, cut_off=("solver",), failures=("length",))
    cell = replace(cell, attempts=tuple(replace(one, prediction=("x",)) for one in cell.attempts))
    (found,) = unparsed_cells(Matrix("atlas", (cell,)))
    assert (found.unread_share, found.cut_off_share) == (0, pytest.approx(0.15))
    assert unparsed_cells(Matrix("atlas", (cell_of([]),))) == []
