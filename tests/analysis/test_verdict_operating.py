"""The whole rule on simulated runs: false recommendations at the boundary are rare, and a broken rule is noticed.

Quick forms of `benchmarks/verdict_operating.py`. Counts are of fixed seeds. Limits are such that a rule that errs at
.025 passes them with room, and one that takes questions, seeds or calls for more than they are does not.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fractionate.analysis.matrix import matrices
from fractionate.analysis.verdict import decide, judge
from fractionate.statistics import bonferroni_confidence

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from simulated_runs import Candidate, Latent, World, pricing_of, run_of
from verdict_operating import Result, chosen, judgements, may_pass, simulate, table
from verdict_scenarios import MARGIN, SCENARIOS


def scenario(name):
    (found,) = [one for one in SCENARIOS if one.name == name]
    return found


def recommended(name, repeats, **changed):
    case = scenario(name)
    return simulate(replace(case, world=replace(case.world, **changed)), repeats, seed=7).recommended


@pytest.mark.parametrize(
    ("name", "repeats", "most", "changed"),
    [
        ("discordant", 30, 3, {"n": 100}),
        ("untrained", 30, 3, {"n": 100}),
        ("equal cost", 30, 3, {"n": 100, "single": 0.2, "cot": 0.2}),
        ("value, losses", 30, 3, {"n": 100}),
        ("3 seeds, cost", 20, 2, {"n": 50}),
        ("3 seeds, value", 20, 2, {"n": 100}),
        ("chain of thought", 5, 0, {}),
        ("floor", 5, 0, {}),
        ("same cost", 5, 0, {}),
    ],
)
def test_what_is_on_the_border_is_rarely_recommended(name, repeats, most, changed):
    assert recommended(name, repeats, **changed) <= most


@pytest.mark.parametrize("name", ["discordant", "untrained", "equal cost"])
def test_a_rule_without_confidence_is_caught(name):
    assert recommended(name, 30, n=100, confidence=0.5) > 3


def test_what_is_clearly_better_is_recommended():
    assert recommended("power +10 points, n = 200", 32) >= 7, "of 8: power is counted over a quarter of the runs"


def test_outcomes_have_the_true_values_that_are_stated():
    random = np.random.default_rng(3)
    for world in (World(n=40_000), World(n=40_000, passage=16, icc=0.6), World(n=40_000, alike=1.0)):
        latent = Latent(world, random)
        reference = latent.outcomes(0.6)
        assert reference.mean() == pytest.approx(0.6, abs=0.02)
        assert latent.outcomes(0.58).mean() == pytest.approx(0.58, abs=0.02)
        lost, gained = latent.beside(reference, 0.6, 0.58), latent.beside(reference, 0.6, 0.62)
        assert (lost - reference).mean() == pytest.approx(-0.02, abs=0.004)
        assert (gained - reference).mean() == pytest.approx(0.02, abs=0.004)
        assert (lost <= reference).all()
        assert (gained >= reference).all()


def test_a_net_value_of_nothing_is_one():
    world = World(n=5_000, candidates=(Candidate(0.55),), net_of_nothing=True)
    random = np.random.default_rng(4)
    (matrix,) = matrices(run_of(world, random))
    rule = world.rule()
    (finding,) = judge(matrix, pricing_of(world, random), rule).findings
    assert rule.usd_per_correct is not None
    assert finding.net is not None
    assert finding.net.usd == pytest.approx(0.0, abs=0.025 * rule.usd_per_correct)


@pytest.mark.parametrize("name", ["losses, few", "untrained, both parts", "5 seeds, untrained"])
def test_runs_that_are_not_judged_could_not_have_passed(name):
    world = replace(scenario(name).world, n=100, confidence=0.5)
    random = np.random.default_rng(5)
    skipped = 0
    for _ in range(12):
        cells, pricing = run_of(world, random), pricing_of(world, random)
        (matrix,) = matrices(cells)
        if not may_pass(matrix, world.rule()):
            skipped += 1
            assert judge(matrix, pricing, world.rule()).chosen is None
    assert skipped


def test_the_judged_run_is_what_decide_says():
    world = scenario("power +10 points, n = 200").world
    random = np.random.default_rng(6)
    cells, pricing = run_of(world, random), pricing_of(world, random)
    verdict = decide(cells, pricing, world.rule())
    assert verdict.distill == "decomposer"
    assert verdict.datasets[0]["recommended"] == "made/static/student-0/teacher"


def test_later_looks_are_judged_at_more_confidence():
    world = World(n=90, looks=(30, 60, 90), candidates=(Candidate(0.95),), right=0.5)
    found = [judgement.findings[0].contrast for judgement in judgements(world, np.random.default_rng(8))]
    assert [one.n for one in found] == [30, 60, 90]
    assert found[0].confidence < found[1].confidence < found[2].confidence


def test_candidates_over_several_seeds_share_the_error_evenly():
    alike = World(seeds=2, n=60, candidates=(MARGIN,) * 3, alike=0.99, kin=0.9)
    random = np.random.default_rng(9)
    for world, evenly in ((alike, True), (replace(alike, seeds=1), False)):
        (matrix,) = matrices(run_of(world, random))
        rule = world.rule()
        confidence = judge(matrix, pricing_of(world, random), rule).findings[0].contrast.confidence
        even = bonferroni_confidence(rule.confidence_at(matrix.label, 60), 3)
        assert (confidence == even) is evenly


def test_the_table_marks_a_rate_over_the_accepted_one():
    lines = [Result("a case", "it is", False, 200, hits, 100, 1.0) for hits in (3, 4)]
    power = Result("power b", "it is better", True, 2000, 90, 100, 1.0)
    fine, over = [row for row in table([*lines, power]).splitlines() if "a case" in row]
    assert fine.endswith("| 200 | .030 (.010–.085) |")
    assert over.endswith("**over .03** |")
    assert "| power b | it is better | 2,000 | .900 (.826–.945) |" in table([*lines, power])
    assert chosen(["power +5"], SCENARIOS)
