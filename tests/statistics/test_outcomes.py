"""Score intervals and paired tests agree with independent implementations; no interval collapses to zero width."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fractionate.statistics import (
    Interval,
    mcnemar,
    mean_interval,
    paired_difference,
    score_interval,
    score_p,
    sign_flip_p,
    tango,
    unseen_share,
    wilson,
)
from fractionate.statistics.paired import _enumerated_p, _grid_p, _saddlepoint_p

shares = st.floats(0, 1, allow_nan=False)
outcomes = st.lists(shares, min_size=1, max_size=40)
Z = 1.959964


def skewed(n: int = 100, nonzero: int = 8, seed: int = 0) -> list[float]:
    """F1 of a pair that is nearly always wrong: a few outcomes between a half and one."""
    values = np.zeros(n)
    values[:nonzero] = np.random.default_rng(seed).uniform(0.5, 1, nonzero)
    return values.tolist()


def test_wilson_agrees_with_its_closed_form():
    n, right = 50, 41
    p = right / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), abs=1e-6)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_the_score_interval_of_right_and_wrong_is_wilsons(right, wrong, confidence):
    if right + wrong == 0:
        return
    values = [1.0] * right + [0.0] * wrong
    assert mean_interval(values, confidence) == wilson(right, right + wrong, confidence)
    found = score_interval(values, 0.0, 1.0, confidence)
    assert found == pytest.approx(wilson(right, right + wrong, confidence), abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_perfect_outcomes_leave_room_for_doubt(n):
    assert 0 < wilson(n, n).low < 1
    assert mean_interval([1.0] * n) == pytest.approx(wilson(n, n))
    assert mean_interval([0.0] * n).high == pytest.approx(unseen_share(n))
    same = paired_difference([0.4] * n, [0.4] * n)
    assert same.low < 0 < same.high
    assert same.p_value == 1.0


def test_no_questions_say_nothing():
    assert wilson(0, 0) == (0, 1)
    assert mean_interval([]) == (0, 1)
    assert tango(0, 0, 0) == (-1, 1)
    empty = paired_difference([], [])
    assert (empty.low, empty.high, empty.p_value, empty.n) == (-1, 1, 1, 0)


@given(outcomes, st.floats(0.01, 0.999))
@example([0.0, 2.225073858507203e-309], 0.95)
@example([0.0, 1e-13, 1.0], 0.95)
@settings(max_examples=150, deadline=None)
def test_a_mean_lies_in_its_interval_and_the_interval_in_range(values, confidence):
    low, high = mean_interval(values, confidence)
    assert 0 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= 1


@given(outcomes, st.floats(0.1, 0.9))
@settings(max_examples=100, deadline=None)
def test_intervals_nest_and_mirror(values, confidence):
    narrow, wide = mean_interval(values, confidence), mean_interval(values, (1 + confidence) / 2)
    assert wide.low <= narrow.low + 1e-9
    assert wide.high >= narrow.high - 1e-9
    low, high = mean_interval([1 - value for value in values], confidence)
    assert (low, high) == pytest.approx((1 - narrow.high, 1 - narrow.low), abs=1e-7)


@given(st.lists(shares, min_size=1, max_size=30), st.permutations(range(30)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_questions_does_not_matter(values, order):
    shuffled = [values[index] for index in order if index < len(values)]
    assert mean_interval(shuffled) == pytest.approx(mean_interval(values), abs=1e-9)


def likeliest_variance(values: list[float], least: float, most: float, mean: float) -> float:
    """Find the likeliest distribution with this mean by a general optimiser over weights, and return its variance."""
    support, counts = np.unique([least, *values, most], return_counts=True)
    counts = counts - np.isin(support, [least, most])
    found = optimize.minimize(
        lambda weights: -np.sum(counts * np.log(np.maximum(weights, 1e-300))),
        (counts + 0.1) / (counts + 0.1).sum(),
        jac=lambda weights: -counts / np.maximum(weights, 1e-300),
        bounds=[(1e-12, 1)] * len(support),
        constraints=[
            {"type": "eq", "fun": lambda weights: weights.sum() - 1},
            {"type": "eq", "fun": lambda weights: weights @ support - mean},
        ],
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-13},
    )
    assert found.success
    return float(found.x @ (support - mean) ** 2)


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ([0.0] * 20 + [0.5, 0.7, 0.9], 0.0),
        ([1.0] * 15 + [0.2, 0.4, 0.9], 0.0),
        ([0.0] * 20 + [-0.6, -0.9, -1.0, 0.1, 0.2], -1.0),
        ([0.3, 0.35, 0.4, 0.9], 0.0),
    ],
)
def test_bounds_lie_z_standard_errors_away_under_the_likeliest_distribution_found_by_an_optimiser(values, least):
    for bound, sign in zip(score_interval(values, least, 1.0), (1, -1), strict=True):
        variance = likeliest_variance(values, least, 1.0, bound)
        distance = (np.mean(values) - bound) / math.sqrt(variance / len(values))
        assert distance == pytest.approx(sign * Z, abs=1e-4)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.floats(0.5, 0.99))
@settings(max_examples=60, deadline=None)
def test_the_test_is_the_interval_inverted(values, confidence):
    low, high = score_interval(values, -1.0, 1.0, confidence)
    p = score_p(values, -1.0, 1.0)
    if abs(p - (1 - confidence)) > 1e-6:
        assert (p < 1 - confidence) == (low > 0 or high < 0)


def test_skewed_outcomes_give_the_interval_that_scipys_bootstrap_gives_and_not_its_mirror_image():
    """Version 0.1.0 had the acceleration's sign reversed, which only skewed outcomes show."""
    values = np.asarray(skewed())
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=10_000, rng=1).confidence_interval
    found = mean_interval(values.tolist())
    assert found == pytest.approx((expected.low, expected.high), abs=0.005)
    above, below = expected.high - values.mean(), values.mean() - expected.low
    assert above > 1.2 * below
    assert found.high - values.mean() > 1.2 * (values.mean() - found.low)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_skewed_outcomes_give_the_interval_of_scipys_bootstrap(seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(600) < 0.9, 1.0, rng.uniform(0, 0.8, 600))
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=10_000, rng=1).confidence_interval
    assert mean_interval(values.tolist()) == pytest.approx((expected.low, expected.high), abs=0.0015)


