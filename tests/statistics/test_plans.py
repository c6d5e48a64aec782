"""Dollars, interim analyses, candidates and sample sizes agree with published or independently computed figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fractionate.statistics import (
    Metered,
    bonferroni_confidence,
    dollars_interval,
    holm,
    interim_confidence,
    mean_t_interval,
    metered_difference,
    planned_sample_size,
    questions_to_decide,
    sample_size,
    score_interval,
    separate_difference,
    simultaneous_confidence,
    tango,
)

shares = st.floats(0, 1, allow_nan=False)


def z_of(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))


# --- dollars ----------------------------------------------------------------------------------------------------------


def test_t_interval_agrees_with_scipy_and_one_value_says_nothing():
    values = [0.1, 0.5, 0.2, 0.9]
    expected = stats.t.interval(0.9, 3, np.mean(values), stats.sem(values))
    assert mean_t_interval(values, 0.9) == pytest.approx(expected)
    assert mean_t_interval([0.3]) == (-math.inf, math.inf)
    assert mean_t_interval(values, 0.9, ["batch"] * 4) == (-math.inf, math.inf)


def test_a_batchs_time_divided_over_its_rows_is_one_value_a_batch():
    rows = [1.0] * 24 + [1.2] * 24 + [1.1] * 24
    names = np.repeat([0, 1, 2], 24).tolist()
    assert mean_t_interval(rows, 0.95, names) == pytest.approx(mean_t_interval([1.0, 1.2, 1.1]))


@pytest.mark.parametrize("seed", range(3))
def test_skewed_dollars_are_joined_with_halls_interval(seed):
    """At Hall's bounds his polynomial of the t statistic is ± the quantile; it reaches further on the long side."""
    values = np.random.default_rng(seed).lognormal(0, 1, 40)
    n, mean, error = len(values), values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    skewness = stats.skew(values)
    student, found = mean_t_interval(values.tolist()), dollars_interval(values.tolist())
    assert found.low == pytest.approx(student.low)
    t = (mean - found.high) / error
    hall = t + skewness * t**2 / (3 * n**0.5) + skewness**2 * t**3 / (27 * n) + skewness / (6 * n**0.5)
    assert hall == pytest.approx(-stats.t.ppf(0.975, n - 1), rel=1e-6)
    assert found.high > student.high
    assert dollars_interval((-values).tolist()) == pytest.approx((-found.high, -found.low))


def test_known_caps_cover_what_was_never_seen():
    values = [-0.2] * 30
    assert dollars_interval(values) == pytest.approx((-0.2, -0.2))
    assert dollars_interval(values, 0.95, None, (-1.0, 4.0)).high > 0
    assert dollars_interval([], 0.95, None, (-1.0, 1.0)) == (-math.inf, math.inf)


@pytest.mark.parametrize("unit", [1e-9, 1e-5, 1.0, 1e6])
@pytest.mark.parametrize("bounds", [None, (-3.0, 9.0)])
def test_the_unit_of_dollars_does_not_matter(unit, bounds):
    values = np.random.default_rng(14).lognormal(0, 0.6, 30) - 1.4
    scaled = None if bounds is None else (bounds[0] * unit, bounds[1] * unit)
    found = dollars_interval((values * unit).tolist(), 0.95, None, scaled)
    assert found == pytest.approx([bound * unit for bound in dollars_interval(values.tolist(), 0.95, None, bounds)])
    a, b = Metered([3 * unit, 4 * unit, 6 * unit], 1.0), Metered([5 * unit, 4 * unit, 9 * unit], 1.0)
    plain = metered_difference([Metered([3, 4, 6], 1.0)], [Metered([5, 4, 9], 1.0)])
    assert metered_difference([a], [b])[5:8] == pytest.approx(plain[5:8], rel=1e-5)


def test_known_prices_give_the_interval_of_the_differences():
    rng = np.random.default_rng(1)
    a, b = rng.normal(100, 9, 40), rng.normal(130, 9, 40)
    found = metered_difference([Metered(a.tolist(), 2e-6)], [Metered(b.tolist(), 1e-6), Metered(b.tolist(), 1e-6)])
    assert (found.low, found.high) == pytest.approx(dollars_interval((2e-6 * (a - b)).tolist()))
    assert (found.a, found.ratio, found.rounds) == pytest.approx((2e-6 * a.mean(), a.mean() / b.mean(), 0))
    assert (found.ratio_high < 1) == (found.high < 0)


