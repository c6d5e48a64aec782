"""One error shared among several claims: Holm's p-values, the intervals of several candidates, and interim analyses.

**Interim analyses.** A user who adds questions until a verdict falls has several chances to be wrong. Each interim
analysis spends a part of the error (Lan & DeMets, Biometrika 70 (1983) 659): its boundary is such that the chance of
crossing it first there is what the spending function has set free since the last one. Only the sizes so far are needed,
not how many analyses will come. (An always-valid bound needs not even that, but at its best asks for 1.9 times the
questions of a single analysis.)

Up to the planned number of questions O'Brien and Fleming's function (Biometrics 35 (1979) 549) spends next to nothing
early, and all but a reserve at the plan. Beyond the plan, each doubling sets free half of what is left of the reserve.
Without a plan the first analysis is taken for it. So a single analysis, the usual case, pays with the reserve alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from fractionate.statistics.clusters import Groups, Values, critical, group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


_DRAWS = 2**15


def holm(p_values: Sequence[float], most_true: int | None = None) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: the family-wise error stays under any threshold on them.

    Holm, Scand. J. Statist. 6 (1979) 65. `most_true` is how many of the hypotheses can be true at once, where they
    exclude each other (Shaffer, J. Am. Stat. Assoc. 81 (1986) 826); None is all of them.
    """
    most = len(p_values) if most_true is None else most_true
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, min(most, len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def bonferroni_confidence(confidence: float, candidates: int) -> float:
    """Return the confidence of each of several intervals that all hold together with `confidence`."""
    return 1 - (1 - confidence) / max(candidates, 1)


def simultaneous_confidence(confidence: float, differences: Sequence[Values], groups: Groups | None = None) -> float:
    """Return the confidence of each candidate's interval so that all their lower (or upper) bounds hold together.

    `differences[c][i]` is candidate c's outcome minus the reference's at question i. The candidates share the reference
    and the questions, so their errors go together: the critical value is that of the largest of correlated normal
    variables (Hothorn, Bretz & Westfall, Biom. J. 50 (2008) 346), with the correlation measured over `groups`. Never
    below what one candidate needs nor above Bonferroni's, from which it gains little unless candidates are much alike
    (docs/statistics.md). Raises ValueError where candidates differ in number of questions.
    """
    import numpy as np
    from scipy.special import ndtr

    bonferroni = bonferroni_confidence(confidence, len(differences))
    if len({len(row) for row in differences}) > 1:
        raise ValueError("candidates must be compared over the same questions")
    if len(differences) < 2 or not len(differences[0]):
        return bonferroni
    matrix = np.asarray(differences, dtype=np.float64)
    numbers = group_numbers(groups, matrix.shape[1])
    sums = np.stack([np.bincount(numbers, weights=row - row.mean()) for row in matrix])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    scaled = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 1e-12)
    correlation = scaled @ scaled.T
    np.fill_diagonal(correlation, 1 + 1e-9)  # a candidate that never differs counts as independent of the others
    # The quantile of the largest of correlated normals has no closed form: evenly spread points (not random ones) give
    # it to three digits, and the same figure each time.
    draws = _normals(len(matrix)) @ np.linalg.cholesky(correlation).T
    bound = float(np.quantile(draws.max(axis=1), 0.5 + confidence / 2))
    return float(min(max(2 * ndtr(bound) - 1, confidence), bonferroni))


@lru_cache(maxsize=8)
def _normals(count: int) -> Array:
    """Return independent standard normal rows of `count`, spread evenly (Sobol'), always the same."""
    import numpy as np
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(count, rng=np.random.default_rng(0)).random(_DRAWS)
    return np.asarray(ndtri(np.clip(points, 1e-9, 1 - 1e-9)), dtype=np.float64)


RESERVE = 0.2
"""The share of the error kept for analyses beyond the plan: z = 2.05 for 1.96 at the plan, 7 % more questions."""
_POINTS = 501
_REACH = 8.0
"""Standard deviations below 0 at which the grid of totals ends."""


