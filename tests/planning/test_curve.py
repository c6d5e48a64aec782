"""A learning curve predicts larger amounts, with intervals of the stated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from fractionate.errors import UsageError
from fractionate.planning import learning_curve

AMOUNTS = np.array([50.0, 100, 200, 400])


def outcomes_of(errors, questions, generator, spread=0.0, groups=None):
    """Outcomes (runs, questions) with these error rates, difficulties shared between runs (and within groups)."""
    labels = np.arange(questions) if groups is None else groups
    difficulty = generator.standard_normal(labels.max() + 1)[labels]
    own = np.clip(np.asarray(errors) + spread * generator.standard_normal(len(errors)), 0.005, 0.995)
    right = ndtr(ndtri(1 - own)[:, None] * np.sqrt(2) + difficulty[None])
    return (generator.random((len(own), questions)) < right).astype(float)


def truth(x, floor=0.1, last=0.3, exponent=0.6):
    return floor + (last - floor) * (x / AMOUNTS[-1]) ** -exponent


@pytest.mark.parametrize("floor", [0.0, 0.15])
def test_the_interval_at_2x_holds(floor):
    """In 60 worlds a 90 % interval should hold about 54 times, for one more training on the same questions."""
    generator = np.random.default_rng(12)
    held, refused = [], 0
    for _ in range(60):
        rows = outcomes_of(truth(np.append(AMOUNTS, 2 * AMOUNTS[-1]), floor, exponent=0.4), 250, generator, spread=0.01)
        try:
            told = learning_curve(AMOUNTS, rows[:4]).predict(2 * AMOUNTS[-1])
        except UsageError:
            refused += 1
            continue
        held.append(told.low <= rows[4].mean() <= told.high)
    assert np.mean(held) >= 0.82
    assert refused <= 12  # a power law is seldom taken for a late rise


def test_the_interval_holds_a_plateau_that_begins_at_the_last_amount():
    generator = np.random.default_rng(13)
    errors = [0.6, 0.46, 0.37, 0.31, 0.31]
    held = []
    for _ in range(40):
        rows = outcomes_of(errors, 600, generator)
        told = learning_curve(AMOUNTS, rows[:4]).predict(2 * AMOUNTS[-1])
        held.append(told.low <= rows[4].mean() <= told.high)
    assert np.mean(held) >= 0.85


def test_more_than_twice_the_largest_amount_is_refused():
    curve = learning_curve(AMOUNTS, outcomes_of(truth(AMOUNTS), 200, np.random.default_rng(2)))
    with pytest.raises(UsageError, match=r"measured up to 400 predicts up to 800, not 1,600: .*measure larger amounts"):
        curve.beyond((2, 4))


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([0.85, 0.8, 0.7, 0.45], r"the gain per doubling grows \(.*, then .* percentage points\)"),
        ([0.99, 0.98, 0.9, 0.7], "with 100 the outcome is near zero"),
    ],
)
def test_a_late_rise_is_refused(errors, said):
    with pytest.raises(UsageError, match=said):
        learning_curve(AMOUNTS, outcomes_of(errors, 600, np.random.default_rng(3)))


def test_with_endless_questions_and_amounts_the_curve_is_the_truth():
    generator = np.random.default_rng(1)
    amounts = np.geomspace(50, 10_000, 16)
    rows = outcomes_of(truth(amounts, 0.1, 0.35, 0.4), 20_000, generator)
    told = learning_curve(amounts, rows).predict(20_000)
    assert told.outcome == pytest.approx(1 - truth(20_000, 0.1, 0.35, 0.4), abs=0.015)
    assert told.expected_high - told.expected_low < 0.15


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.02, 0.98), min_size=2, max_size=5), st.integers(0, 1000))
def test_intervals_are_in_order_and_within_0_and_1(errors, seed):
    rows = outcomes_of(errors, 40, np.random.default_rng(seed))
    try:
        curve = learning_curve(np.arange(1, len(errors) + 1), rows)
    except UsageError:  # a late rise
        return
    for told in curve.beyond((1, 1.5, 2)):
        assert 0 <= told.low <= told.high <= 1
        assert 0 <= told.expected_low <= told.expected_high <= 1


def test_more_is_never_foretold_to_be_worse():
    rows = outcomes_of([0.4, 0.3, 0.3], 300, np.random.default_rng(3))
    expected = [one.outcome for one in learning_curve([1, 2, 3], rows).beyond((1, 1.3, 1.7, 2))]
    assert expected == sorted(expected)


def test_questions_of_one_passage_widen_the_interval():
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(20), 15)
    rows = outcomes_of(truth(AMOUNTS), 300, generator, groups=groups)
    alone, together = (learning_curve(AMOUNTS, rows, given).predict(800) for given in (None, groups))
    assert together.expected_high - together.expected_low > 1.2 * (alone.expected_high - alone.expected_low)


def test_repeated_trainings_narrow_the_interval():
    generator = np.random.default_rng(6)
    few = outcomes_of(truth(AMOUNTS), 400, generator, 0.02)
    amounts = np.repeat(AMOUNTS, 4)
    many = outcomes_of(truth(amounts), 400, generator, 0.02)
    wide, narrow = learning_curve(AMOUNTS, few).predict(800), learning_curve(amounts, many).predict(800)
    assert narrow.expected_high - narrow.expected_low < wide.expected_high - wide.expected_low


def test_all_right_is_not_certain():
    told = learning_curve([1, 2, 4], np.ones((3, 20))).predict(8)
    assert told.low < 1.0
    assert told.outcome <= 1.0


@pytest.mark.parametrize(
    ("amounts", "outcomes", "said"),
    [
        ([100], [[1, 0, 1]], r"a curve of one point \(100\)"),
        ([100, 100], [[1, 0, 1], [1, 1, 0]], "a curve of one point"),
        ([100, 200], [[1, 0, 2], [1, 1, 0]], "between 0 and 1"),
        ([100, -200], [[1, 0, 1], [1, 1, 0]], "amounts must be a number above 0"),
        ([100, 200], [[1, 0, 1]], "a row per run"),
    ],
)
def test_bad_curves_are_named(amounts, outcomes, said):
    with pytest.raises(UsageError, match=said):
        learning_curve(amounts, outcomes)
