"""Cheap scores corrected by gold: the estimate, its weight, and how often its interval misses."""

import numpy as np
import pytest

from fractionate.statistics import Interval, mean_interval, score_interval
from fractionate.statistics.prediction_powered import corrected


def judged_by(random: np.random.Generator, truth: np.ndarray, misses: float, invents: float) -> np.ndarray:
    """Return the verdicts of a judge that misses right answers and invents others, at these rates."""
    chance = random.random(len(truth))
    return np.where(truth > 0, chance >= misses, chance < invents).astype(float)


def outcomes(random: np.random.Generator, gold: int, others: int, right: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Return gold (NaN beyond the first `gold`) and the scores of a judge that is 10 points too kind."""
    truth = (random.random(gold + others) < right).astype(float)
    judged = judged_by(random, truth, 0.05, 0.45)
    return np.where(np.arange(gold + others) < gold, truth, np.nan), judged


def test_the_estimate_is_that_of_ppi_plus_plus() -> None:
    gold, judged = outcomes(np.random.default_rng(0), 200, 1_000)
    found = corrected(gold, judged)
    y, f, rest = gold[:200], judged[:200], judged[200:]
    # Angelopoulos et al., arXiv 2311.01453, example 6.1, in the form that takes unlabelled questions alone.
    weight = found.tuning / (1 + 200 / 1_000)
    assert found.estimate == pytest.approx(weight * rest.mean() + (y - weight * f).mean())
    least_squares = np.cov(y, f)[0, 1] / f.var(ddof=1)
    assert found.tuning == pytest.approx(least_squares, abs=0.05)
    assert found.bias == pytest.approx((f - y).mean())
    assert found.n_gold == 200


@pytest.mark.parametrize(("gold", "others"), [(100, 500), (300, 300)])
def test_at_a_judge_ten_points_too_kind_the_interval_holds_the_truth(gold: int, others: int) -> None:
    random = np.random.default_rng(4)
    found = [corrected(*outcomes(random, gold, others)) for _ in range(400)]
    assert np.mean([one.bias for one in found]) == pytest.approx(0.1, abs=0.01)
    intervals = [one.interval(0.95) for one in found]
    held = sum(low <= 0.7 <= high for low, high in intervals)
    assert 371 <= held <= 392  # nominal 380; fewer or more have less than 2 % of chance
    alone = [score_interval(outcomes(random, gold, 0)[0], 0.0, 1.0) for _ in range(50)]
    assert width(intervals) < 0.95 * width(alone)


def test_paired_differences_keep_their_level_at_the_margin() -> None:
    random = np.random.default_rng(6)
    wrongly_above = 0
    for _ in range(400):
        chance = random.random(1_200)
        truth = np.where(chance < 0.06, -1.0, np.where(chance < 0.10, 1.0, 0.0))
        judged = np.where(random.random(1_200) < 0.8, truth, random.choice([-1.0, 0.0, 1.0], 1_200))
        truth[300:] = np.nan
        wrongly_above += corrected(truth, judged, least=-1.0, most=1.0).interval(0.95).low > -0.02
    assert wrongly_above <= 18  # nominal 10; more have less than 1 % of chance


def test_passages_count_once() -> None:
    """The judge errs by whole passages of ten: taken as independent, the interval is far too narrow."""
    random = np.random.default_rng(5)
    held = held_alone = 0
    for _ in range(300):
        groups = np.repeat(np.arange(120), 10)
        truth = np.repeat((random.random(120) < 0.6).astype(float), 10)
        judged = judged_by(random, truth, 0.1, 0.2)
        truth[random.permutation(1_200)[:900]] = np.nan
        found = corrected(truth, judged, groups)
        held += holds(found.interval(0.95, groups), 0.6)
        held_alone += holds(found.interval(0.95), 0.6)
    assert 277 <= held <= 295
    assert held_alone < 250


def test_gold_for_every_question_leaves_the_cheap_score_out() -> None:
    gold, judged = outcomes(np.random.default_rng(1), 150, 0)
    found = corrected(gold, judged)
    assert found.values.tolist() == gold.tolist()
    assert (found.least, found.most, found.tuning) == (0.0, 1.0, 0.0)
    assert found.interval() == pytest.approx(mean_interval(gold))


def test_a_judge_that_tosses_a_coin_costs_next_to_nothing() -> None:
    random = np.random.default_rng(2)
    gold, _ = outcomes(random, 300, 3_000)
    found = corrected(gold, (random.random(3_300) < 0.5).astype(float))
    assert found.tuning < 0.15
    assert found.kappa == pytest.approx(0.0, abs=0.15)
    alone = score_interval(gold[:300], 0.0, 1.0)
    assert width([found.interval()]) < 1.03 * width([alone])


def test_nothing_that_varies_is_no_proof() -> None:
    """Forty right answers of forty: the 2,000 that the judge alone calls right add no certainty."""
    gold = np.where(np.arange(2_040) < 40, 1.0, np.nan)
    low, high = corrected(gold, np.ones(2_040)).interval(0.95)
    assert low == pytest.approx(mean_interval([1.0] * 40).low, abs=0.02)
    assert high == 1.0


def test_agreement_is_that_of_the_questions_with_gold() -> None:
    gold = np.asarray([1.0, 1.0, 0.0, 0.0, np.nan])
    found = corrected(gold, np.asarray([1.0, 0.0, 0.0, 0.0, 1.0]))
    assert found.agreement == 0.75
    assert found.kappa == pytest.approx(0.5)
    graded = corrected(gold, np.asarray([0.8, 0.6, 0.0, 0.2, 1.0]))
    assert graded.agreement == pytest.approx(0.8)
    wide = corrected(np.asarray([1.0, -1.0, 0.0, np.nan]), np.asarray([1.0, 1.0, 0.0, 0.0]), least=-1.0, most=1.0)
    assert wide.agreement == pytest.approx(2 / 3), "a distance counts as a share of the scale"


@pytest.mark.parametrize(
    ("gold", "judged", "message"),
    [
        ([np.nan, np.nan], [1.0, 0.0], "no question has a gold score"),
        ([1.0, np.nan], [1.0], "differ in shape"),
        ([1.0, np.nan], [1.0, np.nan], "a judged score does not lie between 0 and 1"),
        ([2.0, np.nan], [1.0, 1.0], "a gold score does not lie between 0 and 1"),
    ],
)
def test_what_cannot_be_corrected_is_refused(gold: list[float], judged: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected(np.asarray(gold), np.asarray(judged))


def holds(interval: Interval, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


def width(intervals: list[Interval]) -> float:
    """Return the mean width of intervals."""
    return float(np.mean([high - low for low, high in intervals]))
