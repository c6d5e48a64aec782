"""Recipes equal the optima of an independent computation and of SciPy's SLSQP."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from fractionate.errors import UsageError
from fractionate.planning import SCENARIOS, SETS, Setting, Teacher, recipe, spread, training_flops
from fractionate.planning.choice import advantage, best_size, crossover_range, least_compute
from planning.published import BEST_TEACHER, CROSSOVERS, OPTIMA, OPTIMAL_PRETRAINING

PAPER = SETS["paper-corrected"]


@pytest.mark.parametrize(("where", "losses"), OPTIMA.items())
def test_reference_optima(where, losses):
    for scenario, expected in zip(SCENARIOS.values(), losses[1:], strict=True):
        found = recipe(Setting(*where, scenario))
        assert found.student_loss == pytest.approx(expected, rel=2e-4), scenario.name
        assert found.supervised_loss == pytest.approx(losses[0], rel=2e-4)
        assert found.compute == pytest.approx(where[1], rel=1e-6)
    assert recipe(Setting(*where)).teacher_loss == pytest.approx(BEST_TEACHER[where], abs=2e-3)


@pytest.mark.parametrize(("where", "expected"), OPTIMAL_PRETRAINING.items())
def test_reference_sizes_and_lengths(where, expected):
    found = recipe(Setting(*where, SCENARIOS["teacher-pretraining"]))
    assert (found.student_tokens, found.teacher_params, found.teacher_tokens) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("scenario", ["teacher-pretraining", "both"])
@pytest.mark.parametrize(("params", "compute"), [(2e8, 3e19), (3e9, 2e22)])
def test_slsqp_finds_nothing_better(scenario, params, compute):
    """The paper's own way: SLSQP over the logarithms of D_S, N_T and D_T under the budget, from several starts."""
    setting = Setting(params, compute, SCENARIOS[scenario])

    def loss(x):
        d_s, n_t, d_t = np.exp(x)
        teacher = PAPER.supervised.loss(n_t, d_t)
        return float(PAPER.distilled.loss(params, d_s, teacher, PAPER.supervised.loss(params, d_s)))

    def left(x):
        d_s, n_t, d_t = np.exp(x)
        return 1 - float(training_flops(params, d_s, n_t, d_t, scenario)) / compute

    bounds = [(math.log(1e6), math.log(1e17))] * 3
    found = math.inf
    for start in ([24, 20, 24], [23, 21, 25], [26, 22, 23]):
        one = minimize(loss, start, method="SLSQP", bounds=bounds, constraints={"type": "eq", "fun": left})
        if one.success and abs(left(one.x)) < 1e-6:
            found = min(found, one.fun)
    assert math.isfinite(found)
    assert recipe(setting).student_loss == pytest.approx(found, rel=1e-6)


def test_the_cheapest_teacher_of_the_best_loss():
    """Best case: only the teacher's loss matters, and no other size reaches it with less training."""
    found = recipe(Setting(1e9, 1e21))
    cost = training_flops(1e9, 0, found.teacher_params, found.teacher_tokens, "teacher-pretraining")
    assert PAPER.supervised.loss(found.teacher_params, found.teacher_tokens) == pytest.approx(found.teacher_loss)
    for factor in (0.8, 0.95, 1.05, 1.3):
        size = found.teacher_params * factor
        tokens = PAPER.supervised.tokens_for(size, found.teacher_loss)
        assert training_flops(1e9, 0, size, tokens, "teacher-pretraining") > cost


@pytest.mark.parametrize("scenario", CROSSOVERS)
def test_crossovers_grow_with_the_student(scenario):
    found = {size: advantage(Setting(size, 1e21, SCENARIOS[scenario])) for size in CROSSOVERS[scenario]}
    for size, expected in CROSSOVERS[scenario].items():
        assert found[size].ends == pytest.approx(expected, rel=0.05)
        ahead, behind = (recipe(Setting(size, found[size].ends * f, SCENARIOS[scenario])) for f in (0.5, 2))
        assert ahead.student_loss < ahead.supervised_loss
        assert behind.student_loss > behind.supervised_loss
    ends = [one.ends for one in found.values()]
    assert ends == sorted(ends)


def test_a_teacher_for_one_student_does_not_pay_but_for_many_it_does():
    one = Setting(1e10, 1e21, SCENARIOS["both"])
    alone, many = recipe(one), recipe(replace(one, students=1000))
    assert alone.student_loss > alone.supervised_loss
    assert many.student_loss < alone.student_loss
    assert many.student_loss < many.supervised_loss


