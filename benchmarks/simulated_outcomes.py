"""Simulated outcomes with a known truth, the replaced methods of version 0.1.0, and counting over many trials.

For `statistics_operating.py`; any simulation of a rule may draw from here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fractionate.statistics import Interval, unseen_share, wilson

Array = NDArray[np.float64]
Random = np.random.Generator


class Line(NamedTuple):
    """One setting: the counted event, its nominal rate, and for each method its count in `trials`."""

    setting: str
    what: str
    nominal: str
    hits: dict[str, int]
    trials: int

    def rate(self, method: str) -> str:
        """Return a method's rate with its 95 % interval, "" where it was not tried."""
        if method not in self.hits:
            return ""
        found = wilson(self.hits[method], self.trials)
        return f"{self.hits[method] / self.trials:.3f} ({found.low:.3f}–{found.high:.3f})"


def repeat(setting: str, what: str, nominal: str, trials: int, once: Callable[[], dict[str, bool]]) -> Line:
    """Count events over `trials` runs of `once`, which returns for each method whether the event occurred."""
    hits: Counter[str] = Counter()
    for _ in range(trials):
        hits.update({method: int(bool(happened)) for method, happened in once().items()})
    return Line(setting, what, nominal, dict(hits), trials)


def misses(interval: Interval, truth: float) -> bool:
    return not interval.low - 1e-9 <= truth <= interval.high + 1e-9


# --- simulated outcomes -----------------------------------------------------------------------------------------------


def f1_scores(kind: str, n: int, random: Random) -> tuple[Array, float]:
    """Return F1 scores of a stated shape and their true mean."""
    kinds = random.random(n)
    if kind == "half right":
        return np.where(kinds < 0.5, 1.0, np.where(kinds < 0.7, random.random(n), 0.0)), 0.6
    if kind == "nearly all right":
        return np.where(kinds < 0.1, random.uniform(0, 0.8, n), 1.0), 0.94
    if kind == "nearly all wrong":
        return np.where(kinds < 0.08, random.uniform(0.5, 1, n), 0.0), 0.06
    return random.beta(0.6, 0.4, n), 0.6  # "U-shaped"


def f1_differences(kind: str, n: int, truth: float, random: Random) -> Array:
    """Return per-question F1 differences of a stated shape with the true mean `truth` (−0.1 to 0)."""
    kinds = random.random(n)
    if kind == "rare great losses":  # 6 % lose .75, the gains that make up for it are small
        gains = (truth + 0.045) / 0.3
        losses = -random.uniform(0.5, 1, n)
        return np.where(kinds < 0.06, losses, np.where(kinds < 0.06 + gains, random.uniform(0, 0.6, n), 0.0))
    if kind == "rare great gains":
        losses = (0.045 - truth) / 0.15
        gain = random.uniform(0.5, 1, n)
        return np.where(kinds < 0.06, gain, np.where(kinds < 0.06 + losses, -random.uniform(0, 0.3, n), 0.0))
    if kind == "losses only":
        return np.where(kinds < -truth / 0.75, -random.uniform(0.5, 1, n), 0.0)
    return np.where(kinds < 0.3, np.clip(random.normal(truth / 0.3, 0.4, n), -1, 1), 0.0)  # "balanced"


def clustered(shares: Sequence[float], values: Sequence[float], sizes: Array, icc: float, random: Random) -> Array:
    """Return right/wrong outcomes or differences whose shares vary by passage (Dirichlet), with this correlation."""
    shares_ = np.asarray(shares, dtype=np.float64)
    of_passage = random.dirichlet(shares_ * (1 / icc - 1), len(sizes)) if icc else np.tile(shares_, (len(sizes), 1))
    edges = np.cumsum(of_passage, axis=1)[np.repeat(np.arange(len(sizes)), sizes)]
    return np.asarray(values, dtype=np.float64)[(random.random(len(edges))[:, None] > edges[:, :-1]).sum(axis=1)]


def clustered_uniforms(sizes: Array, icc: float, random: Random) -> Array:
    """Return numbers that are uniform in [0, 1] and correlated within passages (a normal copula)."""
    passage = np.repeat(random.normal(size=len(sizes)), sizes)
    return ndtr(math.sqrt(icc) * passage + math.sqrt(1 - icc) * random.normal(size=len(passage)))


# --- replaced methods -----------------------------------------------------------------------------------


def old_bca(values: Array, least: float, most: float, random: Random, resamples: int = 1000) -> Interval:
    """The interval of version 0.1.0: BCa with the acceleration's sign reversed, and the unseen share."""
    mean, unseen = values.mean(), unseen_share(len(values))
    low, high = mean - unseen * (mean - least), mean + unseen * (most - mean)
    if values.min() != values.max():
        means = np.sort(_resampled_means(values, random, resamples))
        below = (np.sum(means < mean - 1e-12) + 0.5 * np.sum(np.abs(means - mean) <= 1e-12)) / resamples
        bias = ndtri(np.clip(below, 1 / resamples, 1 - 1 / resamples))
        acceleration = np.sum((mean - values) ** 3) / (6 * np.sum((mean - values) ** 2) ** 1.5)
        tails = [bias + tail for tail in (-1.959964, 1.959964)]
        found = np.quantile(means, [ndtr(bias + tail / (1 - acceleration * tail)) for tail in tails])
        low, high = min(low, found[0]), max(high, found[1])
    return Interval(max(low, least), min(high, most))


def old_bootstrap_p(differences: Array, random: Random, resamples: int = 1000) -> float:
    means, mean = _resampled_means(differences, random, resamples), differences.mean()
    return float((np.sum(np.abs(means - mean) >= abs(mean) - 1e-12) + 1) / (resamples + 1))


def _resampled_means(values: Array, random: Random, resamples: int) -> Array:
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 4 < len(values):
        return random.multinomial(len(values), counts / len(values), resamples) @ distinct / len(values)
    return values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
