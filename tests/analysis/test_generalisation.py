"""Rows of generalisation: which pair a student is compared with, and whether it trained on the test questions' data."""

from dataclasses import replace
from pathlib import Path

import pytest
from measured import TEACHER, cell_of, component_of, config_of

from fractionate.analysis.comparisons import compare
from fractionate.analysis.rule import Rule
from fractionate.analysis.students import Generalisation, covers, measure_generalisation
from fractionate.report.render import markdown, write_html
from fractionate.report.results import build_results
from fractionate.run.names import Names
from fractionate.types import Cell, Component

OLD, NEW = "atlas#test?bridge@0-99", "atlas#test?counting@0-99"
STUDENTS = {
    "D-some": {"variant": "D-R", "train": "atlas#train?bridge"},
    "D-all": {"variant": "D-R"},
    "E-some": {"variant": "E-A", "train": "atlas#train?bridge"},
    "E-all": {"variant": "E-A"},
}


CONFIG = config_of(
    data={"train": "atlas#train", "test": [OLD, NEW]},
    students=STUDENTS,
    models={"teacher": TEACHER, "solvers": ["teacher", "E-all", "E-some"]},
)
NAMES = Names(CONFIG)


def cells() -> list[Cell]:
    values = {"teacher": [1, 1, 1, 0] * 5, "D-all": [1, 1, 0, 0] * 5, "D-some": [1, 0, 0, 0] * 5}
    values |= {"E-all": [1, 0, 1, 0] * 5, "E-some": [0, 0, 1, 0] * 5}
    made = []
    for split, reference in (("old", OLD), ("new", NEW)):
        solver = NAMES.component("teacher", "solver")
        for name in ("teacher", "D-some", "D-all"):
            decomposer = NAMES.component(name, "decomposer")
            cell = cell_of(values[name], decomposer=decomposer, solver=solver, split=split)
            made.append(replace(cell, reference=reference))
        for name in ("E-some", "E-all"):
            cell = cell_of(values[name], decomposer=NAMES.teacher, solver=NAMES.component(name, "solver"), split=split)
            made.append(replace(cell, reference=reference))
    return made


def of_one_student(learnt_from: str) -> list[Cell]:
    student = component_of("D-R", learnt_from=(learnt_from,))
    decomposers: tuple[Component | str, ...] = ("teacher", student)
    return [replace(cell_of([1, 0], decomposer=one), reference="atlas#test") for one in decomposers]


def rows() -> list[Generalisation]:
    return measured(cells())


def measured(made: list[Cell]) -> list[Generalisation]:
    return measure_generalisation(made, Rule(), compare(made, Rule()))


def test_a_student_is_laid_beside_its_part_and_beside_the_student_that_saw_the_kind() -> None:
    found = {(row["test_set"], row["student"], row["against"]): row for row in (one.as_dict() for one in rows())}
    beside_their_part = {(name, "teacher") for name in STUDENTS}
    met = {
        test_set: {(row["student"], row["against"]) for row in found.values() if row["test_set"] == test_set}
        for test_set in ("atlas#old", "atlas#new")
    }
    # On a kind that both saw the order is that of the cells; on a held-out one it is who saw it that stands beside.
    assert met["atlas#old"] == beside_their_part | {("D-all", "D-some"), ("E-all", "E-some")}
    assert met["atlas#new"] == beside_their_part | {("D-some", "D-all"), ("E-some", "E-all")}
    held_out = found["atlas#new", "D-some", "D-all"]
    assert [held_out[key] for key in ("seen", "part", "partner", "n")] == ["no", "decomposer", "teacher", 20]
    assert (held_out["value"], held_out["against_value"]) == (0.25, 0.5)
    assert held_out["difference"] == pytest.approx(-0.25)
    assert held_out["ci_low"] < -0.25 < held_out["ci_high"]
    assert held_out["learnt_from"] == ["atlas#train?bridge"]
    assert held_out["against_learnt_from"] == ["atlas#train"]


def test_the_figures_are_those_of_the_runs_comparisons() -> None:
    p_values = sorted(one.p_adjusted for one in compare(cells(), Rule()))
    assert all(row.p_adjusted in p_values for row in rows())
    assert {row.part for row in rows()} == {"decomposer", "solver"}


def test_a_run_of_one_student_tested_on_its_own_data_has_no_such_rows() -> None:
    assert measured(of_one_student("atlas#train")) == []


def test_a_plain_student_on_another_data_set_has_rows() -> None:
    (row,) = measured(of_one_student("gsm8k#train"))
    assert (row.student.name, row.against.name, row.seen) == ("D-R", "teacher", "no")


@pytest.mark.parametrize(
    ("learnt_from", "test", "seen"),
    [
        (["atlas#train"], "atlas#test", "yes"),
        (["atlas#train"], "atlas#test?bridge", "yes"),
        (["atlas#train?bridge"], "atlas#test", "no"),
        (["atlas#train?bridge"], "atlas#test?bridge", "yes"),
        (["atlas#train?bridge", "atlas#train?counting"], "atlas#test?counting,bridge@0-9", "yes"),
        (["atlas#train?bridge"], "atlas#test?bridge,counting", "no"),
        (["gsm8k#train"], "drop", "no"),
        (["gsm8k#train", "drop#train"], "drop", "yes"),
        ([], "drop", "no"),
        (["jsonl:a.jsonl"], "jsonl:b.jsonl", ""),
        (["gsm8k#train"], "b.jsonl", ""),
    ],
)
def test_what_was_learnt_covers_a_test_set_or_not(learnt_from: list[str], test: str, seen: str) -> None:
    assert covers(learnt_from, test) == seen


def test_both_reports_show_the_rows(tmp_path: Path) -> None:
    results = build_results(cells(), CONFIG, [], {"name": "kinds"})
    assert results["generalisation"] == [row.as_dict() for row in rows()]
    text = markdown(results)
    assert "## Generalisation" in text
    assert "| D-some (decomposer, from atlas#train?bridge) | no | teacher |" in text
    write_html(results, tmp_path / "report.html", [])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="generalisation">' in page
    assert "from atlas#train?bridge" in page
