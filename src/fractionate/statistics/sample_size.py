"""How many questions: to decide what is open, as a range, and before a run, for a margin.

A bound of the score interval lies beyond a threshold with the stated power when
√effective · |truth − threshold| ≥ z_confidence · √V₀ + z_power · √V₁, with V₀ the variance under the threshold and V₁
under the truth (Connor, Biometrics 43 (1987) 207). Questions that share passages count by their design effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fractionate.statistics.bounded import (
    Shares,
    checked,
    interval_of,
    shares_of,
    variance_at,
)
from fractionate.statistics.clusters import Groups, Values, critical, design_effect, design_of, group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POWER = 0.80
"""The power that sample sizes are stated at."""
_MOST = 10**9
"""More questions than this are as good as never."""
_LEVELS = 49


class Needed(NamedTuple):
    """Questions that would decide with the stated power: the 10 %, 50 % and 90 % points of what the data leave open.

    None is more than 10⁹: no number of questions within reach.
    """

    low: int | None
    likely: int | None
    high: int | None
    power: float


class Plan(NamedTuple):
    """A planned number of questions, the passages they come in, and the design effect reckoned with."""

    questions: int
    clusters: int
    effect: float
    power: float


def questions_to_decide(
    values: Values,
    threshold: float,
    confidence: float = 0.95,
    power: float = POWER,
    groups: Groups | None = None,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Needed:
    """Return how many questions would put a bound of the interval of the mean beyond `threshold`, on either side.

    `values` are per-question differences measured so far, within `bounds` (None for dollars). The truth is not known:
    it is spread as the intervals of the measured mean at all confidences say, and each truth needs its own number.
    Where the threshold lies well inside the interval, the range has no useful upper end. Raises ValueError without
    values.
    """
    import numpy as np

    if not len(values):
        raise ValueError("no values to plan from")
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    needed = sorted(_needed_if_true(values, threshold, confidence, power, groups, bounds, levels.tolist()))
    low, likely, high = (needed[round(share * (_LEVELS - 1))] for share in (0.1, 0.5, 0.9))
    return Needed(_reachable(low), _reachable(likely), _reachable(high), power)


def planned_sample_size(
    margin: float,
    discordance: float,
    confidence: float = 0.95,
    power: float = POWER,
    difference: float = 0.0,
    cluster_size: float = 1.0,
    icc: float = 0.0,
    candidates: int = 1,
) -> Plan:
    """Return how many questions show non-inferiority at a `margin` in (0, 1) with `power`, before any is asked.

    `discordance` is the share of questions in [0, 1] that only one of the two systems gets right, `difference` the true
    difference (0: equally good), `icc` the intra-class correlation in [0, 1] of the per-question differences within
    passages of `cluster_size` questions, `candidates` how many share the error by Bonferroni. For F1 give the mean
    square of the per-question differences as `discordance`. Raises ValueError where they cannot hold together or the
    difference is already at the margin.
    """
    import numpy as np

    if not abs(difference) <= discordance <= 1:
        raise ValueError(f"discordance {discordance:g} must lie between |difference| {abs(difference):g} and 1")
    if not 0 < margin < 1 or difference <= -margin:
        raise ValueError(f"a margin of {margin:g} cannot be shown at a true difference of {difference:g}")
    if cluster_size < 1 or not 0 <= icc <= 1:
        raise ValueError("passages must have at least one question, and an intra-class correlation from 0 to 1")
    shares = np.asarray([(discordance - difference) / 2, 1 - discordance, (discordance + difference) / 2])
    seen = shares > 0
    sample = Shares(np.asarray([-1.0, 0.0, 1.0])[seen], shares[seen])
    variance = max(discordance - difference**2, 0.0)
    each = 1 - (1 - confidence) / max(candidates, 1)

    def effect(n: float) -> float:
        return design_effect(1 + (cluster_size - 1) * icc, discordance * n, n, cluster_size)

    null = variance_at(sample, -1.0, 1.0, -margin)
    found = _fewest(difference + margin, null, variance, each, power, effect, cluster_size)
    clusters = math.ceil(found / cluster_size)
    questions = math.ceil(clusters * cluster_size)
    return Plan(questions, clusters, effect(questions), power)


def sample_size(
    distance: float, variance: float, confidence: float = 0.95, power: float = POWER, room: float | None = 1.0
) -> int | None:
    """Return how many independent questions put a bound of the interval beyond a threshold, if what is given holds.

    `distance` is from the measured difference to the threshold (for non-inferiority: difference + margin), `variance`
    that of the per-question differences. Paired samples: n = (z_conf + z_power)² · variance / distance² (Connor,
    Biometrics 43 (1987) 207, with the variance at the measured difference). `room` is how far a
    bounded mean could lie from the measured one on the threshold's side: however little varies, there must be enough
    questions for the share that may have gone unseen not to reach across. None where the distance is 0.
    """
    from scipy.special import ndtri

    gap = abs(distance)
    if gap < 1e-12:
        return None
    z = critical(confidence)
    needed = (z + float(ndtri(power))) ** 2 * variance / gap**2
    if room is not None:
        needed = max(needed, z * z * (room - gap) / gap)
    return max(1, math.ceil(needed)) if needed < 1e12 else None


def _reachable(questions: float) -> int | None:
    return None if math.isinf(questions) else int(questions)


def _needed_if_true(
    values: Values,
    threshold: float,
    confidence: float,
    power: float,
    groups: Groups | None,
    bounds: tuple[float, float] | None,
    levels: Sequence[float],
) -> list[float]:
    """Return the questions needed at each truth that the levels of the measured mean's confidence distribution name."""
    import numpy as np

    least, most = bounds or (-math.inf, math.inf)
    array = checked(values, least, most)
    design = design_of(array, groups)
    sizes = np.bincount(group_numbers(groups, len(array)))
    met = float(np.sum(sizes**2)) / len(array)
    squares = (array - array.mean()) ** 2
    events = float(squares.sum()) ** 2 / float(np.sum(squares**2)) if squares.sum() > 1e-30 else 0.0
    variance, sample = float(squares.mean()), shares_of(array)

    def effect(n: float) -> float:
        return design_effect(design.effect, events * n / design.n, n, met)

    def spread(mean: float) -> float:
        if bounds is None or not least < mean < most:
            return variance
        return variance_at(sample, least, most, mean)

    null = spread(threshold)
    found = []
    for level in levels:
        z = critical(abs(2 * level - 1), design.df)
        if bounds is None:
            error = math.sqrt(variance / max(design.effective - 1, 1))
            truth = float(array.mean()) + math.copysign(z * error if z else 0.0, level - 0.5)
        else:
            truth = interval_of(sample, least, most, design, z)[level > 0.5]
        found.append(_fewest(truth - threshold, null, spread(truth), confidence, power, effect, met))
    return found


def _fewest(
    distance: float,
    null: float,
    variance: float,
    confidence: float,
    power: float,
    effect: Callable[[float], float],
    met: float,
) -> float:
    """Return the fewest questions with the power, ∞ beyond 10⁹; `effect` is the design effect of so many questions."""
    from scipy.special import ndtri

    if abs(distance) < 1e-12:
        return math.inf
    spare = float(ndtri(power)) * math.sqrt(variance)

    def enough(n: int) -> bool:
        clusters = n / met
        extra = 1 / (clusters - 1) - 1 / (n - 1) if clusters > 1.5 and met > 1 else 0.0
        if met > 1 and clusters <= 1.5:
            return False
        z = critical(confidence, 1 / extra if extra > 1e-12 else math.inf)
        return math.sqrt(n / effect(n)) * abs(distance) >= z * math.sqrt(null) + spare

    if not enough(_MOST):
        return math.inf
    low, high = 0, 1
    while not enough(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)
