"""Questions that share a passage and runs of several seeds: only independent units count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from fractionate.statistics import (
    UNSEEN_ICC,
    critical,
    design_of,
    mean_interval,
    paired_difference,
    pooled_difference,
    pooled_mean,
    score_interval,
    tango,
    unseen_share,
    wilson,
)
from fractionate.statistics.clusters import spread_of


def skewed_clusters(seed: int = 0):
    """Outcomes in passages of very unequal size, most of them 0, correlated within passages."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray([1, 1, 2, 3, 5, 9, 20])
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    level = rng.beta(0.3, 1.5, len(sizes))[numbers]
    return (rng.random(len(numbers)) < level) * rng.uniform(0.4, 1, len(numbers)), numbers


@pytest.mark.parametrize("seed", range(4))
def test_variance_and_degrees_of_freedom_are_those_of_cr2_written_with_matrices(seed):
    """Bell & McCaffrey in full: residuals through (I − H)^(−1/2) by cluster, df from the quadratic form's trace."""
    values, numbers = skewed_clusters(seed)
    n = len(values)
    design = np.ones((n, 1))
    bread = np.linalg.inv(design.T @ design)
    annihilator = np.eye(n) - design @ bread @ design.T
    rows, variance = [], 0.0
    for cluster in np.unique(numbers):
        mine = numbers == cluster
        own = annihilator[np.ix_(mine, mine)]
        adjust = linalg.fractional_matrix_power(own, -0.5).real
        weights = bread @ design[mine].T @ adjust
        variance += float((weights @ (annihilator @ values)[mine]).item() ** 2)
        rows.append((weights @ annihilator[mine])[0])
    gram = np.asarray(rows) @ np.asarray(rows).T
    found = spread_of(values, numbers)
    assert found.variance == pytest.approx(variance)
    assert found.df == pytest.approx(np.trace(gram) ** 2 / np.trace(gram @ gram))


def test_equal_passages_have_the_degrees_of_freedom_of_their_means():
    values = np.random.default_rng(1).random(60)
    found = spread_of(values, np.repeat(np.arange(12), 5))
    assert found.df == pytest.approx(11)
    assert found.variance == pytest.approx(stats.sem(values.reshape(12, 5).mean(axis=1)) ** 2)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_passages_of_one_question_change_nothing(values):
    names = [f"passage {index}" for index in range(len(values))]
    n, right = len(values), int(sum(values))
    assert mean_interval(values, 0.9, names) == pytest.approx(wilson(right, n, 0.9), abs=1e-8)
    alone, named = (paired_difference(values, [0.0] * n, 0.95, groups) for groups in (None, names))
    assert named == alone
    assert named.test == "exact McNemar"
    assert named[1:3] == pytest.approx(tango(right, 0, n), abs=1e-8)


def test_one_passage_among_single_questions_changes_little():
    values = (np.random.default_rng(2).random(200) < 0.7).astype(float).tolist()
    names = [0, 0, *range(1, 199)]
    assert mean_interval(values, 0.95, names) == pytest.approx(mean_interval(values), abs=0.004)


def test_asking_the_same_questions_four_times_teaches_nothing():
    values = (np.random.default_rng(3).random(80) < 0.4).astype(float)
    names = np.repeat(np.arange(80), 4).tolist()
    design = design_of(np.repeat(values, 4), names)
    assert design.effective == pytest.approx(80, rel=0.02)
    once, four = mean_interval(values.tolist()), mean_interval(np.repeat(values, 4).tolist(), 0.95, names)
    assert four == pytest.approx(once, abs=0.006)


def test_one_passage_says_nothing_of_others():
    values = [1.0, 0.0, 1.0, 1.0]
    assert mean_interval(values, 0.95, ["the same"] * 4) == (0, 1)
    found = paired_difference(values, [0.0] * 4, 0.95, ["the same"] * 4)
    assert (found.low, found.high, found.p_value, found.clusters) == (-1, 1, 1, 1)