def test_a_ratio_of_symmetric_costs_is_fiellers_closed_form():
    rng = np.random.default_rng(2)
    half = rng.normal(0, 10, (2, 30))
    a, b = np.concatenate([100 + half[0], 100 - half[0]]), np.concatenate([150 + half[1], 150 - half[1]])
    found = metered_difference([Metered(a.tolist(), 1.0)], [Metered(b.tolist(), 1.0)])
    n, t2 = len(a), stats.t.ppf(0.975, len(a) - 1) ** 2
    (vaa, vab), (_, vbb) = np.cov(a, b) / n
    square, cross, rest = b.mean() ** 2 - t2 * vbb, a.mean() * b.mean() - t2 * vab, a.mean() ** 2 - t2 * vaa
    root = math.sqrt(cross**2 - square * rest)
    assert found[6:8] == pytest.approx(((cross - root) / square, (cross + root) / square), rel=1e-5)


def test_at_the_ends_of_a_capped_ratio_the_capped_interval_just_reaches_zero():
    """A cap is of one part; at rates other than 1 and with two parts a side the caps of both parts add up."""
    rng = np.random.default_rng(15)
    a, b = rng.uniform(2, 6, (2, 40)), rng.uniform(4, 9, (2, 40))
    ours = [Metered(amounts.tolist(), rate, 12.0) for amounts, rate in zip(a, (0.5, 2.0), strict=True)]
    others = [Metered(amounts.tolist(), rate, 20.0) for amounts, rate in zip(b, (0.5, 2.0), strict=True)]
    most_ours, most_others = 12 * 2.5, 20 * 2.5
    mine, theirs = 0.5 * a[0] + 2 * a[1], 0.5 * b[0] + 2 * b[1]
    found = metered_difference(ours, others)
    assert found[3:5] == pytest.approx(dollars_interval(mine - theirs, 0.95, None, (-most_others, most_ours)))
    for end, ratio in ((0, found.ratio_low), (1, found.ratio_high)):
        bounds = (-ratio * most_others, most_ours)
        assert dollars_interval(mine - ratio * theirs, 0.95, None, bounds)[end] == pytest.approx(0, abs=1e-6)
    half_capped = metered_difference([ours[0], Metered(a[1].tolist(), 2.0)], others)
    assert half_capped[3:5] == pytest.approx(dollars_interval(mine - theirs))


def test_measured_speeds_add_their_own_uncertainty():
    amounts = np.random.default_rng(3).normal(100, 5, 200).tolist()
    exact = metered_difference([Metered(amounts, 1.0)], [Metered(amounts, 1.3)])
    noisy = metered_difference([Metered(amounts, [0.8, 1.0, 1.2])], [Metered(amounts, [1.3, 1.3, 1.3])])
    assert noisy.difference == pytest.approx(exact.difference)
    assert exact.high < 0 < noisy.high
    half = stats.t.ppf(0.975, 2) * np.std([80, 100, 120], ddof=1) / math.sqrt(3) * np.mean(amounts) / 100
    assert noisy.high - noisy.difference == pytest.approx(math.hypot(half, exact.high - exact.difference), rel=1e-6)


def test_what_slows_the_machine_cancels_in_the_ratio():
    amounts, slow = [100.0, 110.0, 90.0, 105.0], np.asarray([1.0, 3.0, 1.0, 2.5])
    a, b = Metered(amounts, slow.tolist()), Metered(amounts, (1.4 * slow).tolist())
    found = metered_difference([a], [b])
    assert (found.ratio_low, found.ratio_high) == pytest.approx((1 / 1.4, 1 / 1.4), rel=1e-6)
    assert found.high - found.low > abs(found.difference)


def test_one_round_says_nothing_and_rounds_must_agree():
    a, b = Metered([1.0, 2.0], [1.0]), Metered([1.0, 2.0], [9.0])
    assert metered_difference([a], [b])[3:5] == (-math.inf, math.inf)
    assert metered_difference([a], [b]).ratio_high == math.inf
    with pytest.raises(ValueError, match="same rounds"):
        metered_difference([a], [Metered([1.0, 2.0], [1.0, 2.0])])
    with pytest.raises(ValueError, match="same questions"):
        metered_difference([a], [Metered([1.0], 1.0)])
    with pytest.raises(ValueError, match="negative"):
        metered_difference([a], [Metered([-1.0, 1.0], 1.0)])
    with pytest.raises(ValueError, match="more than the stated most of 1"):
        metered_difference([a], [Metered([1.0, 2.0], 1.0, 1.0)])


def test_equal_speeds_seldom_come_out_cheaper():
    """A batch's seconds over its rows, taken for independent, call one of two equals cheaper in a third of runs."""
    rng = np.random.default_rng(4)
    names = np.repeat([0, 1], 24).tolist()
    rows = batches = rounds = 0
    for _ in range(250):
        a, b = (np.repeat(1 + rng.normal(0, 0.05, 2), 24).tolist() for _ in range(2))
        rows += mean_t_interval((np.asarray(a) - b).tolist()).high < 0
        batches += separate_difference(a, b, 0.95, names, names).high < 0
        used = rng.lognormal(4.6, 0.5, 48)
        own = [Metered((used * rng.lognormal(0, 0.2, 48)).tolist(), rng.normal(1, 0.05, 5).tolist()) for _ in range(2)]
        rounds += metered_difference(own[:1], own[1:]).ratio_high < 1
    assert rows / 250 > 0.25
    assert batches / 250 <= 0.03
    assert rounds / 250 <= 0.04


