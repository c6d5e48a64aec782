"""Intervals of dollars per question, which have no bounds that outcomes have, and of local models' measured speeds.

Token counts are skewed: a student that loops until it is cut off once in twenty questions costs more than most samples
show. Student's interval is then too sure of "cheaper", so it is joined with Hall's skewness-corrected one (J. R. Stat.
Soc. B 54 (1992) 221); where the most that a question can cost is known (a cap on output tokens), the bounded interval
of `bounded.py` also covers what was never seen.

The dollars of a local model are tokens × dollars per token, and the latter is a speed, measured in a few calibration
rounds. A batch's time divided over its rows is *not* a sample of as many times. So questions and rounds each give an
interval, joined as in `paired.py`; a round measures all models in turn, so that what slows the machine slows them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fractionate.statistics.bounded import Interval, score_interval
from fractionate.statistics.clusters import Groups, Values, critical, group_numbers, spread_of
from fractionate.statistics.paired import join

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

UNBOUNDED = Interval(-math.inf, math.inf)


class Metered(NamedTuple):
    """What one role of a pair takes: `amounts[i]` units (tokens of one kind) for question i, and dollars per unit.

    `rates` is a number where the price is known, or the dollars per unit found in each calibration round. Rounds of one
    comparison are the same for all: entry r of every `rates` is round r. `most` is the most units that a question can
    take, None where no cap is known. `by_seed[s]` is the mean of the amounts in run s, where `amounts` are the means
    over several runs: a student trained with another seed also writes more or less. None where no seed changes them.
    """

    amounts: Values
    rates: float | Sequence[float]
    most: float | None = None
    by_seed: Sequence[float] | None = None


class CostDifference(NamedTuple):
    """Dollars per question of a and of b, their difference a − b and ratio a / b, with intervals.

    "Cheaper" is `ratio_high` < 1, "not cheaper" `ratio_low` ≥ 1: what slows the whole machine cancels in a ratio.
    Without measured rates that says the same as the difference's interval.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    n: int
    rounds: int
    """Calibration rounds; 0 where every price is known."""


def mean_t_interval(values: Values, confidence: float = 0.95, groups: Groups | None = None) -> Interval:
    """Return Student's interval of an unbounded mean, by `groups` where given; unbounded below two values or groups.

    With groups: the bias-reduced cluster-robust variance and its degrees of freedom (`clusters.py`).
    """
    import numpy as np

    if len(values) < 2:
        return UNBOUNDED
    spread = spread_of(np.asarray(values, dtype=np.float64), group_numbers(groups, len(values)))
    if spread.df <= 0:
        return UNBOUNDED
    half = critical(confidence, spread.df) * math.sqrt(spread.variance)
    return Interval(spread.mean - half, spread.mean + half)


