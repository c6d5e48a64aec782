"""Synthetic runs with a known law."""

import numpy as np

from fractionate.planning import SETS, DistillationRuns, SupervisedRuns

PAPER = SETS["paper-corrected"]
SIZES = np.array([1.434e8, 1.983e8, 5.46e8, 9.755e8, 1.821e9, 2.718e9, 4.823e9, 7.747e9])
LENGTHS = np.array([4e9, 8e9, 1.6e10, 3.2e10, 6.4e10, 1.28e11, 2.56e11, 5.12e11])
TEACHERS = np.array([1.8953, 1.9735, 2.0837, 2.1784, 2.2665, 2.3705, 2.5038, 2.7545])


def supervised_runs(count: int, noise: float = 0.0, seed: int = 0) -> SupervisedRuns:
    """Return runs of the paper's law, the logarithm of each loss off by a normal of that standard deviation."""
    generator = np.random.default_rng(seed)
    n, d = generator.choice(SIZES, count), generator.choice(LENGTHS, count)
    loss = PAPER.supervised.loss(n, d) * np.exp(noise * generator.standard_normal(count))
    return SupervisedRuns(n, d, loss)


def distillation_runs(count: int, noise: float = 0.0, seed: int = 0, law=PAPER.distillation) -> DistillationRuns:
    """Return the same of the distillation law."""
    generator = np.random.default_rng(seed)
    n, d, t = (generator.choice(levels, count) for levels in (SIZES, LENGTHS, TEACHERS))
    loss = law.loss(n, d, t, PAPER.supervised.loss(n, d)) * np.exp(noise * generator.standard_normal(count))
    return DistillationRuns(n, d, t, loss)