# --- looks ------------------------------------------------------------------------------------------------------------


def test_boundaries_are_the_published_ones():
    """Lan and DeMets, O'Brien-Fleming, five equal looks, two-sided .05 (Jennison & Turnbull 2000)."""
    found = [z_of(interim_confidence(0.95, range(1, k + 1), 5, 0.0)) for k in range(1, 6)]
    assert found == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3)


@given(st.lists(st.integers(20, 400), min_size=1, max_size=4), st.sampled_from([0.0, 0.2, 0.4]))
@settings(max_examples=15, deadline=None)
def test_all_looks_together_spend_no_more_than_the_error(steps, reserve):
    """By scipy's multivariate normal probability that no look crosses."""
    sizes = np.cumsum(steps).tolist()
    bounds = [z_of(interim_confidence(0.95, sizes[: k + 1], None, max(reserve, 0.1))) for k in range(len(sizes))]
    shared = np.sqrt(np.minimum.outer(sizes, sizes) / np.maximum.outer(sizes, sizes))
    inside = stats.multivariate_normal.cdf(bounds, np.zeros(len(sizes)), shared, allow_singular=True)
    spent = 1 - max(reserve, 0.1) * sizes[0] / sizes[-1]
    assert 1 - inside == pytest.approx(0.025 * spent, abs=3e-4)


def test_a_single_look_pays_with_the_reserve_alone_and_the_same_size_is_no_new_look():
    assert interim_confidence(0.95, [300], reserve=0.0) == pytest.approx(0.95)
    assert interim_confidence(0.95, [300]) == pytest.approx(1 - 0.05 * 0.8)
    assert interim_confidence(0.95, [300, 300, 300]) == interim_confidence(0.95, [300])
    assert interim_confidence(0.95, [100, 300, 300]) == interim_confidence(0.95, [100, 300])
    assert interim_confidence(0.95, [300, 600], 300, 0.0) == 1.0
    assert score_interval([0.0] * 600, -1, 1, 1.0) == (-1, 1)


@pytest.mark.parametrize("sizes", [[], [0], [300, 200], [-1, 5]])
def test_looks_that_cannot_be_are_refused(sizes):
    with pytest.raises(ValueError, match="never fall"):
        interim_confidence(0.95, sizes)


def test_an_always_valid_bound_would_ask_for_nearly_twice_the_questions():
    """Robbins' normal mixture at its best sample size (Waudby-Smith et al., Ann. Statist. 52 (2024)), power 80 %."""
    size = np.linspace(1, 50, 2000)
    best = np.sqrt((1 + 1 / size) * np.log((1 + size) / 0.05**2)).min()
    power = stats.norm.ppf(0.8)
    assert ((best + power) / (stats.norm.ppf(0.975) + power)) ** 2 == pytest.approx(1.9, abs=0.05)
    look = z_of(interim_confidence(0.95, [300]))
    assert ((look + power) / (stats.norm.ppf(0.975) + power)) ** 2 == pytest.approx(1.07, abs=0.005)


# --- several claims ---------------------------------------------------------------------------------------------------


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


def test_one_confidence_for_several_candidates_lies_between_one_claim_and_bonferroni():
    rng = np.random.default_rng(5)
    apart, same = rng.normal(size=(3, 20_000)) / 10, np.tile(rng.normal(size=500) / 10, (3, 1))
    assert simultaneous_confidence(0.95, same.tolist()) == pytest.approx(0.95, abs=0.001)
    sidak = 1 - 2 * (1 - 0.975 ** (1 / 3))
    assert simultaneous_confidence(0.95, apart.tolist()) == pytest.approx(sidak, abs=0.001)
    assert simultaneous_confidence(0.95, []) == simultaneous_confidence(0.95, [[0.0, 1.0]]) == 0.95
    assert simultaneous_confidence(0.95, [[0.0] * 50] * 3) <= bonferroni_confidence(0.95, 3)
    assert simultaneous_confidence(0.95, [[0.1, 0.2]]) == bonferroni_confidence(0.95, 1) == pytest.approx(0.95)
    assert bonferroni_confidence(0.95, 4) == pytest.approx(0.9875)
    with pytest.raises(ValueError, match="same questions"):
        simultaneous_confidence(0.95, [[0.1, 0.2], [0.1]])