def dollars_interval(
    values: Values,
    confidence: float = 0.95,
    groups: Groups | None = None,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Return the interval of mean dollars per question (or of their paired difference); unbounded below two units.

    `groups[i]` is what question i shares with others: its passage, or the batch whose time was divided over its rows.
    `bounds` are the least and most that any question could give; with them the interval covers what was never seen.
    """
    import numpy as np

    if bounds is not None:
        if not len(values):
            return UNBOUNDED
        # Dollars per question are numbers like 1e-5, and the search has absolute limits: scale to about 1.
        unit = max(abs(bound) for bound in bounds) or 1.0
        found = score_interval(
            np.asarray(values, dtype=np.float64) / unit, bounds[0] / unit, bounds[1] / unit, confidence, groups
        )
        return Interval(found.low * unit, found.high * unit)
    student = mean_t_interval(values, confidence, groups)
    array = np.asarray(values, dtype=np.float64)
    if student.low == student.high or math.isinf(student.low):
        return student
    numbers = group_numbers(groups, len(array))
    residuals = np.bincount(numbers, weights=array - array.mean())
    residuals = residuals / np.abs(residuals).max()
    # Hall's cubic needs the skewness of the independent units (passages' sums), over the root of their number.
    skewness = float(np.mean(residuals**3) / np.mean(residuals**2) ** 1.5) / math.sqrt(len(residuals))
    quantile = critical(confidence, spread_of(array, numbers).df)
    error = (student.high - student.low) / (2 * quantile)
    mean = float(array.mean())
    # Joined, not replaced: where a sample happens to show no skewness, Hall's interval alone is as short as Student's.
    hall = [mean - error * _unskewed(tail, skewness) for tail in (quantile, -quantile)]
    return Interval(min(student.low, hall[0]), max(student.high, hall[1]))


def separate_difference(
    a: Sequence[float],
    b: Sequence[float],
    confidence: float = 0.95,
    a_groups: Groups | None = None,
    b_groups: Groups | None = None,
) -> Interval:
    """Return the interval of mean(a) − mean(b) of samples that are not paired: two cells' times, each in batches."""
    import numpy as np

    parts = [
        (float(np.mean(values)) if len(values) else math.nan, dollars_interval(values, confidence, groups))
        for values, groups in ((a, a_groups), (b, b_groups))
    ]
    (ours, mine), (others, theirs) = parts
    if math.isinf(mine.low) or math.isinf(theirs.low):
        return UNBOUNDED
    difference = ours - others
    return join(
        difference, Interval(mine.low - others, mine.high - others), Interval(ours - theirs.high, ours - theirs.low)
    )


def metered_difference(
    a: Sequence[Metered],
    b: Sequence[Metered],
    confidence: float = 0.95,
    groups: Groups | None = None,
) -> CostDifference:
    """Compare what two pairs cost per question: each the sum of what its roles take, over the same questions.

    One measured round, or one question or passage, gives unbounded intervals. Raises ValueError where the parts differ
    in number of questions, of rounds or of seeds, where there is no question, or where an amount or rate is negative or
    an amount above its `most`.
    """
    import numpy as np

    # Three independent sources of chance: questions, calibration rounds, seeds. Each has an interval around the same
    # difference; they are joined by squares (MOVER).
    n, rounds, seeds = _sizes(a, b)
    numbers = group_numbers(groups, n)  # once: the search for a ratio asks again and again
    groups = numbers if numbers.max() + 1 < n else None
    ours, others = _Side.of(a, n, rounds, seeds), _Side.of(b, n, rounds, seeds)
    mine, theirs = float(ours.questions.mean()), float(others.questions.mean())
    differences = ours.questions - others.questions
    bounds = None if ours.most is None or others.most is None else (-others.most, ours.most)
    of_questions = dollars_interval(differences, confidence, groups, bounds)
    of_rounds = _around(mine - theirs, ours.rounds - others.rounds, rounds, confidence)
    of_seeds = _around(mine - theirs, ours.seeds - others.seeds, seeds, confidence)
    low, high = join(mine - theirs, of_questions, of_rounds, of_seeds)
    ratio = Interval(0.0, math.inf)
    if mine > 0 and theirs > 0:
        # Ratios are joined on the log scale: there a factor on both sides (a slow machine) is a shift that cancels.
        fieller = _ratio_interval(ours, others, confidence, groups)
        round_logs = np.log(ours.rounds) - np.log(others.rounds)
        seed_logs = np.log(ours.seeds) - np.log(others.seeds)
        middle = math.log(mine / theirs)
        joined = join(
            middle,
            Interval(math.log(fieller.low) if fieller.low > 0 else -math.inf, math.log(fieller.high)),
            _around(middle, round_logs, rounds, confidence),
            _around(middle, seed_logs, seeds, confidence),
        )
        ratio = Interval(math.exp(joined.low), math.exp(joined.high) if joined.high < 700 else math.inf)
    return CostDifference(
        mine,
        theirs,
        mine - theirs,
        low,
        high,
        mine / theirs if theirs > 0 else math.nan,
        *ratio,
        n,
        rounds,
    )


class _Side(NamedTuple):
    """One pair's dollars: of each question at mean rates, per question in each round or seed, most of a question."""

    questions: Array
    rounds: Array
    seeds: Array
    most: float | None

    @classmethod
    def of(cls, parts: Sequence[Metered], n: int, rounds: int, seeds: int) -> _Side:
        import numpy as np

        questions, by_round, by_seed, most = np.zeros(n), np.zeros(max(rounds, 1)), np.zeros(max(seeds, 1)), 0.0
        capped = True
        for part in parts:
            amounts = np.asarray(part.amounts, dtype=np.float64)
            rates = np.atleast_1d(np.asarray(part.rates, dtype=np.float64))
            if (amounts < 0).any() or (rates < 0).any():
                raise ValueError("amounts and rates must not be negative")
            if part.most is not None and amounts.max() > part.most:
                raise ValueError(f"an amount of {amounts.max():g} is more than the stated most of {part.most:g}")
            questions += amounts * rates.mean()
            by_round += amounts.mean() * rates
            by_seed += float(rates.mean()) * np.asarray(amounts.mean() if part.by_seed is None else part.by_seed)
            capped = capped and part.most is not None
            most += (part.most or 0.0) * float(rates.mean())
        return cls(questions, by_round, by_seed, most if capped else None)


def _sizes(a: Sequence[Metered], b: Sequence[Metered]) -> tuple[int, int, int]:
    counts = {len(part.amounts) for part in (*a, *b)}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("metered parts must be over the same questions, at least one")
    rounds = {len(part.rates) for part in (*a, *b) if not isinstance(part.rates, int | float)}
    if len(rounds) > 1 or 0 in rounds:
        raise ValueError("measured rates must be of the same rounds, at least one")
    seeds = {len(part.by_seed) for part in (*a, *b) if part.by_seed is not None}
    if len(seeds) > 1 or 0 in seeds:
        raise ValueError("amounts by seed must be of the same seeds, at least one")
    return counts.pop(), rounds.pop() if rounds else 0, seeds.pop() if seeds else 0


def _around(centre: float, each: Array, count: int, confidence: float) -> Interval:
    """Return what rounds or seeds leave open around a figure: Student's interval; nothing where there are none."""
    if not count:
        return Interval(centre, centre)
    found = mean_t_interval(each.tolist(), confidence)
    half = (found.high - found.low) / 2
    return Interval(centre - half, centre + half)


def _ratio_interval(ours: _Side, others: _Side, confidence: float, groups: Groups | None) -> Interval:
    """Return the ratios r for which a − r · b may be 0 on average (Fieller, J. R. Stat. Soc. B 16 (1954) 175)."""
    from scipy.optimize import brentq

    def bound(ratio: float, side: str) -> float:
        bounds = None if ours.most is None or others.most is None else (-ratio * others.most, ours.most)
        found = dollars_interval(ours.questions - ratio * others.questions, confidence, groups, bounds)
        return float(getattr(found, side))

    # Fieller: r is in the interval while 0 is in that of a − r·b. The ends are found by doubling away from the
    # estimate; 60 doublings without a crossing mean that no ratio is excluded on that side.
    ratio = float(ours.questions.mean() / others.questions.mean())

    def crossing(side: str, sure: Callable[[float], bool], factor: float) -> float:
        edge = ratio
        for _ in range(60):
            edge *= factor
            if sure(bound(edge, side)):
                return float(brentq(bound, min(ratio, edge), max(ratio, edge), args=(side,), rtol=1e-9))
        return 0.0 if factor < 1 else math.inf

    if bound(ratio, "high") - bound(ratio, "low") < 1e-9 * float(ours.questions.mean()):
        return Interval(ratio, ratio)
    return Interval(crossing("low", lambda x: x > 0, 0.5), crossing("high", lambda x: x < 0, 2.0))


def _unskewed(quantile: float, skewness: float) -> float:
    """Return the t whose transform is `quantile`: Hall's cubic, inverted; `skewness` is divided by √n."""
    if abs(skewness) < 1e-9:
        return quantile
    inside = 1 + skewness * (quantile - skewness / 6)
    return 3 / skewness * (math.copysign(abs(inside) ** (1 / 3), inside) - 1)
