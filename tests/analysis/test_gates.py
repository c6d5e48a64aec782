"""The gates of a configuration in results.json: what a renderer needs to say why a configuration passes or not."""

from __future__ import annotations

import pytest
from measured import PRICES, TEACHER
from test_verdict import GOOD, POOR, finding, run, verdict_of


def gates(verdict, part="decomposer"):
    return {gate["gate"]: gate for gate in finding(verdict, part)["gates"]}


def test_every_gate_of_a_passing_configuration_is_passed_with_its_bound_beyond_its_limit():
    verdict = verdict_of(run())
    row, found = finding(verdict, "decomposer"), gates(verdict)
    assert [gate["gate"] for gate in row["gates"]] == ["outcome", "cost", "decomposing", "decomposing", "decomposer"]
    assert {gate["state"] for gate in row["gates"]} == {"passed"}
    outcome = found["outcome"]
    assert (outcome["unit"], outcome["limit"], outcome["bound"]) == ("pp", -2.0, pytest.approx(100 * row["ci_low"]))
    assert outcome["against"] == "atlas/static/teacher/teacher"
    cost = found["cost"]
    assert (cost["unit"], cost["limit"]) == ("ratio", 1.0)
    saved = 1 - row["usd_per_question"] / row["reference_usd_per_question"]
    assert cost["estimate"] == pytest.approx(1 - saved)
    assert cost["estimate"] <= cost["bound"] < 1
    control = found["decomposer"]
    assert (control["limit"], control["against"]) == (0.0, "atlas/static/student/teacher")
    assert control["bound"] > 0


def test_a_failed_gate_names_the_bound_that_shows_it():
    outcome = gates(verdict_of(run()), "solver")["outcome"]
    assert (outcome["state"], outcome["bound"]) == ("failed", outcome["high"])
    assert outcome["bound"] < outcome["limit"]
    vain = gates(verdict_of(run(untrained=GOOD)))["decomposer"]
    assert (vain["state"], vain["limit"]) == ("failed", 2.0)
    assert vain["bound"] <= vain["limit"]
    dear = gates(verdict_of(run(), prices={**PRICES, "local:org/Tiny-1B": {"output_per_million": 900.0}}))["cost"]
    assert (dear["state"], dear["bound"]) == ("failed", dear["low"])
    assert dear["bound"] > 1


def test_an_open_gate_says_why():
    few = gates(verdict_of(run(decomposer=GOOD[350:450], reference=GOOD[350:450])))
    assert (few["outcome"]["state"], few["outcome"]["reason"]) == ("open", "inconclusive")
    unmeasured = gates(verdict_of(run(untrained=None)))["decomposer"]
    assert (unmeasured["state"], unmeasured["reason"], unmeasured["bound"]) == ("open", "not measured", None)
    assert unmeasured["missing"] == "the untrained model in the place of D-R"
    unpriced = gates(verdict_of(run(), prices={}))["cost"]
    assert (unpriced["state"], unpriced["reason"]) == ("open", "no price")


def test_with_the_value_of_an_answer_one_gate_replaces_outcome_and_cost():
    free = {**PRICES, TEACHER: {"input_per_million": 0.0, "output_per_million": 0.0}}
    better = [1.0] * 560 + [0.0] * 40
    verdict = verdict_of(run(decomposer=better), prices=free, verdict={"usd_per_correct": 0.01})
    found = gates(verdict)
    assert {"outcome", "cost"}.isdisjoint(found)
    net = found["net_value"]
    assert (net["state"], net["unit"], net["limit"]) == ("passed", "usd", 0.0)
    assert 0 < net["bound"] < net["estimate"]
    lost = gates(verdict_of(run(decomposer=POOR), verdict={"usd_per_correct": 10.0}))["net_value"]
    assert (lost["state"], lost["bound"]) == ("failed", lost["high"])
