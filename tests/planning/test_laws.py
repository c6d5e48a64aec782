"""The laws agree with an independent computation and behave as their authors state."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.errors import UsageError
from fractionate.planning import (
    SETS,
    Architecture,
    OutsideFittedRange,
    best_teacher_loss,
    student_loss,
    supervised_loss,
)
from fractionate.planning.flops import SIGMA_VOCABULARY
from fractionate.planning.laws import as_dict
from planning.published import TEACHER_LOSSES, TEACHERS, UNIT_VECTORS

pytestmark = pytest.mark.filterwarnings("ignore::fractionate.planning.predict.OutsideFittedRange")

PAPER = SETS["paper-corrected"]
sizes = st.floats(1e7, 1e11)
lengths = st.floats(1e8, 1e14)
teachers = st.floats(1.25, 6.0)


@pytest.mark.parametrize(("where", "expected"), UNIT_VECTORS.items())
def test_unit_vectors(where, expected):
    supervised, printed, corrected = expected
    assert supervised_loss(*where) == pytest.approx(supervised, abs=1e-6)
    assert student_loss(*where, TEACHER_LOSSES, SETS["paper-printed"]) == pytest.approx(printed, abs=1e-6)
    assert student_loss(*where, TEACHER_LOSSES) == pytest.approx(corrected, abs=1e-6)


@pytest.mark.parametrize(("params", "losses"), TEACHERS.items())
def test_supervised_losses_of_the_paper_s_teachers(params, losses):
    measured, expected = losses
    # The output layer's share of F(N) tells the width, and the width the size of the embedding.
    width = SIGMA_VOCABULARY * params ** (1 / 3)
    tokens = 20.37 * (params + Architecture().vocabulary * width)
    assert supervised_loss(params, tokens) == pytest.approx(expected, rel=5e-4)
    assert supervised_loss(params, tokens) == pytest.approx(measured, rel=0.015)


def test_hoffmann_s_law_and_its_refit():
    assert supervised_loss(7e10, 1.4e12, SETS["chinchilla"]) == pytest.approx(1.69 + 0.0838 + 0.1629, abs=2e-3)
    n, d = 1e9, 2e10
    by_hand = 1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658
    assert supervised_loss(n, d, SETS["chinchilla-refit"]) == pytest.approx(by_hand, abs=1e-12)


def test_scalars_give_a_float_and_arrays_broadcast():
    assert isinstance(student_loss(1e9, 2e10, 2.1), float)
    assert isinstance(best_teacher_loss(1e9, 2e10), float)
    grid = student_loss(np.array([[3e8], [1e9]]), [1e10, 2e10, 4e10], 2.1)
    assert grid.shape == (2, 3)
    assert grid[1, 1] == student_loss(1e9, 2e10, 2.1)
    best = best_teacher_loss(np.array([3e8, 1e9]), 2e10)
    assert best[1] == pytest.approx(best_teacher_loss(1e9, 2e10), abs=1e-9)


@given(sizes, lengths, teachers)
def test_a_student_is_above_its_teacher_and_more_of_anything_helps(params, tokens, teacher):
    loss = student_loss(params, tokens, teacher)
    assert loss >= teacher
    assert student_loss(2 * params, tokens, teacher) <= loss * (1 + 1e-12)
    assert student_loss(params, 2 * tokens, teacher) <= loss * (1 + 1e-12)
    assert supervised_loss(2 * params, tokens) < supervised_loss(params, tokens)
    assert supervised_loss(params, tokens) > 1.220


@given(st.floats(1.3, 2.6))
def test_an_endless_student_equals_its_teacher(teacher):
    assert student_loss(1e60, 1e60, teacher) == pytest.approx(teacher, abs=1e-6)


@given(sizes, lengths)
def test_a_hopeless_teacher_drags_its_student_to_itself(params, tokens):
    assert student_loss(params, tokens, 1e3) == pytest.approx(1e3, rel=1e-9)


@given(st.floats(1e8, 1.2e10), st.floats(3.7e9, 5e11))
def test_the_capacity_gap_is_a_u(params, tokens):
    """Down to one bottom and up again, as the teacher gets worse from the entropy floor on."""
    own = supervised_loss(params, tokens)
    best = best_teacher_loss(params, tokens)
    losses = student_loss(params, tokens, np.linspace(1.2205, 1.3 * own, 400))
    falling = np.diff(losses) < 0
    turns = np.flatnonzero(falling[:-1] != falling[1:])
    assert len(turns) <= 1
    assert not falling[-1]
    assert student_loss(params, tokens, best) <= losses.min() + 1e-9
    assert 1.22 < best < own


def test_the_bottom_of_the_u_for_a_billion_parameters():
    best = best_teacher_loss(1e9, 2e10)
    assert best == pytest.approx(1.933, abs=5e-4)
    assert student_loss(1e9, 2e10, best) == pytest.approx(2.3143, abs=5e-5)


@given(sizes, st.floats(1.3, 4.0))
def test_tokens_for_a_loss_lead_back_to_it(params, loss):
    tokens = PAPER.supervised.tokens_for(params, loss)
    if np.isfinite(tokens):
        assert PAPER.supervised.loss(params, tokens) == pytest.approx(loss, rel=1e-9)
    else:
        assert PAPER.supervised.loss(params, 1e300) >= loss - 1e-9


def test_only_k_and_f1_matter_not_c1_and_d1():
    """With another c1 and the d1 that keeps K, no loss moves by more than a few thousandths."""
    law = PAPER.distilled
    c1 = 4 * law.c1
    d1 = float(np.exp(law.f1 * (np.log(c1) + np.log(law.f1) - np.log(law.k))))
    other = type(law)(law.a, law.b, law.alpha, law.beta, law.gamma, law.c0, c1, law.f1, d1)
    assert other.k == pytest.approx(law.k)
    assert law.k == pytest.approx(2.24, abs=0.01)
    n, d = np.array([1.43e8, 1e9, 1.2e10])[:, None, None], np.array([4e9, 5e11])[:, None]
    t = np.linspace(1.9, 2.75, 30)
    own = PAPER.supervised.loss(n, d)
    assert np.abs(law.loss(n, d, t, own) - other.loss(n, d, t, own)).max() < 0.005


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: supervised_loss(-1e9, 1e10), "params must be a number above 0, not -1e+09"),
        (lambda: supervised_loss(1e9, [1e10, 0]), "tokens must be a number above 0, not 0"),
        (lambda: supervised_loss("many", 1e10), "params must be a number, not 'many'"),
        (lambda: student_loss(1e9, 1e10, float("nan")), "teacher_loss must be a number above 0"),
        (lambda: student_loss(1e9, 1e10, 1.1), "below the entropy floor E = 1.22"),
        (lambda: student_loss(1e9, 1e10, 2.1, SETS["chinchilla"]), "of a supervised law only"),
    ],
)
def test_bad_values_are_named(call, said):
    with pytest.raises(UsageError, match=said.replace("+", r"\+")):
        call()


def test_outside_the_fitted_range_a_warning_names_the_value():
    with pytest.warns(OutsideFittedRange, match=r"1e\+06 lies outside 1.43e\+08 to 1.261e\+10"):
        student_loss(1e6, 2e10, 2.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student_loss(1e9, 2e10, 2.1)


def test_intervals_and_names_fit_together():
    for one in SETS.values():
        for law, intervals in (
            (one.supervised, one.supervised_intervals),
            (one.distillation, one.distillation_intervals),
        ):
            for name, (low, high) in intervals.items():
                assert low <= as_dict(law)[name] <= high, (one.name, name)


def test_draws_vary_as_the_intervals_say():
    drawn = PAPER.drawn(4000, seed=3)
    assert drawn.supervised.e.shape == (4000, 1, 1)
    low, high = np.quantile(drawn.distilled.c0, [0.05, 0.95])
    assert (low, high) == pytest.approx((2.425, 2.615), abs=0.01)
    assert np.all(drawn.distilled.c1 == 522.6)
    again = PAPER.drawn(4000, seed=3)
    assert np.array_equal(drawn.supervised.e, again.supervised.e)
