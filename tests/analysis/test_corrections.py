"""Cells scored by a judge, with gold for some questions: values, contrasts and verdicts rest on corrected outcomes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from measured import cell_of, component_of, config_of, correlated
from test_verdict import GOOD, run, verdict_of

from fractionate.analysis.contrasts import contrast, value_interval
from fractionate.analysis.corrections import correction_fields, differences_of, outcomes_of, value_of, with_gold
from fractionate.analysis.looks import Judged
from fractionate.analysis.matrix import matrices, pool_cells
from fractionate.analysis.rule import Rule
from fractionate.report.results import build_results
from fractionate.run.attempt_rows import attempt_of, attempt_row
from fractionate.types import Cell, Score

TRUTH = correlated(0.6, 1_200, 1)
OTHER = correlated(0.6, 1_200, 2)


def judged(truth: list[float], decomposer: str, kindness: float, gold: int, seed: int = 0) -> Cell:
    """Return a cell as a judge scored it that calls this share of wrong answers right, with gold for some questions."""
    chance = np.random.default_rng(seed).random(len(truth))
    scores = [1.0 if right or each < kindness else 0.0 for right, each in zip(truth, chance, strict=True)]
    known = [right if place % (len(truth) // gold) == 0 else np.nan for place, right in enumerate(truth)]
    return with_gold(cell_of(scores, decomposer=decomposer), known)


def test_the_value_of_a_cell_is_corrected_with_its_interval() -> None:
    cell = judged(TRUTH, "teacher", 0.25, 300)
    assert np.mean(cell.values()) > np.mean(TRUTH) + 0.08
    assert value_of(cell) == pytest.approx(np.mean(TRUTH), abs=0.04)
    low, high = value_interval(cell, 0.95)
    assert low < np.mean(TRUTH) < high
    alone = value_interval(cell_of(TRUTH[::4]), 0.95)
    assert high - low < alone.high - alone.low
    fields = correction_fields(cell)["gold"]
    assert fields["n"] == 300
    assert fields["agreement"] == pytest.approx(0.9, abs=0.05)
    assert fields["bias"] == pytest.approx(0.1, abs=0.05)
    assert correction_fields(cell_of(TRUTH)) == {}


def test_a_judge_that_flatters_one_cell_does_not_decide_a_contrast() -> None:
    reference, student = judged(TRUTH, "teacher", 0.0, 400), judged(OTHER, "D-R", 0.3, 400)
    (matrix,) = matrices([reference, student])
    found = contrast(matrix, student, reference, 0.95)
    truth = np.mean(OTHER) - np.mean(TRUTH)
    assert np.mean(student.values()) - np.mean(reference.values()) > truth + 0.09
    assert found.ci_low < truth < found.ci_high < 0.09
    assert found.test == "prediction-powered"
    differences = differences_of(student.columns, reference.columns, "exact_match")
    assert found.difference == pytest.approx(differences.values.mean())
    assert found.reversed().ci_low == pytest.approx(-found.ci_high)


def test_without_enough_common_gold_a_contrast_is_open() -> None:
    for gold in (10, 0):
        reference = judged(TRUTH, "teacher", 0.0, 10)
        student = judged(OTHER, "D-R", 0.3, 400) if gold else cell_of(OTHER, decomposer="D-R")
        (matrix,) = matrices([reference, student])
        found = contrast(matrix, student, reference, 0.95)
        assert (found.ci_low, found.ci_high, found.p_value) == (-1.0, 1.0, 1.0)
        assert found.test == "too few questions with gold"


def test_pooled_seeds_are_corrected_run_by_run() -> None:
    runs = {
        str(seed): [judged(TRUTH, "teacher", 0.0, 300), judged(correlated(0.6, 1_200, 3 + seed), "D-R", 0.3, 300, seed)]
        for seed in range(3)
    }
    cells, values = pool_cells(runs)
    (matrix,) = matrices(cells)
    found = contrast(matrix, cells[1], cells[0], 0.95)
    assert (found.seeds, len(found.by_seed)) == (3, 3)
    assert found.difference == pytest.approx(np.mean(found.by_seed))
    assert abs(found.difference) < 0.06
    assert max(values[next(key for key in values if "D-R" in key)].values()) < 0.66
    worst = contrast(matrix, cells[1], cells[0], 0.95, worst=True)
    assert worst.difference == pytest.approx(min(found.by_seed))


def test_a_verdict_on_judged_cells_holds_only_where_gold_shows_it() -> None:
    """A judge that takes every answer of a student for right: alone it would recommend a student that is far worse."""
    cells = run(decomposer=[1.0] * 600)
    assert verdict_of(cells).distill == "decomposer"
    worse = [0.0] * 300 + GOOD[300:]
    golden = [
        with_gold(cell, worse if cell.decomposer.name == "D-R" and cell.stages == "two-stage" else cell.values())
        for cell in cells
    ]
    verdict = verdict_of(golden)
    assert verdict.distill != "decomposer"
    (limit,) = [one for one in verdict.limits if one["limit"] == "scores that gold corrects"]
    assert "corrected by 600 questions with gold" in limit["text"]
    assert not [one for one in verdict_of(cells).limits if one["limit"] == "scores that gold corrects"]


def test_gold_for_all_questions_gives_what_gold_alone_gives() -> None:
    reference, student = cell_of(TRUTH), cell_of(OTHER, decomposer="D-R")
    (matrix,) = matrices([reference, student])
    plain = contrast(matrix, student, reference, 0.95)
    wrong = [
        with_gold(cell_of([0.0] * 1_200, decomposer=name), of) for name, of in (("teacher", TRUTH), ("D-R", OTHER))
    ]
    (matrix,) = matrices(wrong)
    found = contrast(matrix, wrong[1], wrong[0], 0.95)
    assert (found.difference, found.ci_low) == pytest.approx((plain.difference, plain.ci_low))


def test_more_gold_is_another_look() -> None:
    def fingerprint(gold: int) -> str:
        cells = [judged(TRUTH, "teacher", 0.0, gold), judged(OTHER, "D-R", 0.3, gold)]
        (matrix,) = matrices(cells)
        return Judged(matrix, Rule(), cells[0], cells[0].columns.ids).fingerprint()

    assert fingerprint(300) == fingerprint(300) != fingerprint(400)


def test_gold_is_written_down_with_an_attempt() -> None:
    attempt = replace(cell_of([1.0]).attempts[0], gold=Score(0.0, 0.5))
    row = json.loads(json.dumps(attempt_row(attempt)))
    assert attempt_of(row, attempt.problem).gold == Score(0.0, 0.5)
    assert "gold" not in attempt_row(cell_of([1.0]).attempts[0])


def test_results_hold_the_agreement_of_the_cheap_score() -> None:
    cells = [judged(TRUTH, "teacher", 0.25, 300), cell_of(TRUTH, "single", "none")]
    first, second = build_results(cells, config_of(), [], {"name": "x"})["cells"]
    assert first["gold"]["n"] == 300
    assert first["value"] == value_of(cells[0])
    assert "gold" not in second


def test_outcomes_without_gold_are_left_as_they_are() -> None:
    cell = cell_of(TRUTH, decomposer=component_of("D-R"))
    found = outcomes_of(cell.columns, "exact_match")
    assert found.correction is None
    assert found.values.tolist() == TRUTH
