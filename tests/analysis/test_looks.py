"""The ledger of looks: which verdicts spend from one error, and what each may still spend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from measured import config_of
from test_verdict import GOOD, POOR, run

from fractionate.analysis.looks import Judged, Ledger
from fractionate.analysis.matrix import matrices
from fractionate.analysis.rule import Rule, Standing

HALF = [1.0, 0.0] * 300


def judged(cells, first=0, n=600, **verdict):
    rule = Rule.of(config_of(verdict=verdict))
    cells = [replace(cell, attempts=cell.attempts[:n]) for cell in cells]
    (matrix,) = matrices(cells)
    reference = matrix.undistilled("static", rule)
    assert reference is not None
    return Judged(matrix, rule, reference, np.arange(first, first + n, dtype=np.uint64))


def standings(*looks):
    ledger = Ledger()
    found = []
    for look in looks:
        found.append(ledger.standing(look))
        ledger.add(look)
    return found


def students(decomposer=GOOD, **other):
    return run(decomposer=decomposer, solver=None, pair=None, **other)


def test_the_same_look_again_stands_where_it_stood():
    first, more, again = standings(judged(students(), n=200), judged(students()), judged(students(), n=200))
    assert (first, more) == (Standing(), Standing(1, (200,)))
    assert again == Standing(1, (), known=True)


def test_more_questions_of_the_same_systems_continue_a_family_and_fewer_do_not():
    assert standings(*(judged(students(), n=n) for n in (100, 200, 400)))[2].sizes == (100, 200)
    assert [one.family for one in standings(*(judged(students(), n=n) for n in (400, 200, 100)))] == [1, 2, 3]


def test_a_student_trained_again_another_reference_or_another_margin_opens_a_family():
    first = judged(students())
    others = (judged(students(HALF)), judged(students(reference=HALF)), judged(students(), margin=5.0))
    for other in others:
        assert [one.family for one in standings(first, other)] == [1, 2]
    assert [one.family for one in standings(first, *others)] == [1, 2, 3, 4]


def test_the_same_students_at_other_questions_are_looked_at_again_and_others_are_not():
    assert standings(judged(students()), judged(students(), first=1000))[1].family == 2
    solver = run(decomposer=None, pair=None)
    assert standings(judged(students()), judged(solver, first=1000))[1] == Standing()
    assert standings(judged(students()), judged(solver, first=599))[1].family == 2, "one question is shared"


def test_a_control_that_is_measured_later_is_no_new_look():
    assert standings(judged(students(untrained=None)), judged(students()))[1].known


def test_families_never_have_more_than_the_whole_error():
    assert sum(Standing(family).share for family in range(1, 2000)) < 1
    assert Standing(2).share > Standing(3).share > 0


def test_a_sealed_test_set_opens_once():
    ledger, first = Ledger(), judged(students())
    assert not ledger.standing(first, sealed=True).opened
    ledger.add(first, sealed=True)
    assert ledger.standing(first, sealed=True).known, "the same report again is the same verdict"
    assert ledger.standing(judged(students(POOR)), sealed=True).opened
    assert ledger.add(judged(students(POOR)), sealed=True) is None