@pytest.mark.parametrize("values", [[1.2], [-0.1], [math.nan], [0.5, math.inf]])
def test_outcomes_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="does not lie between 0 and 1"):
        mean_interval(values)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_tango_holds_the_estimate_and_mirrors(only_a, only_b, agreeing):
    n = only_a + only_b + agreeing
    if n == 0:
        return
    low, high = tango(only_a, only_b, n)
    assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    assert high - low > 0
    assert tango(only_b, only_a, n) == pytest.approx((-high, -low), abs=1e-9)


@given(st.integers(1, 300))
def test_tango_without_disagreement_is_as_wide_as_wilson_at_zero(n):
    bound = wilson(0, n).high
    assert tango(0, 0, n) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize("counts", [(12, 2, 50), (3, 9, 40), (1, 0, 20), (7, 7, 30), (5, 0, 8)])
def test_tango_solves_its_defining_equation(counts):
    """At each bound the score statistic, with the nuisance share from Tango's quadratic, is ±z."""
    only_a, only_b, n = counts
    for delta, sign in zip(tango(only_a, only_b, n), (1, -1), strict=True):
        linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
        root = math.sqrt(linear**2 + 8 * n * only_b * delta * (1 - delta))
        share = (root - linear) / (4 * n)
        score = (only_a - only_b - n * delta) / math.sqrt(n * (2 * share + delta * (1 - delta)))
        assert score == pytest.approx(sign * Z, abs=1e-4)


@pytest.mark.parametrize("n", [12, 60])
def test_tango_covers(n):
    rng = np.random.default_rng(5)
    for share_a, share_b in [(0.02, 0.02), (0.2, 0.1), (0.05, 0.25)]:
        draws = rng.multinomial(n, [share_a, share_b, 1 - share_a - share_b], size=400)
        inside = [low <= share_a - share_b <= high for low, high in (tango(int(a), int(b), n) for a, b, _ in draws)]
        assert np.mean(inside) >= 0.92


@pytest.mark.parametrize("n", [10, 80])
def test_the_mean_of_f1_is_covered(n):
    """F1 is mostly 0 or 1 with a share between."""
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(400):
        kind = rng.random(n)
        values = np.where(kind < 0.5, 1.0, np.where(kind < 0.7, rng.random(n), 0.0))
        low, high = mean_interval(values.tolist())
        hits += low <= 0.6 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_a_candidate_worse_by_the_margin_is_seldom_called_non_inferior():
    """Losses are rare and great, gains small: with the reversed acceleration this was .04 and more at 2.5 %."""
    rng = np.random.default_rng(8)
    passed = 0
    for _ in range(600):
        kind = rng.random(300)
        losses, gains = -rng.uniform(0.5, 1, 300), rng.uniform(0, 0.6, 300)
        values = np.where(kind < 0.06, losses, np.where(kind < 0.06 + 0.025 / 0.3, gains, 0.0))
        passed += score_interval(values.tolist(), -1.0, 1.0).low >= -0.02
    assert passed / 600 <= 0.03


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (10, 2), (2, 10), (30, 30), (5, 17)])
def test_mcnemar_is_the_exact_binomial_tail(only_a, only_b):
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))
    assert sign_flip_p([1.0] * only_a + [-1.0] * only_b) == pytest.approx(mcnemar(only_a, only_b))


