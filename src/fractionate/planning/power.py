"""How many questions a comparison needs before it is run: the exact power of the paired non-inferiority test.

The test is the one that reports use: non-inferior where Tango's score interval (Statist. Med. 17 (1998) 891) of the
paired difference lies above −margin. Its power is summed over every outcome that n questions can have, not
approximated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractionate.errors import UsageError
from fractionate.planning.checks import share

Array = NDArray[np.float64]

MOST_QUESTIONS = 10_000_000
_TAIL = 1e-10
"""Probability of numbers of discordant questions that are left out of the sum."""


@dataclass(frozen=True)
class Design:
    """The expected outcomes of two systems on the same questions, as shares between 0 and 1."""

    discordance: float
    """The share of questions that only one of the two answers right."""
    margin: float
    """The non-inferiority margin."""
    difference: float = 0.0
    """The candidate's true advantage; 0 if both are equally good."""
    confidence: float = 0.95
    """Of the two-sided interval: 0.95 tests at 2.5 %."""

    def checked(self) -> Design:
        """Return the design unchanged. Raises UsageError that names the value out of range."""
        share("discordance", self.discordance)
        if not 0 < self.margin < 1:
            raise UsageError(f"margin must be a share between 0 and 1, such as 0.02 for 2 points, not {self.margin:g}")
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence must lie between 0 and 1, not {self.confidence:g}")
        if abs(self.difference) > self.discordance:
            raise UsageError(
                f"a difference of {100 * self.difference:g} percentage points needs a discordance of "
                f"{abs(self.difference):g} or more: two systems differ only on discordant questions"
            )
        if self.difference <= -self.margin:
            raise UsageError(
                f"a candidate that is worse by {-100 * self.difference:g} percentage points is inferior at a margin of "
                f"{100 * self.margin:g}"
            )
        return self


def discordance(accuracy: float, correlation: float) -> float:
    """Return the share of discordant questions of two systems with one accuracy and correlated outcomes.

    2 p (1 − p) (1 − φ): `accuracy` p in [0, 1], `correlation` φ of right/wrong over questions, in [0, 1].
    """
    p, phi = share("accuracy", accuracy), share("correlation", correlation)
    return 2 * p * (1 - p) * (1 - phi)


def design_effect(cluster_size: float, cluster_correlation: float) -> float:
    """Return the design effect of questions that share a passage: 1 + (m − 1) ρ (Kish, Survey Sampling, 1965)."""
    if not cluster_size >= 1:
        raise UsageError(f"cluster_size is a number of questions of 1 or more, not {cluster_size:g}")
    return 1 + (cluster_size - 1) * share("cluster_correlation", cluster_correlation)


def power_at(design: Design, questions: int) -> float:
    """Return the probability that so many independent questions show the candidate to be non-inferior."""
    from scipy.stats import binom

    design.checked()
    n = questions
    if design.discordance == 0:
        discordant, weights = np.array([0]), np.array([1.0])
    else:
        low = int(binom.ppf(_TAIL, n, design.discordance))
        high = int(binom.isf(_TAIL, n, design.discordance))
        discordant = np.arange(low, high + 1)
        weights = binom.pmf(discordant, n, design.discordance)
    least = _least_wins(discordant, n, design)
    chance = (1 + design.difference / design.discordance) / 2 if design.discordance else 0.5
    return float(np.sum(weights * binom.sf(least - 1, discordant, chance)))


def questions_needed(design: Design, target: float = 0.80) -> int:
    """Return the number of independent questions from which on the power stays at or above the target.

    Power does not rise smoothly with n, because outcomes are whole numbers: a few more questions can lower it a little.
    The answer lies beyond the last dip. Raises UsageError where more than ten million would be needed.
    """
    if not 0 < target < 1:
        raise UsageError(f"power must lie between 0 and 1, not {target:g}")
    design.checked()
    high = 8
    while power_at(design, high) < target:
        high *= 2
        if high > MOST_QUESTIONS:
            raise UsageError(
                f"more than {MOST_QUESTIONS:,} questions would be needed: take a wider margin than {design.margin:g}"
            )
    low = high // 2
    while high - low > max(1, low // 400):
        middle = (low + high) // 2
        low, high = (middle, high) if power_at(design, middle) < target else (low, middle)
    step = max(1, high // 400)
    coarse = [n for n in range(high, high + 40 * step, step) if power_at(design, n) < target]
    near = coarse[-1] if coarse else high
    ahead = range(max(1, near - 2 * step), near + max(40, 2 * step))
    short = [n for n in ahead if power_at(design, n) < target]
    return short[-1] + 1 if short else ahead[0]


def sampling_noise(a: Array, b: Array) -> float:
    """Return the share, in [0, 1], of the variance of single-sample differences that is sampling noise.

    `a` and `b` (questions, samples ≥ 2): the outcomes of two systems, sampled several times at the same questions. The
    rest is what the systems differ by from question to question, which only more questions average out.
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2 or min(a.shape[1], b.shape[1]) < 2:
        raise UsageError("sampling noise takes two samples or more of each of two questions or more")
    noise = float((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)).mean())
    of_means = float((a.mean(axis=1) - b.mean(axis=1)).var(ddof=1))
    shared = of_means - float((a.var(axis=1, ddof=1) / a.shape[1] + b.var(axis=1, ddof=1) / b.shape[1]).mean())
    return noise / (noise + max(shared, 0.0)) if noise > 0 else 0.0


def questions_at(questions: int, noise: float, samples: int) -> int:
    """Return how many questions show the same with several samples each, given how many it takes with one.

    Samples average out the share `noise` of the variance, in [0, 1]; the number of questions goes with the variance.
    """
    return math.ceil(questions * (1 - share("noise", noise) * (1 - 1 / samples)) - 1e-9)


def _least_wins(discordant: NDArray[np.int64], n: int, design: Design) -> NDArray[np.int64]:
    """Return, by number of discordant questions, how many the candidate must win; their number plus one means never."""
    from scipy.special import ndtri

    z = float(ndtri(0.5 + design.confidence / 2))
    low, high = np.zeros_like(discordant), discordant + 1
    while (low < high).any():
        middle = (low + high) // 2
        shown = _score(middle, discordant - middle, n, -design.margin) >= z
        searching = low < high
        high = np.where(searching & shown, middle, high)
        low = np.where(searching & ~shown, middle + 1, low)
    return low


def _score(only_a: NDArray[np.int64], only_b: NDArray[np.int64], n: int, delta: float) -> Array:
    """Return Tango's statistic of a true difference `delta` < 0, the nuisance parameter at its constrained maximum."""
    linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
    constant = -only_b * delta * (1 - delta)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0))
    # The share of questions that only b gets right; it is at least −delta, or a's share would be below 0.
    share_b = np.maximum((root - linear) / (4 * n), -delta)
    variance = n * (2 * share_b + delta * (1 - delta))
    distance = only_a - only_b - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.where(variance > 0, distance / np.sqrt(np.maximum(variance, 1e-300)), np.sign(distance) * np.inf)
        )