def test_the_critical_value_of_correlated_candidates_is_dunnetts():
    """Four candidates whose differences correlate by .5, by scipy's multivariate normal probability."""
    rng = np.random.default_rng(6)
    shared, own = rng.normal(size=40_000), rng.normal(size=(4, 40_000))
    z = z_of(simultaneous_confidence(0.95, ((shared + own) / 10).tolist()))
    inside = stats.multivariate_normal.cdf([z] * 4, np.zeros(4), np.full((4, 4), 0.5) + 0.5 * np.eye(4))
    assert inside == pytest.approx(0.975, abs=6e-4)


# --- sample sizes -----------------------------------------------------------------------------------------------------


def test_sample_size_needs_more_for_less():
    assert sample_size(0.02, 0.1) == math.ceil((1.959964 + 0.841621) ** 2 * 0.1 / 0.0004)
    assert sample_size(0.01, 0.1) > sample_size(0.02, 0.1)
    assert sample_size(0.02, 0.1, confidence=0.99) > sample_size(0.02, 0.1)
    assert sample_size(0.0, 0.1) is None


def test_sample_size_without_disagreement_still_needs_questions():
    for n in (sample_size(0.02, 0.0), planned_sample_size(0.02, 0.0).questions):
        assert n is not None
        assert tango(0, 0, n).low >= -0.02 > tango(0, 0, n - 2).low


@pytest.mark.parametrize(
    ("margin", "discordance", "size", "icc"), [(0.05, 0.2, 1, 0.0), (0.1, 0.3, 1, 0.0), (0.1, 0.2, 8, 0.1)]
)
def test_the_planned_number_of_questions_has_the_power_it_states(margin, discordance, size, icc):
    rng = np.random.default_rng(11)
    plan = planned_sample_size(margin, discordance, cluster_size=size, icc=icc)
    assert plan.questions == plan.clusters * size
    names = np.repeat(np.arange(plan.clusters), size).tolist()
    each = np.asarray([discordance / 2, discordance / 2, 1 - discordance])
    shown = 0
    for _ in range(300):
        levels = rng.dirichlet(each * (1 / icc - 1), plan.clusters) if icc else np.tile(each, (plan.clusters, 1))
        edges = np.repeat(levels.cumsum(axis=1), size, axis=0)
        values = np.asarray([1.0, -1.0, 0.0])[(rng.random(len(edges))[:, None] > edges[:, :2]).sum(axis=1)]
        shown += score_interval(values.tolist(), -1, 1, 0.95, names if size > 1 else None).low >= -margin
    assert 0.74 <= shown / 300 <= 0.88


def test_plans_grow_with_what_makes_them_harder():
    plain = planned_sample_size(0.05, 0.2).questions
    assert planned_sample_size(0.05, 0.2, power=0.9).questions > plain
    assert planned_sample_size(0.05, 0.2, candidates=3).questions > plain
    assert planned_sample_size(0.05, 0.2, difference=-0.02).questions > plain
    assert planned_sample_size(0.05, 0.2, cluster_size=8, icc=0.3).questions > 2 * plain
    assert planned_sample_size(0.02, 0.2).questions > 5 * plain


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": 0.05, "discordance": 1.2}, "discordance"),
        ({"margin": 0.05, "discordance": 0.01, "difference": 0.02}, "discordance"),
        ({"margin": 0.05, "discordance": 0.2, "difference": -0.05}, "cannot be shown"),
        ({"margin": 0.05, "discordance": 0.2, "cluster_size": 0.5}, "passages"),
    ],
)
def test_plans_that_cannot_hold_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        planned_sample_size(**options)


def test_questions_to_decide_are_a_range_that_narrows_with_data():
    rng = np.random.default_rng(12)
    stream = rng.choice([1.0, -1.0, 0.0], 4000, p=[0.1, 0.1, 0.8]).tolist()
    few, many = questions_to_decide(stream[:48], -0.05), questions_to_decide(stream, -0.05)
    assert few.low < few.likely < (few.high or math.inf)
    assert (few.high or math.inf) / few.low > 10
    assert many.high / many.low < 4
    assert many.low < planned_sample_size(0.05, 0.2).questions < many.high


def test_a_range_has_no_end_where_the_truth_may_lie_on_the_threshold_and_is_finite_without_disagreement():
    exactly = questions_to_decide([1.0, -1.0] * 20, 0.0)
    assert exactly.high is None or exactly.high > 10_000
    never = questions_to_decide([0.0] * 50, -0.02)
    assert never.likely == pytest.approx(sample_size(0.02, 0.0), rel=0.1)
    with pytest.raises(ValueError, match="no values"):
        questions_to_decide([], 0.0)


def test_dollars_to_decide_follow_the_normal_formula():
    values = np.random.default_rng(13).normal(-0.5, 1, 400)
    found = questions_to_decide(values.tolist(), 0.0, bounds=None)
    assert found.likely == pytest.approx(sample_size(values.mean(), values.var(), room=None), rel=0.1)
    assert found.low < found.likely < found.high