def test_where_nothing_varies_an_intra_class_correlation_is_assumed():
    n, size = 304, 8
    names = (np.arange(n) // size).tolist()
    effective = n / (1 + (size - 1) * UNSEEN_ICC)
    design = design_of(np.zeros(n), names)
    assert design.effective == pytest.approx(effective)
    z = critical(0.95, design.df)
    assert mean_interval([0.0] * n, 0.95, names).high == pytest.approx(z * z / (effective + z * z))
    assert mean_interval([0.0] * n, 0.95, names).high > 2 * unseen_share(n)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_names_and_order_of_passages_do_not_matter_and_they_never_narrow_an_interval(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([-1.0, 0.0, 0.5, 1.0], 40)
    numbers = rng.integers(0, 9, 40)
    order = rng.permutation(40)
    found = score_interval(values.tolist(), -1, 1, 0.95, numbers.tolist())
    renamed = [f"p{9 - number}" for number in numbers[order]]
    assert score_interval(values[order].tolist(), -1, 1, 0.95, renamed) == pytest.approx(found, abs=1e-8)
    alone = score_interval(values.tolist(), -1, 1)
    assert found.low <= alone.low + 1e-9
    assert found.high >= alone.high - 1e-9


def test_groups_must_be_one_a_question():
    with pytest.raises(ValueError, match="2 groups for 3 outcomes"):
        mean_interval([1, 0, 1], 0.95, ["a", "b"])


@pytest.mark.parametrize(("passages", "size"), [(19, 16), (38, 8)])
def test_intervals_over_passages_cover_where_those_over_questions_do_not(passages, size):
    """Intra-class correlation .1, the case of the demo's atlas."""
    rng = np.random.default_rng(passages)
    names = np.repeat(np.arange(passages), size).tolist()
    alone = together = passed = 0
    for _ in range(800):
        share = np.repeat(rng.beta(0.6 * 9, 0.4 * 9, passages), size)
        values = (rng.random(len(share)) < share).astype(float).tolist()
        low, high = mean_interval(values, 0.95, names)
        together += low <= 0.6 <= high
        low, high = mean_interval(values)
        alone += low <= 0.6 <= high
        levels = rng.dirichlet(np.asarray([0.05, 0.1, 0.85]) * 9, passages)
        edges = np.repeat(levels.cumsum(axis=1), size, axis=0)
        differences = np.asarray([1.0, -1.0, 0.0])[(rng.random(len(edges))[:, None] > edges[:, :2]).sum(axis=1)]
        passed += score_interval(differences.tolist(), -1, 1, 0.95, names).low >= -0.05
    assert together / 800 >= 0.935
    assert alone / 800 <= 0.9
    assert passed / 800 <= 0.035


def test_the_test_over_passages_is_valid_at_few_passages():
    rng = np.random.default_rng(7)
    names = np.repeat(np.arange(8), 10).tolist()
    alone = together = 0
    for _ in range(300):
        share = np.repeat(rng.beta(1.5, 1.5, 8), 10)
        a, b = (rng.random(80) < share).astype(float).tolist(), (rng.random(80) < 1 - share).astype(float).tolist()
        together += paired_difference(a, b, 0.95, names).p_value <= 0.05
        alone += paired_difference(a, b).p_value <= 0.05
    assert together / 300 <= 0.065
    assert alone / 300 > 0.2


def test_one_seed_gives_the_interval_over_questions():
    a, b = [1.0, 0.0, 1.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.0, 0.5]
    pooled, single = pooled_difference([a], [b]), paired_difference(a, b)
    assert (pooled.mean, pooled.low, pooled.high) == pytest.approx((single.difference, single.low, single.high))
    assert pooled.p_value == pytest.approx(0.1573, abs=1e-3)  # the score test of 2 to 0: z = √2
    assert math.isnan(pooled.seed_sd)
    assert pooled_mean([a])[1:3] == pytest.approx(mean_interval(a))


def test_seeds_and_questions_join_by_squares():
    runs = [[1, 1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0], [1, 1, 0, 1, 0, 0, 0, 0]]
    found = pooled_mean(runs)
    means = [np.mean(run) for run in runs]
    half = stats.t.ppf(0.975, 2) * stats.sem(means)
    questions = mean_interval(np.mean(runs, axis=0).tolist())
    assert found.questions == pytest.approx(questions)
    assert found.low == pytest.approx(max(0, found.mean - math.hypot(found.mean - questions.low, half)))
    assert found.high == pytest.approx(min(1, found.mean + math.hypot(questions.high - found.mean, half)))
    assert found.seed_sd == pytest.approx(np.std(means, ddof=1))


def test_the_p_value_of_pooled_runs_is_the_interval_inverted():
    rng = np.random.default_rng(9)
    a, b = ((rng.random((4, 120)) < rate).astype(float).tolist() for rate in (0.7, 0.5))
    found = pooled_difference(a, b)
    assert 1e-6 < found.p_value < 0.2
    assert pooled_difference(a, b, 1 - found.p_value).low == pytest.approx(0, abs=1e-6)
    same = pooled_difference(a, a)
    assert (same.p_value, same.mean) == (1, 0)
    assert same.low < 0 < same.high


def test_intervals_over_seeds_cover_other_seeds():
    rng = np.random.default_rng(10)
    hits = naive = 0
    for _ in range(300):
        hard = rng.random(304)
        own = np.where(rng.random((3, 304)) < 0.8, hard, rng.random((3, 304)))
        a = (own < 0.6 + rng.normal(0, 0.05, (3, 1))).astype(float)
        found = pooled_difference(a.tolist(), [(hard < 0.6).astype(float).tolist()] * 3)
        hits += found.low <= 0 <= found.high
        naive += found.questions.low <= 0 <= found.questions.high
    assert hits / 300 >= 0.94
    assert naive / 300 <= 0.85


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [([], [], "needs a run"), ([[1, 0], [1]], [[1, 0]], "number of questions"), ([[1, 0]], [[1]], "differ in shape"),
     ([[1, 2]], [[1, 1]], "between 0 and 1")],
)  # fmt: skip
def test_runs_that_cannot_be_pooled_are_refused(a, b, said):
    with pytest.raises(ValueError, match=said):
        pooled_difference(a, b)
