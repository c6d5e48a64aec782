"""The needed questions follow from the reports' own test, by summing over its outcomes, not by a formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.errors import UsageError
from fractionate.planning import Design, power_at, questions_needed
from fractionate.planning.power import _score, design_effect, discordance
from fractionate.statistics import tango


@pytest.mark.parametrize(
    ("differ", "margin", "n"), [(0.2, 0.1, 120), (0.05, 0.05, 150), (0.4, 0.1, 300), (0.3, 0.15, 60)]
)
def test_the_power_is_what_drawing_outcomes_and_testing_them_shows(differ, margin, n):
    """Outcomes are drawn and judged by the interval of the reports, which shares no code with the sum."""
    generator = np.random.default_rng(4)
    draws = generator.multinomial(n, [differ / 2, differ / 2, 1 - differ], size=2500)
    outcomes, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    shown = [tango(int(a), int(b), n).low >= -margin for a, b in outcomes]
    simulated = float(np.sum(counts * shown)) / len(draws)
    assert power_at(Design(differ, margin), n) == pytest.approx(simulated, abs=4 * math.sqrt(0.25 / len(draws)))


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.floats(0.005, 0.4))
def test_the_score_decides_as_tango_s_interval_does(a, b, both, margin):
    n = a + b + both
    if n == 0:
        return
    shown = bool(_score(np.array([a]), np.array([b]), n, -margin)[0] >= 1.959963984540054)
    low = tango(a, b, n).low
    if abs(low + margin) > 1e-9:
        assert shown == (low >= -margin)


@pytest.mark.parametrize(("differ", "margin"), [(0.2, 0.05), (0.1, 0.02), (0.02, 0.05), (0.0, 0.03), (0.5, 0.1)])
def test_the_questions_needed_have_the_power_from_there_on(differ, margin):
    design = Design(differ, margin)
    n = questions_needed(design)
    assert all(power_at(design, more) >= 0.80 for more in range(n, n + 40))
    assert power_at(design, round(0.93 * n)) < 0.80


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.05, 0.3))
def test_more_discordance_or_a_narrower_margin_needs_more(differ, margin):
    n = questions_needed(Design(differ, margin))
    assert questions_needed(Design(min(1.0, 2 * differ), margin)) >= n
    assert questions_needed(Design(differ, 0.7 * margin)) >= n


def test_a_better_candidate_needs_fewer_questions():
    equal, better = Design(0.2, 0.05), Design(0.2, 0.05, difference=0.03)
    assert questions_needed(better) < questions_needed(equal)


@pytest.mark.parametrize("differ", [0.05, 0.2])
def test_at_the_margin_itself_few_tests_succeed(differ):
    """A candidate that is exactly as bad as the margin is passed about as rarely as the test says: 2.5 %."""
    design = Design(differ, 0.04999, difference=-0.0499)
    assert power_at(design, 400) < 0.035


def test_discordance_from_accuracy_and_correlation():
    assert discordance(0.7, 0.0) == pytest.approx(2 * 0.7 * 0.3)
    assert discordance(0.7, 1.0) == 0.0
    generator = np.random.default_rng(0)
    shared = generator.random(200_000) < 0.5
    a, b = (np.where(shared, base, generator.random(200_000) < 0.7) for base in [generator.random(200_000) < 0.7] * 2)
    correlation = np.corrcoef(a, b)[0, 1]
    assert np.mean(a != b) == pytest.approx(discordance(0.7, correlation), abs=0.005)


def test_shared_passages_count_less():
    assert design_effect(1, 0.5) == 1
    assert design_effect(8, 0.1) == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: questions_needed(Design(1.2, 0.05)), "discordance must be a share"),
        (lambda: questions_needed(Design(0.2, 2)), "margin must be a share between 0 and 1, such as 0.02 for 2 points"),
        (lambda: questions_needed(Design(0.1, 0.05, difference=0.2)), "needs a discordance of 0.2 or more"),
        (lambda: questions_needed(Design(0.1, 0.05, difference=-0.06)), "is inferior at a margin"),
        (lambda: questions_needed(Design(0.2, 1e-5)), "more than 10,000,000 questions"),
        (lambda: questions_needed(Design(0.2, 0.05), 1.0), "power must lie between 0 and 1"),
        (lambda: design_effect(0, 0.1), "cluster_size is a number of questions"),
    ],
)
def test_bad_designs_are_named(call, said):
    with pytest.raises(UsageError, match=said):
        call()
