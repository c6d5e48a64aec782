"""Several claims at once: Holm's p-values, and one confidence for the intervals of several candidates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fractionate.analysis.statistics.clusters import Groups, Values, group_numbers

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
