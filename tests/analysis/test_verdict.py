"""The rule of docs/verdict.md, case by case: what must be shown for each answer, and what an unknown leaves open."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from measured import PRICES, TEACHER, cell_of, component_of, config_of, correlated, matrix

from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule
from fractionate.analysis.statistics import tango
from fractionate.analysis.verdict import decide
from fractionate.types import Cell

N = 600
GOOD = [1.0] * 400 + [0.0] * 200
POOR = [1.0] * 250 + [0.0] * 350
"""Differs from GOOD on 150 questions, always for the worse."""


def verdict_of(cells, **sections):
    config = config_of(**sections)
    return decide(cells, Pricing(config.prices), Rule.of(config))


def run(decomposer=GOOD, solver=POOR, pair=POOR, reference=GOOD, single=POOR) -> list[Cell]:
    cells = [
        cell_of(reference),
        cell_of(single, "single", "none", "teacher"),
        cell_of(decomposer, decomposer="D-R") if decomposer else None,
        cell_of(solver, solver="E-A") if solver else None,
        cell_of(pair, decomposer="D-R", solver="E-A") if pair else None,
    ]
    return [cell for cell in cells if cell is not None]


def finding(verdict, part):
    (found,) = [row for row in verdict.evidence if row["part"] == part]
    return found


def test_a_decomposer_that_keeps_the_outcome_and_costs_less_is_worth_distilling():
    verdict = verdict_of(run())
    assert verdict.distill == "decomposer"
    assert verdict.because.startswith("Distill the decomposer (600 questions, margin 2 points): D-R in the teacher's")
    shown = finding(verdict, "decomposer")
    assert (shown["non_inferior"], shown["cheaper"], shown["worth"]) == ("yes", "yes", "yes")
    assert shown["ci_low"] == pytest.approx(tango(0, 0, N).low)
    assert finding(verdict, "solver")["worth"] == "no"


def test_a_solver_that_keeps_the_outcome_and_costs_less_is_worth_distilling():
    verdict = verdict_of(run(decomposer=POOR, solver=GOOD))
    assert verdict.distill == "solver"
    assert "so the decomposer is not worth distilling" in verdict.because


def test_both_only_where_the_pair_together_passes():
    assert verdict_of(run(solver=GOOD, pair=GOOD)).distill == "both"
    failed = verdict_of(run(solver=GOOD, pair=POOR))
    assert failed.distill == "solver", "solving costs more tokens here, so its student saves more"
    assert "which does not pass, so only the part that saves more is named" in failed.because
    unmeasured = verdict_of(run(solver=GOOD, pair=None))
    assert unmeasured.distill == "solver"
    assert "both students together were not measured" in unmeasured.because


def test_neither_only_where_both_parts_are_shown_not_to_pay():
    assert verdict_of(run(decomposer=POOR, solver=POOR)).distill == "neither"
    untried = verdict_of(run(decomposer=POOR, solver=None, pair=None))
    assert untried.distill == "undecided"
    assert "no student solver was measured" in untried.because


def test_a_student_that_costs_as_much_is_shown_not_to_pay():
    free = {**PRICES, TEACHER: {"input_per_million": 0.0, "output_per_million": 0.0}}
    verdict = verdict_of(run(solver=GOOD, pair=GOOD), prices=free)
    assert finding(verdict, "decomposer")["cheaper"] == "no"
    assert verdict.distill == "neither"
    assert "costs the same" in verdict.because


def test_a_student_that_costs_more_by_the_hour_is_not_cheaper():
    dear = {**PRICES, "local:org/Tiny-1B@runs/demo/adapters/D-R": {"output_per_million": 900.0}}
    verdict = verdict_of(run(), prices=dear)
    assert finding(verdict, "decomposer")["cheaper"] == "no"
    assert "more per 1,000 questions" in verdict.because


def test_few_questions_leave_it_undecided_with_the_number_that_would_decide():
    verdict = verdict_of([cell_of([1] * 10 + [0] * 5), cell_of([1] * 10 + [0] * 5, decomposer="D-R")])
    shown = finding(verdict, "decomposer")
    assert verdict.distill == "undecided"
    assert (shown["non_inferior"], shown["worth"]) == ("undecided", "undecided")
    needed = shown["n_to_decide"]
    assert tango(0, 0, needed).low >= -0.02 > tango(0, 0, needed - 2).low
    assert f"about {needed:,} questions" in verdict.because


def test_the_number_that_would_decide_does_decide_when_the_measured_rates_hold():
    small = [cell_of(correlated(0.6, 150, 1)), cell_of(correlated(0.61, 150, 2), decomposer="D-R")]
    shown = finding(verdict_of(small), "decomposer")
    assert shown["non_inferior"] == "undecided"
    times = math.ceil(shown["n_to_decide"] / 150)
    larger = [
        cell_of(correlated(0.6, 150, 1) * times),
        cell_of(correlated(0.61, 150, 2) * times, decomposer="D-R"),
    ]
    assert finding(verdict_of(larger), "decomposer")["non_inferior"] == "yes"


def test_an_unknown_price_is_an_unknown_cost_and_never_a_saving():
    cells = [cell_of(GOOD), cell_of(GOOD, decomposer="recorded:rows/bc.jsonl")]
    verdict = verdict_of(cells)
    shown = finding(verdict, "decomposer")
    assert (shown["cheaper"], shown["usd_difference"], shown["worth"]) == ("unknown", None, "undecided")
    assert shown["n_to_decide"] is None
    assert verdict.distill == "undecided"
    assert 'at an unknown cost, so the decomposer stays open (give prices for "recorded:rows/bc.jsonl")' in (
        verdict.because
    )
    priced = {**PRICES, "recorded:rows/bc.jsonl": {"input_per_million": 0.0, "output_per_million": 0.01}}
    assert verdict_of(cells, prices=priced).distill == "decomposer"


def test_recorded_decomposers_are_candidates_and_share_the_error():
    teacher, first, second = (f"recorded:x/{name}.jsonl" for name in ("chatgpt", "bc", "filtered"))
    cells = [
        cell_of(GOOD, decomposer=replace(component_of(teacher), kind="teacher"), solver="recorded:y/s.jsonl"),
        cell_of(GOOD, decomposer=first, solver="recorded:y/s.jsonl"),
    ]
    cells.append(cell_of(POOR, decomposer=second, solver="recorded:y/s.jsonl"))
    prices = {
        name: {"input_per_million": price, "output_per_million": price}
        for name, price in ((teacher, 1.0), (first, 0.1), (second, 0.1), ("recorded:y/s.jsonl", 1.0))
    }
    verdict = verdict_of(cells, prices=prices)
    assert verdict.distill == "decomposer"
    assert [row["confidence"] for row in verdict.evidence] == [pytest.approx(0.975)] * 2
    assert "bc, of 2 candidates, in the teacher's place" in verdict.because
    assert "97.5 % interval" in verdict.because


def test_none_teacher_and_gold_are_never_candidates():
    cells = [cell_of(GOOD), cell_of(GOOD, decomposer="gold"), cell_of(GOOD, decomposer=TEACHER)]
    verdict = verdict_of([*cells, cell_of(GOOD, "single", "none", "teacher")])
    assert [row["part"] for row in verdict.evidence] == ["decomposing"]
    assert "nothing was distilled" in verdict.because
    assert verdict.distill == "undecided"


def test_another_untrained_solver_is_no_candidate():
    verdict = verdict_of([cell_of(GOOD), cell_of(GOOD, solver="local:org/Other")])
    assert verdict.evidence == []


def test_a_missing_undistilled_pair_is_named():
    verdict = verdict_of([cell_of(GOOD, decomposer="D-R")])
    assert verdict.distill == "undecided"
    assert "(teacher, teacher) under static was not measured" in verdict.because


def test_config_chooses_strategy_and_solver():
    cells = [*run(), *(cell_of(POOR, "stepwise", name, "E-A") for name in ("teacher", "D-R"))]
    chosen = verdict_of(cells, verdict={"strategy": "stepwise", "solver": "E-A"})
    assert {row["strategy"] for row in chosen.evidence} == {"stepwise"}


def test_a_wider_margin_and_less_confidence_decide_sooner():
    cells = [cell_of(GOOD[:150]), cell_of(GOOD[:150], decomposer="D-R")]
    assert verdict_of(cells).distill == "undecided"
    assert verdict_of(cells, verdict={"margin": 5.0}).distill == "decomposer"
    assert verdict_of(cells, verdict={"confidence": 0.8}).distill == "decomposer"


@pytest.mark.parametrize(
    ("single", "said"),
    [
        (POOR, "decomposing itself helps here (66.7 % against 41.7 % in single stage"),
        (GOOD, "decomposing itself does not help here as far as 600 questions can show"),
        ([1.0] * 600, "decomposing itself does not help here, it hurts"),
    ],
)
def test_the_sentence_says_whether_decomposing_helps(single, said):
    assert said in verdict_of(run(single=single)).because


def test_decomposing_is_judged_against_the_better_single_stage():
    cells = [*run(), cell_of([1.0] * 600, "single-cot", "none", "teacher")]
    assert "in single stage with chain of thought" in verdict_of(cells).because


def test_test_sets_must_agree():
    other = [
        cell_of(outcomes, decomposer=name, dataset="other") for name, outcomes in (("teacher", GOOD), ("D-R", GOOD))
    ]
    agree = verdict_of([*run(solver=None, pair=None), *other])
    assert agree.distill == "decomposer"
    assert "as all 2 test sets say: on atlas" in agree.because
    differ = verdict_of([*run(decomposer=POOR), *other])
    assert differ.distill == "undecided"
    assert "the test sets disagree (neither on atlas, decomposer on other)" in differ.because
    assert [one["distill"] for one in differ.datasets] == ["neither", "decomposer"]


@pytest.mark.parametrize("metric", ["exact_match", "f1"])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_any_number_of_questions_gives_a_verdict_that_json_can_hold(n, metric):
    verdict = verdict_of(matrix(n, metric=metric))
    json.dumps(verdict.as_dict(), allow_nan=False)
    assert verdict.distill == "undecided"


def test_nothing_measured_is_undecided():
    assert verdict_of([]).because == "Undecided: nothing was measured."


def test_one_question_never_shows_a_saving():
    shown = finding(verdict_of([cell_of([1]), cell_of([1], decomposer="D-R")]), "decomposer")
    assert (shown["cheaper"], shown["usd_ci_low"]) == ("undecided", None)
