"""Intervals cover what they claim to, tests agree with scipy and brute force, and nothing is zero wide by accident."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fractionate.analysis import statistics
from fractionate.analysis.statistics import (
    holm,
    mcnemar,
    mean_interval,
    mean_t_interval,
    paired_difference,
    sample_size,
    tango,
    value_interval,
    wilson,
)

shares = st.floats(0, 1, allow_nan=False)
outcomes = st.lists(shares, min_size=1, max_size=40)


def test_wilson_agrees_with_its_closed_form():
    z, n, right = 1.959964, 50, 41
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_perfect_outcomes_leave_room_for_doubt(n):
    assert 0 < wilson(n, n).low < 1
    assert 0 < mean_interval([1.0] * n).low < 1
    assert mean_interval([0.0] * n).high > 0
    same = paired_difference([0.4] * n, [0.4] * n, "f1")
    assert same.low < 0 < same.high
    assert same.p_value == 1.0


def test_no_questions_say_nothing():
    assert wilson(0, 0) == (0, 1)
    assert mean_interval([]) == (0, 1)
    assert tango(0, 0, 0) == (-1, 1)
    empty = paired_difference([], [])
    assert (empty.low, empty.high, empty.p_value) == (-1, 1, 1)


@given(outcomes, st.integers(0, 5))
@example([0.0, 2.225073858507203e-309], 0)
@settings(max_examples=40, deadline=None)
def test_a_mean_lies_in_its_interval_and_the_interval_in_range(values, seed):
    low, high = mean_interval(values, seed=seed)
    assert 0 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_tango_holds_the_estimate_and_mirrors(only_a, only_b, agreeing):
    n = only_a + only_b + agreeing
    if n == 0:
        return
    low, high = tango(only_a, only_b, n)
    assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    assert high - low > 0
    mirrored = tango(only_b, only_a, n)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


@given(st.integers(1, 300))
def test_tango_without_disagreement_is_as_wide_as_wilson_at_zero(n):
    bound = wilson(0, n).high
    assert tango(0, 0, n) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize("counts", [(12, 2, 50), (3, 9, 40), (1, 0, 20), (7, 7, 30), (5, 0, 8)])
def test_tango_solves_its_defining_equation_found_by_brute_force(counts):
    """At each bound the score statistic, with the nuisance maximised numerically, is ±z."""
    only_a, only_b, n = counts
    for bound, sign in zip(tango(only_a, only_b, n), (1, -1), strict=True):
        delta = bound

        def log_likelihood(share_b: float, delta: float = delta) -> float:
            share_a = share_b + delta
            rest = 1 - share_a - share_b
            return (
                (only_a * math.log(share_a) if only_a else 0)
                + (only_b * math.log(share_b) if only_b else 0)
                + ((n - only_a - only_b) * math.log(rest) if n - only_a - only_b else 0)
            )

        floor, ceiling = max(0.0, -delta) + 1e-10, (1 - delta) / 2 - 1e-10
        best = optimize.minimize_scalar(
            lambda share: -log_likelihood(share), bounds=(floor, ceiling), method="bounded", options={"xatol": 1e-12}
        )
        variance = 2 * best.x + delta - delta**2
        score = (only_a - only_b - n * delta) / math.sqrt(n * variance)
        assert score == pytest.approx(sign * 1.959964, abs=2e-3)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (10, 2), (2, 10), (30, 30), (5, 17)])
def test_mcnemar_is_the_exact_binomial_tail(only_a, only_b):
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_paired_right_and_wrong_uses_mcnemar_and_f1_the_bootstrap():
    a, b = [1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]
    exact = paired_difference(a, b, "exact_match")
    assert (exact.test, exact.p_value, exact.difference) == ("exact McNemar", mcnemar(3, 0), 0.5)
    assert paired_difference(a, b, "f1").test == "paired bootstrap"
    with pytest.raises(ValueError, match="differ in number"):
        paired_difference([1], [1, 0])


def test_bootstrap_interval_agrees_with_scipy_bca():
    rng = np.random.default_rng(3)
    values = rng.beta(0.6, 0.4, 150)
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=10_000, rng=1).confidence_interval
    assert mean_interval(values.tolist()) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_bootstrap_p_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(4)
    b = rng.uniform(0, 1, 200)
    a = np.clip(b + rng.normal(0.02, 0.1, 200), 0, 1)
    found = paired_difference(a.tolist(), b.tolist(), "f1")
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_few_distinct_values_are_resampled_alike_however_they_are_drawn(monkeypatch):
    values = [0.0, 0.5, 1.0] * 60
    counted = mean_interval(values, seed=1)
    nearly = [value + (index * 1e-9) for index, value in enumerate(values)]
    drawn = mean_interval([min(value, 1.0) for value in nearly], seed=1)
    assert counted == pytest.approx(drawn, abs=0.006)


@given(outcomes, st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_interval(values, seed):
    first = mean_interval(values, seed=seed)
    statistics._resampled_means.cache_clear()
    assert mean_interval(values, seed=seed) == first


def brute_force_holm(p_values):
    """Holm is the closed test of Bonferroni: the largest Bonferroni p over every subset that holds the hypothesis."""
    positions = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(positions, size)]
    return [max(min(1, len(s) * min(p_values[k] for k in s)) for s in subsets if j in s) for j in positions]


@given(st.lists(shares, min_size=0, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    assert holm(p_values) == pytest.approx(brute_force_holm(p_values))


@given(st.lists(shares, min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    by_p = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[k] for k in by_p] == sorted(adjusted)


def test_t_interval_agrees_with_scipy_and_one_value_says_nothing():
    values = [0.1, 0.5, 0.2, 0.9]
    expected = stats.t.interval(0.9, 3, np.mean(values), stats.sem(values))
    assert mean_t_interval(values, 0.9) == pytest.approx(expected)
    assert mean_t_interval([0.3]) == (-math.inf, math.inf)


def test_sample_size_needs_more_for_less():
    assert sample_size(0.02, 0.1) == math.ceil((1.959964 + 0.841621) ** 2 * 0.1 / 0.0004)
    assert sample_size(0.01, 0.1) > sample_size(0.02, 0.1)
    assert sample_size(0.02, 0.1, confidence=0.99) > sample_size(0.02, 0.1)
    assert sample_size(0.0, 0.1) is None


def test_sample_size_without_disagreement_still_needs_questions():
    n = sample_size(0.02, 0.0)
    assert n is not None
    assert tango(0, 0, n).low >= -0.02 > tango(0, 0, n - 2).low


def test_the_sample_size_decides_about_as_often_as_it_says():
    """Simulate non-inferiority (margin 5 points, no true difference, 20 % discordance) at the size it asks for."""
    rng = np.random.default_rng(11)
    n = sample_size(0.05, 0.2)
    assert n is not None
    draws = rng.multinomial(n, [0.1, 0.1, 0.8], size=300)
    shown = np.mean([tango(int(a), int(b), n).low >= -0.05 for a, b, _ in draws])
    assert 0.72 <= shown <= 0.90


@pytest.mark.parametrize("n", [12, 60])
def test_tango_covers(n):
    """The true difference lies inside about 95 times in 100, also at few questions and few disagreements."""
    rng = np.random.default_rng(5)
    for share_a, share_b in [(0.02, 0.02), (0.2, 0.1), (0.05, 0.25)]:
        draws = rng.multinomial(n, [share_a, share_b, 1 - share_a - share_b], size=400)
        inside = [low <= share_a - share_b <= high for low, high in (tango(int(a), int(b), n) for a, b, _ in draws)]
        assert np.mean(inside) >= 0.92


@pytest.mark.parametrize(("n", "least"), [(10, 0.88), (80, 0.91)])
def test_the_mean_of_f1_is_covered(n, least, monkeypatch):
    """F1 is mostly 0 or 1 with a share between: a hard shape for a bootstrap."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(6)
    truth = 0.5 + 0.2 * 0.5
    hits = 0
    for trial in range(250):
        kind = rng.random(n)
        values = np.where(kind < 0.5, 1.0, np.where(kind < 0.7, rng.random(n), 0.0))
        low, high = mean_interval(values.tolist(), seed=trial)
        hits += low <= truth <= high
    assert least <= hits / 250 <= 0.995


def test_a_cell_of_right_and_wrong_gets_wilson_and_f1_the_bootstrap():
    assert value_interval([1, 0, 1], "exact_match") == wilson(2, 3)
    assert value_interval([1, 0, 1], "f1") == mean_interval([1, 0, 1])
