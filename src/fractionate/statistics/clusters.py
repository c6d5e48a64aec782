"""How much a set of outcomes says where questions share a passage: its effective number and degrees of freedom.

Questions of one passage are alike, so 304 questions over 38 passages say less than 304 on their own. The design effect
(Rao & Scott, Biometrics 48 (1992) 577) is the variance of the mean by passages, in the bias-reduced cluster-robust
estimate CR2 (Bell & McCaffrey, Survey Methodology 28 (2002) 169), over the variance if questions were independent. The
outcomes count as n / design effect, with Student's quantile in place of the normal one: few passages estimate a design
effect badly. With one question per passage the design effect is 1 and the quantile normal, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fractionate.columns import in_order_of_sight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Values: TypeAlias = "Sequence[float] | Array"
"""Outcomes or amounts, one a question."""
Groups: TypeAlias = "Sequence[Hashable] | NDArray[np.int64]"
"""What each question shares with others: names, or numbers."""

UNSEEN_ICC = 0.2
"""The intra-class correlation assumed of outcomes too rare to show one. Without two rare outcomes that could have met
in a passage, data cannot tell losses that come alone from losses of whole passages."""


class Design(NamedTuple):
    """What `n` outcomes of `clusters` passages are worth: `effective` independent ones, and `df` for the t quantile."""

    n: int
    clusters: int
    effective: float
    df: float

    @property
    def effect(self) -> float:
        """Return the design effect, ≥ 1: how many outcomes say as much as one independent one."""
        return self.n / self.effective


class Spread(NamedTuple):
    """A mean, the cluster-robust variance of it (CR2) and that variance's degrees of freedom (Bell & McCaffrey)."""

    mean: float
    variance: float
    df: float


def critical(confidence: float, df: float = math.inf) -> float:
    """Return z so that a normal (or Student's t with `df`) variable lies within ±z with probability `confidence`.

    0.95 gives 1.96; ∞ where there is no degree of freedom.
    """
    from scipy.special import ndtri, stdtrit

    if df <= 0:
        return math.inf
    return float(ndtri(0.5 + confidence / 2) if math.isinf(df) else stdtrit(df, 0.5 + confidence / 2))


def group_numbers(groups: Groups | None, n: int) -> NDArray[np.int64]:
    """Return groups numbered from 0 in order of first sight; each its own where there are none.

    Raises ValueError where there is not one group for each of `n` outcomes.
    """
    import numpy as np

    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} outcomes")
    if isinstance(groups, np.ndarray):
        return groups if _is_in_order(groups) else in_order_of_sight(groups)
    seen: dict[Hashable, int] = {}
    return np.asarray([seen.setdefault(group, len(seen)) for group in groups], dtype=np.int64)


def _is_in_order(numbers: NDArray[np.int64]) -> bool:
    """Return whether groups are numbered from 0 in order of first sight already."""
    import numpy as np

    if not len(numbers):
        return True
    highest = np.maximum.accumulate(numbers)
    return bool(numbers[0] == 0 and numbers.min() == 0 and (np.diff(highest) <= 1).all())


def spread_of(array: Array, numbers: NDArray[np.int64]) -> Spread:
    """Return the mean of outcomes, its cluster-robust variance and degrees of freedom (0 and ∞ for one cluster)."""
    import numpy as np

    n = len(array)
    sizes = np.bincount(numbers).astype(np.float64)
    mean = float(array.mean())
    if len(sizes) < 2:
        return Spread(mean, math.inf, 0.0)
    residuals = np.bincount(numbers, weights=array - mean)
    # CR2: a passage pulls the mean towards itself by sizes/n, so its residual is too small by that much.
    leverage = 1 - sizes / n
    variance = float(np.sum(residuals**2 / leverage)) / n**2
    # tr(G)² / tr(G²) of the quadratic form, under independent outcomes of one variance.
    shared = sizes**2 / leverage
    traces = np.sum(sizes**2) + (np.sum(shared) ** 2 - np.sum(shared**2)) / n**2
    return Spread(mean, variance, float(n * n / traces))


def design_of(array: Array, groups: Groups | None) -> Design:
    """Return what outcomes (at least one) are worth, given the group of each; raises ValueError as `group_numbers`."""
    import numpy as np

    n = len(array)
    numbers = group_numbers(groups, n)
    clusters = int(numbers.max()) + 1
    if clusters == n:
        return Design(n, n, float(n), math.inf)
    if clusters == 1:
        return Design(n, 1, 1.0, 0.0)
    # The mean size of the passage that a *question* has, not of a passage: large ones count by their questions.
    met = float(np.sum(np.bincount(numbers) ** 2)) / n
    squares = (array - array.mean()) ** 2
    total = float(squares.sum())
    spread = spread_of(array, numbers)
    alone = total / (n * (n - 1))
    seen = spread.variance / alone if alone > 1e-30 else 1.0
    # Kish's effective number: a hundred equal deviations are a hundred events, one great one among tiny ones is one.
    events = total**2 / float(np.sum(squares**2)) if total > 1e-30 else 0.0
    # Only what passages cost beyond independent questions makes Student's quantile wider than the normal one: so one
    # question per passage gives the independent interval exactly.
    extra = 1 / spread.df - 1 / (n - 1)
    return Design(n, clusters, n / design_effect(seen, events, n, met), 1 / extra if extra > 1e-12 else math.inf)


def design_effect(seen: float, events: float, n: float, met: float) -> float:
    """Return the design effect to use: the one `seen`, but not below 1 nor below what rare outcomes leave open.

    `events` is the effective number of outcomes off the mean, `met` the mean size of a question's passage. As few pairs
    of such outcomes as would by chance meet in a passage, so little do they say about the design effect, and so much
    weighs the one that `UNSEEN_ICC` makes.
    """
    # Two outcomes show whether outcomes cluster only if they could have met in one passage: `pairs` of them could.
    pairs = max(events * (events - 1), 0.0) / 2 * (met - 1) / max(n - 1, 1)
    weight = pairs / (pairs + 1)
    assumed = 1 + (met - 1) * UNSEEN_ICC
    return max(1.0, seen, weight * seen + (1 - weight) * assumed)