def interim_confidence(
    confidence: float, sizes: Sequence[float], planned: float | None = None, reserve: float = RESERVE
) -> float:
    """Return the two-sided confidence to use at the last of several interim analyses.

    `sizes` are the questions of each so far, in order; the same size again is no new analysis. A claim is one bound of
    an interval, so the error shared out is (1 − confidence) / 2. `reserve` in [0, 1) is the share of the error for
    analyses beyond the plan; with 0 they never decide (confidence 1), and with 0 and a single analysis the answer is
    `confidence` itself. Raises ValueError where sizes fall or are not positive. Sizes may depend on what was seen:
    simulated, that does not raise the error (benchmarks/statistics_operating.py).
    """
    if not sizes or min(sizes) <= 0 or any(later < sooner for sooner, later in pairwise(sizes)):
        raise ValueError("interim analyses must have positive sizes that never fall")
    if (planned is not None and planned <= 0) or not 0 <= reserve < 1:
        raise ValueError("a plan must be positive and a reserve at least 0 and below 1")
    error = (1 - confidence) / 2
    done = tuple(float(size) for size in dict.fromkeys(sizes))
    plan = done[0] if planned is None else float(planned)
    bound = _boundary(done, tuple(error * spent_at(size, plan, reserve, error) for size in done))
    return 1 - 2 * _tail(bound)


def anytime_confidence(confidence: float, size: float, planned: float) -> float:
    """Return the two-sided confidence to use at any look of this size, however many looks there are and when.

    The boundary is that of a normal mixture, whose likelihood ratio is a martingale, so that Ville's inequality holds
    at all sizes at once (Robbins, Ann. Math. Statist. 41 (1970) 1397; as a confidence sequence for means that are
    normal in the limit: Waudby-Smith et al., Ann. Statist. 52 (2024) 2613). The mixture is tuned to the planned size,
    where it asks for about twice the questions of a single look; one bound errs with (1 − confidence) / 2.
    """
    error = (1 - confidence) / 2
    # The one-sided mixture that is tightest near the planned size (Howard et al., Ann. Statist. 49 (2021) 1055).
    tuning = (2 * math.log(1 / (2 * error)) + math.log(1 + 2 * math.log(1 / (2 * error)))) / planned
    scaled = size * tuning
    bound = math.sqrt((1 + 1 / scaled) * 2 * math.log(1 + math.sqrt(scaled + 1) / (2 * error)))
    return 1 - 2 * _tail(bound)


def spent_at(size: float, plan: float, reserve: float, error: float) -> float:
    """Return the share of the error that may be spent up to an analysis of this size."""
    if size >= plan:
        # Beyond the plan the reserve is freed as 1 − plan/size: half of what is left with each doubling, for ever.
        return 1 - reserve * plan / size
    # O'Brien and Fleming: 2(1 − Φ(z/√t)) at the share t of the planned questions, of the error without the reserve.
    within = error * (1 - reserve)
    return 2 * _tail(critical(1 - within) / math.sqrt(size / plan)) / error


@lru_cache(maxsize=64)
def _boundary(sizes: tuple[float, ...], spent: tuple[float, ...]) -> float:
    """Return the one-sided z boundary of the last analysis, given the error spent up to each.

    The totals S = z·√size have independent normal increments; the density of those that crossed no boundary yet is
    carried from one to the next on a grid (Armitage, McPherson & Rowe, J. R. Stat. Soc. A 132 (1969) 235).
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    # Of the first analysis nothing was spent before, so its boundary is the plain normal quantile.
    bound, scale = float(-ndtri(spent[0])), math.sqrt(sizes[0])
    grid, weights = _grid(scale, bound)
    mass = weights * np.exp(-0.5 * (grid / scale) ** 2) / (scale * math.sqrt(2 * math.pi))

    def excess(z: float, scale: float, step: float, free: float) -> float:
        return float(mass @ ndtr((grid - z * scale) / step)) - free

    for (before, size), (had, has) in zip(pairwise(sizes), pairwise(spent), strict=True):
        scale, step, free = math.sqrt(size), math.sqrt(size - before), has - had
        # `mass` is the density of the totals that crossed no boundary yet; the new boundary lets through exactly the
        # error that has been set free since. With nothing set free no total may cross.
        bound = float(brentq(excess, -1.0, 12.0, args=(scale, step, free), xtol=1e-9)) if free > 1e-12 else math.inf
        reached, weights = _grid(scale, min(bound, _REACH))
        # The increment between two analyses is normal with variance size − before, independent of the total so far.
        kernel = np.exp(-0.5 * ((reached[:, None] - grid[None, :]) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        grid, mass = reached, weights * (kernel @ mass)
    return bound


def _grid(scale: float, bound: float) -> tuple[Array, Array]:
    """Return points from far below up to the boundary, in units of the totals, and Simpson's weights."""
    import numpy as np

    points = np.linspace(-_REACH * scale, bound * scale, _POINTS)
    weights = np.full(_POINTS, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return points, weights * (points[1] - points[0]) / 3


def _tail(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))
