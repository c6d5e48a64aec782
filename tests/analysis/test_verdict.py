"""The rule of docs/verdict.md, case by case: conditions of each verdict, and effects of unknown values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from measured import PRICES, STUDENT, TEACHER, cell_of, component_of, config_of, correlated, matrix

from fractionate.analysis.matrix import key_of
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule, Standing
from fractionate.analysis.verdict import VERSION, decide
from fractionate.statistics import bonferroni_confidence, interim_confidence, questions_to_decide, tango
from fractionate.types import Cell, Component

N = 600
GOOD = [1.0] * 400 + [0.0] * 200
POOR = [1.0] * 250 + [0.0] * 350
"""Differs from GOOD on 150 questions, always for the worse."""
NEVER = [0.0] * N


def verdict_of(cells, **sections):
    config = config_of(**sections)
    return decide(cells, Pricing(config.prices), Rule.of(config))


def run(
    decomposer=GOOD, solver=POOR, pair=POOR, reference=GOOD, single=POOR, cot=POOR, untrained=POOR, dataset="atlas"
) -> list[Cell]:
    """Return a matrix with every control; None leaves a cell out."""
    cells = [
        (reference, "static", "teacher", "teacher"),
        (single, "single", "none", "teacher"),
        (cot, "single-cot", "none", "teacher"),
        (decomposer, "static", "D-R", "teacher"),
        (solver, "static", "teacher", "E-A"),
        (pair, "static", "D-R", "E-A"),
        (untrained, "static", "student", "teacher"),
        (untrained, "static", "teacher", "student"),
        (untrained, "static", "student", "E-A"),
        (untrained, "static", "D-R", "student"),
    ]
    return [cell_of(*cell, dataset=dataset) for cell in cells if cell[0] is not None]


def finding(verdict, part):
    (found,) = [row for row in verdict.evidence if row["part"] == part]
    return found


def control(row, claim):
    return [one for one in row["controls"] if one["claim"] == claim]


def test_a_decomposer_that_keeps_the_outcome_costs_less_and_passes_its_controls_is_recommended():
    verdict = verdict_of(run())
    assert verdict.distill == "decomposer"
    assert verdict.because.startswith("Distill the decomposer: let Tiny-1B, trained on screened demonstrations (D-R), ")
    shown = finding(verdict, "decomposer")
    assert (shown["non_inferior"], shown["cheaper"], shown["worth"]) == ("yes", "yes", "yes")
    assert shown["ci_low"] == pytest.approx(tango(0, 0, N, shown["confidence"]).low)
    assert finding(verdict, "solver")["worth"] == "no"
    assert verdict.rule["version"] == VERSION
    assert verdict.datasets[0]["recommended"] == "atlas/static/D-R/teacher"


def test_a_solver_that_keeps_the_outcome_and_costs_less_is_recommended():
    verdict = verdict_of(run(decomposer=POOR, solver=GOOD))
    assert verdict.distill == "solver"
    assert (finding(verdict, "decomposer")["non_inferior"], finding(verdict, "decomposer")["worth"]) == ("no", "no")


def test_the_cheapest_of_all_that_pass_is_recommended_whatever_its_parts():
    verdict = verdict_of(run(solver=GOOD, pair=GOOD))
    assert verdict.distill == "both"
    assert verdict.recommended["cell"] == "atlas/static/D-R/E-A", "the cheapest of all that pass"
    assert {row["worth"] for row in verdict.evidence if row["part"] != "decomposing"} == {"yes"}
    failed = verdict_of(run(solver=GOOD, pair=POOR))
    assert failed.distill == "solver", "solving costs more tokens here, so its student saves more"
    alone = verdict_of(run(decomposer=POOR, solver=POOR, pair=GOOD))
    assert alone.distill == "both", "the pair may pass where neither part does alone"


def test_all_configurations_share_one_confidence():
    cells = run(decomposer=correlated(0.6, N, 1), solver=correlated(0.6, N, 2), pair=correlated(0.6, N, 3))
    verdict = verdict_of(cells)
    levels = {row["confidence"] for row in verdict.evidence if row["part"] != "decomposing"}
    assert (verdict.rule["confidence"], verdict.rule["one_sided_level"]) == (0.95, pytest.approx(0.025))
    (level,) = levels
    assert 0.95 < level <= bonferroni_confidence(0.95, 3)


def test_neither_only_where_both_parts_are_shown_not_to_pay():
    assert verdict_of(run(decomposer=POOR, solver=POOR)).distill == "neither"
    untried = verdict_of(run(decomposer=POOR, solver=None, pair=None))
    assert untried.distill == "undecided"
    assert "no student solver was measured" in untried.because


@pytest.mark.parametrize(
    ("cells", "distill", "said"),
    [
        (run(cot=[1.0] * 590 + [0.0] * 10), "neither", "answer in one stage"),
        (run(untrained=GOOD), "neither", "use the untrained model, which does as well (66.7 %)"),
        (run(cot=None), "undecided", "lacks a control: single-cot by teacher"),
        (run(untrained=None), "undecided", "lacks a control: the untrained model in the place of D-R"),
        (run(*[NEVER] * 7), "neither", "nothing works here: 0 of 600"),
    ],
    ids=["single-cot-30-points-above", "untrained-as-good", "no-cot", "no-untrained", "floor"],
)
def test_without_its_controls_nothing_is_recommended(cells, distill, said):
    verdict = verdict_of(cells)
    assert verdict.distill == distill
    assert said in verdict.because


def test_a_configuration_may_show_itself_that_decomposing_helps():
    better = [1.0] * 560 + [0.0] * 40
    verdict = verdict_of(run(decomposer=better, single=GOOD, cot=GOOD, solver=None, pair=None))
    assert verdict.distill == "decomposer", "the undistilled pair does not beat one stage, D-R does"
    again = verdict_of(run(single=GOOD, cot=GOOD, solver=None, pair=None))
    assert again.distill == "neither" or again.distill == "undecided"
    assert "answer in one stage" in again.because


def test_a_student_that_costs_as_much_is_better_but_not_cheaper_unless_an_answer_has_a_value():
    free = {**PRICES, TEACHER: {"input_per_million": 0.0, "output_per_million": 0.0}}
    better = [1.0] * 560 + [0.0] * 40
    verdict = verdict_of(run(decomposer=better), prices=free)
    shown = finding(verdict, "decomposer")
    assert (shown["superior"], shown["cheaper"], shown["worth"]) == ("yes", "no", "no")
    assert "is better, but not cheaper (verdict.usd_per_correct weighs the two)" in verdict.because
    valued = verdict_of(run(decomposer=better), prices=free, verdict={"usd_per_correct": 0.01})
    assert (valued.distill, finding(valued, "decomposer")["net"]) == ("decomposer", "yes")
    assert finding(valued, "decomposer")["net_usd"] == pytest.approx(0.01 * 160 / 600)


def test_a_value_of_an_answer_may_speak_against_a_cheaper_worse_part():
    slightly = [1.0] * 396 + [0.0] * 204
    assert verdict_of(run(decomposer=slightly)).distill == "decomposer", "four in 600 lie within the margin"
    dear = verdict_of(run(decomposer=slightly), verdict={"usd_per_correct": 10.0})
    assert finding(dear, "decomposer")["net"] in ("no", "undecided")
    assert dear.distill != "decomposer"


def test_a_student_that_costs_more_is_not_cheaper():
    dear = {**PRICES, STUDENT: {"output_per_million": 900.0}}
    verdict = verdict_of(run(), prices=dear)
    assert finding(verdict, "decomposer")["cheaper"] == "no"
    assert "costs no less" in verdict.because
    assert verdict.saving["share"] < 0 < verdict.saving["usd_per_1000_before"] < verdict.saving["usd_per_1000_after"]


def test_few_questions_leave_it_undecided_with_a_range_that_would_decide():
    verdict = verdict_of([cell_of([1] * 10 + [0] * 5), cell_of([1] * 10 + [0] * 5, decomposer="D-R")])
    shown = finding(verdict, "decomposer")
    assert verdict.distill == "undecided"
    assert (shown["non_inferior"], shown["worth"]) == ("undecided", "undecided")
    needed = questions_to_decide([0.0] * 15, -0.02, shown["confidence"])
    assert (shown["n_to_decide_low"], shown["n_to_decide_high"]) == (needed.low, needed.high)


def test_the_number_that_would_decide_does_decide_when_the_measured_rates_hold():
    small = [cell_of(correlated(0.6, 150, 1)), cell_of(correlated(0.61, 150, 2), decomposer="D-R")]
    shown = finding(verdict_of(small), "decomposer")
    assert shown["non_inferior"] == "undecided"
    times = -(-shown["n_to_decide"] // 150)
    larger = [
        cell_of(correlated(0.6, 150, 1) * times),
        cell_of(correlated(0.61, 150, 2) * times, decomposer="D-R"),
    ]
    assert finding(verdict_of(larger), "decomposer")["non_inferior"] == "yes"


def test_each_look_at_more_questions_is_paid_for():
    config = config_of()
    cells = run(solver=None, pair=None)

    def after(**standing):
        return decide(cells, Pricing(config.prices), Rule.of(config, {"atlas": Standing(**standing)}))

    once, again, other = after(), after(sizes=(150, 300)), after(family=2)
    assert finding(once, "decomposer")["confidence"] == pytest.approx(1 - 0.05 * 0.8)
    assert finding(again, "decomposer")["confidence"] == pytest.approx(
        interim_confidence(0.955, [150, 300, N], None, 1 / 9)
    )
    assert finding(other, "decomposer")["confidence"] == pytest.approx(1 - 0.05 * 0.1 / 2 * 8 / 9)
    assert [round(one.rule["error_spent"]["atlas"], 4) for one in (once, again, other)] == [0.8, 0.875, 0.9444]
    assert after(sizes=(N,)).as_dict() == once.as_dict(), "the same questions again are no new look"


def test_a_verdict_waits_for_all_runs_that_are_to_be_pooled():
    verdict = verdict_of(run(), verdict={"runs": 3})
    assert (verdict.distill, verdict.evidence) == ("undecided", [])
    assert "1 of 3 runs" in verdict.because


def test_a_sealed_test_set_is_judged_once_at_the_whole_error():
    config = config_of(data={"test": "atlas", "sealed": True})
    first = decide(run(), Pricing(config.prices), Rule.of(config))
    assert finding(first, "decomposer")["confidence"] >= 0.95
    assert first.rule["error_spent"] == {"atlas": 1.0}
    later = decide(run(), Pricing(config.prices), Rule.of(config, {"atlas": Standing(2, opened=True)}))
    assert (later.distill, later.evidence) == ("undecided", [])
    assert "the sealed test set was opened" in later.because


def test_a_planned_number_of_questions_keeps_the_error_for_it():
    early = verdict_of(run(solver=None, pair=None), verdict={"questions": 4 * N})
    assert finding(early, "decomposer")["confidence"] > 0.999
    planned = verdict_of(run(solver=None, pair=None), verdict={"questions": N})
    assert finding(planned, "decomposer")["confidence"] == pytest.approx(0.96)


def test_an_unknown_price_is_an_unknown_cost_and_never_a_saving():
    recorded = replace(component_of("recorded:rows/bc.jsonl"), kind="distilled", trained_for="decomposer")
    cells = [cell_of(GOOD), cell_of(GOOD, decomposer=recorded)]
    verdict = verdict_of(cells)
    shown = finding(verdict, "decomposer")
    assert (shown["cheaper"], shown["usd_difference"], shown["worth"]) == ("unknown", None, "undecided")
    assert verdict.distill == "undecided"
    assert "lacks a price for bc." in verdict.because
    assert (verdict.saving, verdict.outcome["n"]) == (None, N)
    assert "'prices.\"recorded:rows/bc.jsonl\".input_per_million=USD'" in verdict.next


def test_distilled_models_from_elsewhere_are_candidates_and_others_are_not():
    teacher, first, second = (f"recorded:x/{name}.jsonl" for name in ("chatgpt", "bc", "filtered"))
    distilled = [replace(component_of(name), kind="distilled", trained_for="decomposer") for name in (first, second)]
    cells = [
        cell_of(GOOD, decomposer=replace(component_of(teacher), kind="teacher"), solver="recorded:y/s.jsonl"),
        *(cell_of(POOR, decomposer=one, solver="recorded:y/s.jsonl") for one in distilled),
        cell_of(GOOD, decomposer="recorded:x/other.jsonl", solver="recorded:y/s.jsonl"),
    ]
    verdict = verdict_of(cells)
    assert [row["decomposer"] for row in verdict.evidence if row["part"] == "decomposer"] == [first, second]


def test_a_student_from_elsewhere_is_recommended_once_its_untrained_base_is_beaten():
    student = Component("recorded:s", "distilled", "decomposer", STUDENT, "", "decomposer", base="recorded:untrained")
    base = Component("recorded:untrained", "model", "decomposer", "recorded:untrained")
    cells = run(decomposer=None, solver=None, pair=None, untrained=None)
    cells.append(cell_of(GOOD, decomposer=student))
    assert verdict_of(cells).distill == "undecided"
    verdict = verdict_of([*cells, cell_of(POOR, decomposer=base)])
    assert verdict.distill == "decomposer"
    assert control(finding(verdict, "decomposer"), "decomposer")[0]["b"] == "atlas/static/recorded:untrained/teacher"


def test_none_teacher_gold_and_untrained_models_are_never_candidates():
    cells = [cell_of(GOOD, decomposer=name) for name in ("teacher", "gold", "student", TEACHER)]
    cells += [cell_of(GOOD, solver="local:org/Other"), cell_of(GOOD, "single", "none", "teacher")]
    verdict = verdict_of(cells)
    assert {row["part"] for row in verdict.evidence} == {"decomposing"}
    assert "nothing was distilled" in verdict.because
    assert verdict.distill == "undecided"


def test_a_missing_undistilled_pair_is_named():
    verdict = verdict_of([cell_of(GOOD, decomposer="D-R")])
    assert verdict.distill == "undecided"
    assert "(teacher, teacher) under static was not measured" in verdict.because


def test_config_chooses_strategy_and_solver():
    cells = [*run(), *(cell_of(POOR, "stepwise", name, "E-A") for name in ("teacher", "D-R"))]
    chosen = verdict_of(cells, verdict={"strategy": "stepwise", "solver": "E-A"})
    assert {row["strategy"] for row in chosen.evidence if row["part"] != "decomposing"} == {"stepwise"}


def test_a_wider_margin_and_less_confidence_decide_sooner():
    cells = [
        *(cell_of(GOOD[:150], decomposer=name) for name in ("teacher", "D-R")),
        cell_of(NEVER[:150], "single", "none"),
        cell_of(NEVER[:150], "single-cot", "none"),
        cell_of(NEVER[:150], decomposer="student"),
    ]
    assert verdict_of(cells).distill == "undecided"
    assert verdict_of(cells, verdict={"margin": 5.0}).distill == "decomposer"
    assert verdict_of(cells, verdict={"confidence": 0.8}).distill == "decomposer"


@pytest.mark.parametrize(("single", "passed"), [(POOR, "yes"), (GOOD, "no"), ([1.0] * 600, "no")])
def test_the_evidence_says_whether_decomposing_helps(single, passed):
    rows = [row for row in verdict_of(run(single=single, cot=POOR)).evidence if row["part"] == "decomposing"]
    (beside,) = [row for row in rows if row["b"] == "atlas/single/none/teacher"]
    assert beside["passed"] == passed
    assert (beside["ci_high"] < 0) == (single == [1.0] * 600), "it hurts"


def test_questions_that_share_a_passage_count_as_one_unit():
    def in_passages(cell: Cell) -> Cell:
        attempts = tuple(
            replace(one, problem=replace(one.problem, context=f"passage {place // 16}"))
            for place, one in enumerate(cell.attempts)
        )
        return replace(cell, attempts=attempts)

    alone = run(decomposer=correlated(0.62, N, 1), reference=correlated(0.6, N, 2), solver=None, pair=None)
    together = finding(verdict_of([in_passages(cell) for cell in alone]), "decomposer")
    assert together["clusters"] == 38
    assert finding(verdict_of(alone), "decomposer")["clusters"] == N


def test_test_sets_must_agree():
    other = run(solver=None, pair=None, dataset="other")
    agree = verdict_of([*run(solver=None, pair=None), *other])
    assert agree.distill == "decomposer"
    assert "still solves, on all 2 test sets. On atlas: " in agree.because
    differ = verdict_of([*run(decomposer=POOR), *other])
    assert differ.distill == "undecided"
    assert "the test sets disagree (neither on atlas, decomposer on other)" in differ.because
    assert [one["distill"] for one in differ.datasets] == ["neither", "decomposer"]


def test_the_front_holds_what_no_other_cell_beats_in_both():
    cells = [
        cell_of([1, 1, 1, 0], solver_tokens=400),
        cell_of([1, 1, 0, 0], decomposer="gold", solver_tokens=200),
        cell_of([1, 0, 0, 0], decomposer="gold", solver=TEACHER, solver_tokens=300),
    ]
    (judged,) = verdict_of(cells).datasets
    assert judged["front"] == ["atlas/static/gold/teacher", "atlas/static/teacher/teacher"]


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


def test_where_the_scorer_does_not_fit_the_sentence_is_no_verdict():
    cells = [
        replace(
            cell,
            attempts=tuple(replace(one, prediction=None, output="So the answer is yes.") for one in cell.attempts),
        )
        for cell in (cell_of([0] * 30), cell_of([0] * 30, decomposer="D-R"))
    ]
    verdict = verdict_of(cells)
    assert verdict.because.startswith(
        "No verdict, since the scorer of atlas does not fit: 30 of 30 unparsed: look in the report"
    )
    assert verdict.distill == "undecided"
    assert [one["distill"] for one in verdict.datasets] == ["undecided"]
    assert verdict.because.endswith("."), "and nothing of what the rule would say"
    assert "The rule" not in verdict.because
    own = verdict_of([replace(cell, dataset="jsonl") for cell in cells])
    assert own.because.endswith('30 of 30 unparsed; data.answer = "yes-no" parses 30 of 30.'), own.because
    assert "No verdict" not in verdict_of([cell_of([1] * 30), cell_of([1] * 30, decomposer="D-R")]).because


def test_a_saving_without_a_known_cap_on_replies_is_named_as_not_covered():
    uncapped = verdict_of(run())
    limit, _ = uncapped.limits
    assert limit["text"].startswith("Not covered: replies that run on")
    assert "No cap on their output tokens is known for local:org/Tiny-1B, openai:gpt-4o-mini" not in limit["text"]
    assert TEACHER in limit["text"]
    assert "atlas/static/D-R/teacher" in limit["configurations"]
    config = config_of()
    caps = {key_of(cell): {"decomposer": 256, "solver": 512} for cell in run()}
    capped = decide(run(), Pricing(config.prices), Rule.of(config, caps=caps))
    assert (capped.distill, [one["limit"] for one in capped.limits]) == ("decomposer", ["trainings that collapse"])
    assert "1 training was judged; a collapse in one training of five would be missed" in capped.limits[0]["text"]
    assert verdict_of(run(decomposer=POOR, pair=None, solver=None)).limits[1:] == [], "where nothing is recommended"
