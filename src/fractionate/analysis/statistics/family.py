"""Several claims at once: Holm's p-values, and one confidence for intervals of several candidates."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fractionate.analysis.statistics.clusters import group_numbers

_DRAWS = 2**15


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given: the family-wise error stays under any threshold on them.

    Holm, Scand. J. Statist. 6 (1979) 65.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def bonferroni_confidence(confidence: float, candidates: int) -> float:
    """Return the confidence of each of several intervals that all hold together with `confidence`."""
    return 1 - (1 - confidence) / max(candidates, 1)


def simultaneous_confidence(
    confidence: float,
    differences: Sequence[Sequence[float]],
    groups: Sequence[Hashable] | None = None,
) -> float:
    """Return the confidence of each candidate's interval so that all hold together with `confidence`.

    `differences[c][i]` is candidate c's outcome minus the reference's at question i. The candidates share the reference
    and their questions, so their errors go together: the critical value is that of the largest of correlated normal
    variables (Hothorn, Bretz & Westfall, Biom. J. 50 (2008) 346), the correlation measured, by `groups`. Never below
    what one candidate needs or above Bonferroni's.
    """
    import numpy as np
    from scipy.special import ndtr
    from scipy.stats import qmc

    bonferroni = bonferroni_confidence(confidence, len(differences))
    if len(differences) < 2:
        return bonferroni
    matrix = np.asarray(differences, dtype=np.float64)
    numbers = group_numbers(groups, matrix.shape[1])
    sums = np.stack([np.bincount(numbers, weights=row - row.mean()) for row in matrix])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    scaled = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
    correlation = scaled @ scaled.T
    np.fill_diagonal(correlation, 1.0)  # a candidate that never differs counts as independent of the others
    draws = qmc.MultivariateNormalQMC(np.zeros(len(matrix)), correlation, rng=np.random.default_rng(0)).random(_DRAWS)
    bound = float(np.quantile(draws.max(axis=1), 0.5 + confidence / 2))
    return float(min(max(2 * ndtr(bound) - 1, confidence), bonferroni))
