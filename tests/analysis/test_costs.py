"""Costs and net value with further sources of variance: a run's seed, a loss that was never observed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measured import PRICES, TEACHER, cell_of, config_of
from scipy import stats

from fractionate.analysis.contrasts import contrast
from fractionate.analysis.costs import compare_costs, dollars, metered, net_value, unpriced
from fractionate.analysis.findings import NetValue
from fractionate.analysis.matrix import Matrix, key_of, pool_cells
from fractionate.analysis.pricing import Pricing
from fractionate.statistics import Metered, metered_difference, tango
from fractionate.types import Throughput, Usage

N = 200
RIGHT = [1.0] * 120 + [0.0] * 80
DEAR = {**PRICES, "local:org/Tiny-1B": {"input_per_million": 0.15, "output_per_million": 0.60}}


def written(cell, tokens):
    """Return a cell whose decomposer wrote exactly so many tokens for every question, its solver none."""
    usage = Usage(1, 0, 0, tokens)
    return replace(
        cell,
        attempts=tuple(replace(one, decomposer_usage=usage, solver_usage=Usage()) for one in cell.attempts),
    )


def pooled(*tokens, right=RIGHT):
    """Return the teacher's pair and a student's, pooled over runs in which the student wrote so many tokens."""
    runs = {
        f"seed {seed}": [written(cell_of(right), 60), written(cell_of(right, decomposer="D-R"), count)]
        for seed, count in enumerate(tokens)
    }
    reference, student = pool_cells(runs)[0]
    return student, reference


def test_what_seeds_leave_open_about_a_cost_is_students_interval_of_the_runs():
    tokens = np.array([50.0, 58.0, 66.0])
    student, reference = pooled(*tokens.astype(int))
    cost = compare_costs(student, reference, Pricing(config_of(prices=DEAR).prices), 0.95)
    low, high = stats.t.interval(0.95, 2, np.mean(tokens - 60), stats.sem(tokens))
    assert (cost.ci_low, cost.ci_high) == pytest.approx((low * 0.6e-6, high * 0.6e-6), abs=1e-11)
    assert cost.cheaper == "undecided"


def test_seeds_leave_as_much_open_about_the_cost_of_the_first_questions_alone():
    pricing = Pricing(config_of(prices=DEAR).prices)
    cells = pooled(50, 58, 66)
    first = [replace(cell, attempts=cell.attempts[:50]) for cell in cells]
    whole, early = compare_costs(*cells, pricing, 0.95), compare_costs(*first, pricing, 0.95)
    assert early.ci_high - early.ci_low == pytest.approx(whole.ci_high - whole.ci_low, rel=1e-9)
    assert (early.cheaper, len(first[0].columns.runs), len(first[0].attempts)) == ("undecided", 3, 50)


def test_a_student_that_every_seed_makes_cheaper_is_cheaper():
    student, reference = pooled(29, 30, 31)
    assert compare_costs(student, reference, Pricing(config_of(prices=DEAR).prices), 0.95).cheaper == "yes"


def test_one_pooled_run_is_no_sample_of_seeds():
    student, reference = pooled(30)
    cost = compare_costs(student, reference, Pricing(config_of(prices=DEAR).prices), 0.95)
    assert (cost.cheaper, cost.ci_low) == ("yes", pytest.approx(-30 * 0.6e-6))


def test_without_the_price_of_either_side_which_is_cheaper_is_unknown():
    known, unpriced_one = written(cell_of(RIGHT), 60), written(cell_of(RIGHT, decomposer="D-R"), 30)
    unpriced_one = replace(unpriced_one, decomposer=replace(unpriced_one.decomposer, model="openai:without-a-price"))
    pricing = Pricing(config_of(prices=DEAR).prices)
    for a, b in ((known, unpriced_one), (unpriced_one, known)):
        cost = compare_costs(a, b, pricing, 0.95)
        assert (cost.cheaper, cost.difference, cost.ci_low) == ("unknown", None, None)
        assert [one is None for one in (cost.usd, cost.reference_usd)] == [one is unpriced_one for one in (a, b)]


def test_amounts_by_seed_must_be_of_the_same_seeds():
    a, b = (Metered([1.0, 2.0], 1.0, None, [1.5] * seeds) for seeds in (2, 3))
    with pytest.raises(ValueError, match="same seeds"):
        metered_difference([a], [b])


def test_a_loss_that_was_not_seen_still_counts_at_the_value_of_a_right_answer():
    """At 2 cents an answer, 1 in 667 lost outweighs $0.00003 saved: 200 questions without a loss cannot exclude it."""
    reference, student = written(cell_of(RIGHT), 60), written(cell_of(RIGHT, decomposer="D-R"), 10)
    matrix, pricing = Matrix("atlas", (reference, student)), Pricing(config_of(prices=DEAR).prices)
    outcome, cost = contrast(matrix, student, reference, 0.95), compare_costs(student, reference, pricing, 0.95)
    saved = 50 * 0.6e-6
    net = net_value(outcome, cost, 0.02)
    assert (net.answer, net.usd) == ("undecided", pytest.approx(saved))
    enough = saved / -tango(0, 0, N).low
    assert net_value(outcome, cost, enough * 0.99).answer == "yes"
    assert net_value(outcome, cost, enough * 1.01).answer == "undecided"


def test_a_pair_that_loses_more_than_it_saves_is_shown_to():
    reference, student = written(cell_of(RIGHT), 60), written(cell_of([0.0] * N, decomposer="D-R"), 10)
    matrix, pricing = Matrix("atlas", (reference, student)), Pricing(config_of(prices=DEAR).prices)
    outcome, cost = contrast(matrix, student, reference, 0.95), compare_costs(student, reference, pricing, 0.95)
    assert net_value(outcome, cost, 0.02).answer == "no"


def test_a_cell_of_fewer_runs_does_not_hide_what_the_other_ones_runs_leave_open():
    student, reference = pooled(30, 30, 30)
    better = [[1.0] * (120 + 20 * seed) + [0.0] * (80 - 20 * seed) for seed in range(3)]
    runs = {f"seed {seed}": [cell_of(right, decomposer="D-R")] for seed, right in enumerate(better)}
    ((varied,), _) = pool_cells(runs)
    once = pool_cells({"seed 0": [cell_of(RIGHT)]})[0][0]
    for other in (once, cell_of(RIGHT)):
        found = contrast(Matrix("atlas", (varied, other)), varied, other, 0.95)
        same = contrast(Matrix("atlas", (varied, reference)), varied, reference, 0.95)
        assert (found.seeds, found.ci_low, found.ci_high) == (3, same.ci_low, same.ci_high)
    used = [run.column("decomposer_output_tokens")[0] for run in student.columns.runs]
    assert used == [30, 30, 30]


def test_an_attempt_costs_what_its_own_usages_cost():
    """Both roles have several usages, shared by some attempts: each attempt gets the sum of its own two."""
    rng = np.random.default_rng(0)
    used = [(Usage(1, int(a), 0, int(b)), Usage(1, int(c), 2, int(d))) for a, b, c, d in rng.integers(2, 5, (40, 4))]
    cell = cell_of([1.0] * len(used))
    cell = replace(
        cell,
        attempts=tuple(
            replace(one, decomposer_usage=decomposed, solver_usage=solved)
            for one, (decomposed, solved) in zip(cell.attempts, used, strict=True)
        ),
    )
    pricing = Pricing(config_of(prices=DEAR).prices)
    expected = [sum(pricing.usd(TEACHER, usage) for usage in both) for both in used]
    assert dollars(cell, cell.columns, pricing).tolist() == pytest.approx(expected, rel=1e-9)
    unknown = replace(cell, solver=replace(cell.solver, model="openai:no-such-model-1"))
    assert dollars(unknown, cell.columns, pricing) is None
    assert unpriced([cell, unknown], pricing) == ("openai:no-such-model-1",)


def test_a_machines_hour_is_shared_out_over_its_cores_and_its_tokens():
    throughput = Throughput(input_per_s=(100.0, 200.0), output_per_s=(10.0, 40.0), cores=4)
    pricing = Pricing(config_of(prices={"local:m": {"per_hour": 7.2}}).prices, throughput={"local:m": throughput})
    by_tokens, read, wrote = metered(pricing, "local:m", [Usage(1, 30, 0, 5), Usage(1, 50, 0, 7)])
    assert by_tokens.amounts == [0.0, 0.0]
    assert (read.amounts, wrote.amounts) == ([30.0, 50.0], [5.0, 7.0])
    assert read.rates == pytest.approx([7.2 / 3600 / 4 / 100, 7.2 / 3600 / 4 / 200])
    assert wrote.rates == pytest.approx([7.2 / 3600 / 4 / 10, 7.2 / 3600 / 4 / 40])


def test_the_net_value_is_the_worth_of_the_outcome_less_the_cost():
    reference, student = written(cell_of(RIGHT), 60), written(cell_of([1.0] * 190 + [0.0] * 10, decomposer="D-R"), 90)
    matrix, pricing = Matrix("atlas", (reference, student)), Pricing(config_of(prices=DEAR).prices)
    outcome, cost = contrast(matrix, student, reference, 0.95), compare_costs(student, reference, pricing, 0.95)
    assert cost.cheaper == "no"
    net = net_value(outcome, cost, 0.01)
    assert (net.answer, net.usd) == ("yes", pytest.approx(0.01 * 0.35 - 30 * 0.6e-6))
    edge = cost.ci_high / outcome.ci_low
    assert net_value(outcome, cost, edge * 1.001).answer == "yes"
    assert net_value(outcome, cost, edge * 0.999).answer == "undecided"
    least = cost.ci_low / outcome.ci_high
    assert net_value(outcome, cost, least * 0.999).answer == "no"
    assert net_value(outcome, replace(cost, ci_low=None), 0.01) == NetValue("undecided", net.usd)
    same = compare_costs(reference, reference, pricing, 0.95)
    assert (same.cheaper, same.difference) == ("no", 0.0)


def capped(*cells, cap):
    return {key_of(cell): {"decomposer": cap, "solver": cap} for cell in cells}


def test_a_cap_leaves_room_for_replies_that_run_on_and_were_not_seen():
    student, reference = written(cell_of(RIGHT, decomposer="D-R"), 55), written(cell_of(RIGHT), 60)
    pricing = Pricing(config_of(prices=DEAR).prices)
    without = compare_costs(student, reference, pricing, 0.95)
    assert (without.cheaper, without.uncapped) == ("yes", ("local:org/Tiny-1B", TEACHER))
    bounded = compare_costs(student, reference, pricing, 0.95, capped(student, reference, cap=2000))
    assert (bounded.cheaper, bounded.uncapped) == ("undecided", ())
    assert bounded.ratio_high is not None
    assert bounded.ratio_high > 1
    low = compare_costs(student, reference, pricing, 0.95, capped(student, reference, cap=61))
    assert low.cheaper == "yes"
    assert low.ratio_high < bounded.ratio_high


def test_a_cap_that_a_reply_has_passed_is_none():
    student, reference = written(cell_of(RIGHT, decomposer="D-R"), 55), written(cell_of(RIGHT), 60)
    cost = compare_costs(student, reference, Pricing(config_of(prices=DEAR).prices), 0.95, capped(student, cap=54))
    assert "local:org/Tiny-1B" in cost.uncapped


def test_tokens_that_cost_nothing_need_no_cap():
    student, reference = written(cell_of(RIGHT, decomposer="D-R"), 55), written(cell_of(RIGHT), 60)
    cost = compare_costs(student, reference, Pricing(config_of().prices), 0.95, capped(reference, cap=64))
    assert (cost.cheaper, cost.uncapped) == ("yes", (TEACHER,)), "the student's own solver calls are the teacher's"


def test_one_question_with_a_cap_has_a_finite_interval():
    student, reference = written(cell_of([1.0], decomposer="D-R"), 55), written(cell_of([1.0]), 60)
    cost = compare_costs(
        student, reference, Pricing(config_of(prices=DEAR).prices), 0.95, capped(student, reference, cap=64)
    )
    assert (cost.cheaper, cost.ci_low is None, cost.ci_high is None) == ("undecided", False, False)