def test_a_given_teacher_leaves_the_rest_to_the_student():
    setting = Setting(1e9, 1e21, SCENARIOS["teacher-inference"], teacher=Teacher(7e9, loss=2.0))
    found = recipe(setting)
    assert training_flops(1e9, found.student_tokens, 7e9, paid="teacher-inference") == pytest.approx(1e21)
    assert (found.teacher_params, found.teacher_loss) == (7e9, 2.0)
    assert found.student_loss >= recipe(replace(setting, teacher=None)).student_loss
    by_tokens = recipe(replace(setting, teacher=Teacher(7e9, tokens=found.teacher_tokens)))
    assert by_tokens.student_loss == pytest.approx(found.student_loss)


def test_data_at_hand_cap_the_student_s_tokens():
    free = recipe(Setting(1e9, math.inf, student_tokens=2e10))
    assert free.student_tokens == 2e10
    assert free.student_loss == pytest.approx(2.3143, abs=1e-4)
    tight = recipe(Setting(1e9, 3e20, SCENARIOS["both"], student_tokens=2e10))
    assert tight.student_tokens <= 2e10 * (1 + 1e-9)
    assert tight.compute <= 3e20 * (1 + 1e-6)
    assert tight.student_loss > free.student_loss
    rich = recipe(Setting(1e9, 1e24, SCENARIOS["both"], student_tokens=2e10))
    assert rich.student_loss == pytest.approx(free.student_loss)
    assert rich.compute < 1e24


def test_tokens_to_serve_are_paid_from_the_budget_and_make_the_best_student_smaller():
    setting = Setting(1e9, 1e21, SCENARIOS["both"])
    serving = recipe(replace(setting, lifetime_tokens=1e11))
    assert serving.student_loss > recipe(setting).student_loss
    assert serving.compute == pytest.approx(1e21, rel=1e-6)
    lazy, busy = best_size(setting)[0], best_size(replace(setting, lifetime_tokens=1e12))[0]
    assert busy < lazy
    for factor in (0.7, 1.4):
        other = replace(setting, student_params=lazy * factor)
        assert recipe(other).student_loss > best_size(setting)[1].student_loss


def test_the_least_compute_for_a_loss_is_the_budget_that_reaches_it():
    setting = Setting(5e8, 1e21, SCENARIOS["both"])
    compute = least_compute(setting, 2.5)
    assert recipe(replace(setting, compute=compute)).student_loss == pytest.approx(2.5, abs=1e-4)
    with pytest.raises(UsageError, match=r"no budget brings a student of 5e\+08 parameters to a loss of 1\.5"):
        least_compute(setting, 1.5)


def test_a_recipe_comes_with_a_range():
    setting = Setting(1e9, 1e21, SCENARIOS["both"])
    found, ranges = recipe(setting), spread(setting, 120)
    for name in ("student_loss", "student_tokens", "teacher_params", "teacher_tokens", "teacher_loss"):
        low, high = ranges[name]
        assert low < getattr(found, name) < high, name
    assert spread(setting, 120) == ranges, "the same seed gives the same range"
    assert spread(replace(setting, coefficients=replace(PAPER, **NO_INTERVALS)), 50) == {}
    low, high = crossover_range(Setting(1e9, 1e21, SCENARIOS["teacher-inference"]), 30)
    assert low < 1.9e21
    assert high is None or high > 1.9e21


NO_INTERVALS = {"supervised_intervals": {}, "distillation_intervals": {}}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (Setting(1e9, 1e10), "a budget of 1e\\+10 FLOPs is too small for any recipe"),
        (Setting(1e9, 1e20, lifetime_tokens=1e12), "of them to serve its lifetime"),
        (Setting(1e9, math.inf), "a recipe needs a limit"),
        (Setting(-1e9, 1e20), "student_params must be a number above 0"),
        (Setting(1e9, 1e20, students=0), "students must be a number above 0"),
        (Setting(1e9, 1e20, lifetime_tokens=-1), "lifetime_tokens must be a number of 0 or more"),
        (Setting(1e9, 1e20, teacher=Teacher(7e9)), "needs its loss, or the tokens"),
        (Setting(1e9, 1e20, teacher=Teacher(7e9, loss=1.0)), "below the entropy floor"),
        (Setting(1e9, 1e20, student_tokens=10), "too few for any recipe"),
        (Setting(1e9, 1e20, coefficients=SETS["chinchilla"]), "supervised law only"),
    ],
)
def test_what_cannot_be_planned_is_named(setting, said):
    with pytest.raises(UsageError, match=said):
        recipe(setting)