def test_paired_right_and_wrong_uses_mcnemar_and_f1_the_sign_flips():
    a, b = [1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]
    exact = paired_difference(a, b)
    assert (exact.test, exact.p_value, exact.difference) == ("exact McNemar", mcnemar(3, 0), 0.5)
    assert exact[1:3] == pytest.approx(tango(3, 0, 6))
    assert paired_difference([*a[:5], 0.5], b).test == "sign flip of questions"
    with pytest.raises(ValueError, match="differ in number"):
        paired_difference([1], [1, 0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference([1.5], [1])


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_swapping_the_two_systems_mirrors_the_difference(pairs):
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low), abs=1e-8)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-6)


def brute_force_flips(sums: list[float]) -> float:
    totals = [abs(math.fsum(s * size for s, size in zip(signs, sums, strict=True))) for signs in
              itertools.product((1, -1), repeat=len(sums))]  # fmt: skip
    return float(np.mean([total >= abs(math.fsum(sums)) - 1e-9 for total in totals]))


@given(st.lists(st.integers(-97, 97).map(lambda part: part / 97), min_size=1, max_size=10))
@settings(max_examples=40, deadline=None)
def test_sign_flips_are_counted_one_by_one(sums):
    assert sign_flip_p(sums) == pytest.approx(brute_force_flips(sums))


def test_sign_flips_agree_with_scipys_permutation_test_on_skewed_differences():
    sums = np.random.default_rng(2).exponential(0.2, 14) - 0.1
    expected = stats.permutation_test(
        (sums, np.zeros(14)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert sign_flip_p(sums.tolist()) == pytest.approx(expected.pvalue, rel=1e-6)


def test_the_three_ways_to_count_flips_agree():
    rng = np.random.default_rng(3)
    steps = rng.integers(1, 6, 30)
    for total in (int(steps.sum()) % 2 + 10, int(steps.sum()) % 2 + 40):
        assert _grid_p(steps, total) == pytest.approx(_enumerated_p(steps.astype(float), total))
    for shift in (0.1, 0.3, 0.6, 1.0):
        sums = rng.normal(shift, 1, 32) * rng.random(32)
        exact = _enumerated_p(np.abs(sums), abs(sums.sum()))
        assert _saddlepoint_p(np.abs(sums), abs(sums.sum())) == pytest.approx(exact, rel=0.06, abs=1e-12)


def test_a_p_value_has_no_floor():
    clear = np.random.default_rng(4).uniform(0.2, 0.6, 400)
    assert 0 < sign_flip_p(clear.tolist()) < 1e-100
    assert 0 < paired_difference(clear.tolist(), [0.0] * 400).p_value < 1e-20
    assert sign_flip_p([0.0, 0.0]) == sign_flip_p([]) == 1.0


def test_a_paired_p_agrees_with_the_t_test_where_there_are_many_questions():
    rng = np.random.default_rng(4)
    b = rng.uniform(0, 1, 400)
    a = np.clip(b + rng.normal(0.02, 0.2, 400), 0, 1)
    found = paired_difference(a.tolist(), b.tolist())
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.15)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_p_values_are_valid_at_few_questions(n):
    """No difference, be the two systems exchangeable or the differences skewed: p ≤ .05 at most as often as it says."""
    rng = np.random.default_rng(n)
    exchangeable = skew = 0
    for _ in range(300):
        shared, own = rng.beta(0.5, 0.5, n), rng.beta(0.5, 0.5, (2, n))
        a, b = np.where(rng.random((2, n)) < 0.5, shared, own)
        exchangeable += paired_difference(a.tolist(), b.tolist()).p_value <= 0.05
        rare = np.where(rng.random(n) < 0.05, 0.95, 0.0)
        skew += paired_difference(rare.tolist(), [0.05 * 0.95] * n).p_value <= 0.05
    assert max(exchangeable, skew) / 300 <= 0.07


def test_an_interval_is_a_pair():
    assert Interval(0.1, 0.2) == (0.1, 0.2)
