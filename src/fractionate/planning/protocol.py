"""The published way to fit: from a grid of starts, the best kept, then resamples of the runs; and runs held out.

Every start of the grid is begun. By default those that fall behind in the first rounds are dropped, which `whole_grid`
turns off; benchmarks/law_fit.py compares the two, and both with SciPy's L-BFGS-B.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractionate.planning.blocks import Journal, StoppedError, run_blocks
from fractionate.planning.grids import starts
from fractionate.planning.minimise import Minimum, minimise, polished
from fractionate.planning.objective import Curve, DistillationCurve

Array = NDArray[np.float64]
Say = Callable[[str], None]

RESAMPLES = 4096
FOLDS = 5
LARGEST_SHARE = 0.2
"""The share of runs, those of most compute, that the law is also asked to foretell from the others."""
_CHUNK = 48_000
"""Runs times sets of parameters at a time: what a core's cache takes well."""
_STARTS_A_BLOCK, _ENDED_A_BLOCK, _RESAMPLES_A_BLOCK = 2400, 120, 256
_SCREENED_ROUNDS, _SCREENED_RUNS, _KEPT = 6, 128, 12
_HELD_OUT_STARTS = 160
_EVIDENCE_FLOOR = 1e-12


@dataclass(frozen=True)
class Options:
    """How a law is fitted."""

    resamples: int = RESAMPLES
    whole_grid: bool = False
    """Whether every start of the grid is followed to its end."""
    seed: int = 0
    workers: int | None = None
    """Threads; as many as there are cores if None."""
    say: Say = lambda _: None
    """Is told how far the work is."""


@dataclass(frozen=True)
class Fitted:
    """The parameters of the best fit (parameters,), which of them were free, and those of each resample."""

    theta: Array
    free: NDArray[np.bool_]
    loss: float
    resampled: Array


def fit_curve(curve: Curve, options: Options, journal: Journal) -> Fitted:
    """Fit a curve: the grid, the optimum, then the resamples, which begin at the optimum."""
    free = np.ones(len(curve.names), bool)
    if isinstance(curve, DistillationCurve):
        free[-1] = False  # log c1
    found = _from_grid(curve, free, options, journal)
    best = _best(curve, found, free)
    if isinstance(curve, DistillationCurve):
        freed = _best(curve, best, ~np.zeros_like(free))
        if _tells(float(best.loss[0]), float(freed.loss[0]), len(curve.log_loss)):
            best, free = freed, ~np.zeros_like(free)
    theta = best.theta[0]
    return Fitted(theta, free, float(best.loss[0]), _resampled(curve, theta, free, options, journal))


def held_out_errors(curve: Curve, fitted: Fitted, size: Array, options: Options) -> tuple[Array, Array]:
    """Return relative errors (predicted over measured, minus 1) of runs that the fit did not see.

    First of every run, when a fifth is left out at a time; then of the runs of largest `size` (runs,), foretold from
    the others. Each fit begins at starts drawn from the grid, and at the fit to all runs.
    """
    generator = np.random.default_rng([options.seed, 0x666F6C64])
    runs = len(curve.log_loss)
    fold = generator.permutation(runs) % min(FOLDS, runs)
    largest = np.argsort(size, kind="stable")[-max(1, round(LARGEST_SHARE * runs)) :]
    errors = np.empty(runs)
    for number in range(fold.max() + 1):
        out = np.flatnonzero(fold == number)
        errors[out] = _errors_without(curve, fitted, out, generator)
        options.say(f"held out: {number + 1} of {fold.max() + 1} parts")
    return errors, _errors_without(curve, fitted, largest, generator)


def _from_grid(curve: Curve, free: NDArray[np.bool_], options: Options, journal: Journal) -> Minimum:
    grid = starts(curve)
    # Neighbours of the grid lie in different blocks, so that each block's best are not all alike.
    grid = grid[np.random.default_rng([options.seed, 0x67726964]).permutation(len(grid))]
    blocks = -(-len(grid) // _STARTS_A_BLOCK)

    def begin(number: int, stop: threading.Event) -> Minimum:
        mine = grid[number * _STARTS_A_BLOCK : (number + 1) * _STARTS_A_BLOCK].astype(np.float32)
        if options.whole_grid:
            return _in_chunks(curve.cast(np.float32), mine, None, free, 80, stop).best(_KEPT)
        few = _thinned(curve, options.seed).cast(np.float32)
        return _in_chunks(few, mine, None, free, _SCREENED_ROUNDS, stop).best(_KEPT)

    begun = Minimum.joined(run_blocks("grid of starts", blocks, begin, journal, options.say, options.workers))

    def end(number: int, stop: threading.Event) -> Minimum:
        mine = begun.theta[number * _ENDED_A_BLOCK : (number + 1) * _ENDED_A_BLOCK]
        return _in_chunks(curve, mine, None, free, 200, stop).best(2)

    blocks = -(-len(begun.theta) // _ENDED_A_BLOCK)
    return Minimum.joined(run_blocks("best starts", blocks, end, journal, options.say, options.workers))


def _best(curve: Curve, found: Minimum, free: NDArray[np.bool_]) -> Minimum:
    """Return the best of the sets, taken on by L-BFGS-B and again by ours: whichever goes lowest."""
    near = minimise(curve, found.best(8).theta, free=free, rounds=400).best()
    last = polished(curve, near.theta[0], free)
    return Minimum.joined([near, last, minimise(curve, last.theta, free=free, rounds=400)]).best()


def _tells(fixed: float, freed: float, runs: int) -> bool:
    """Whether the runs tell c1: by the Bayesian information criterion of errors with a Laplace distribution."""
    fixed, freed = max(fixed, _EVIDENCE_FLOOR), max(freed, _EVIDENCE_FLOOR)
    return bool(2 * runs * np.log(fixed / freed) > np.log(runs))


def _resampled(curve: Curve, theta: Array, free: NDArray[np.bool_], options: Options, journal: Journal) -> Array:
    if options.resamples == 0:
        return np.empty((0, len(theta)))
    runs = len(curve.log_loss)

    def work(number: int, stop: threading.Event) -> Minimum:
        count = min(_RESAMPLES_A_BLOCK, options.resamples - number * _RESAMPLES_A_BLOCK)
        generator = np.random.default_rng([options.seed, 0x626F6F74, number])
        weights = generator.multinomial(runs, np.full(runs, 1 / runs), size=count).astype(np.float64)
        return _in_chunks(curve, np.repeat(theta[None], count, axis=0), weights, free, 100, stop)

    blocks = -(-options.resamples // _RESAMPLES_A_BLOCK)
    name = "resamples with c1 free" if free[-1] and isinstance(curve, DistillationCurve) else "resamples"
    return Minimum.joined(run_blocks(name, blocks, work, journal, options.say, options.workers)).theta


def _errors_without(curve: Curve, fitted: Fitted, out: NDArray[np.intp], generator: np.random.Generator) -> Array:
    """Return the relative errors at the runs `out` of the best fit to the others."""
    weights = np.ones((1, len(curve.log_loss)))
    weights[0, out] = 0
    grid = starts(curve)
    begun = np.concatenate([grid[generator.integers(0, len(grid), _HELD_OUT_STARTS)], fitted.theta[None]])
    if fitted.free.all() and isinstance(curve, DistillationCurve):
        begun[:, -1] = fitted.theta[-1]
    first = _in_chunks(curve, begun, weights, fitted.free, 40, threading.Event()).best(6)
    best = minimise(curve, first.theta, weights, fitted.free, rounds=300).best()
    residuals, _ = curve.residuals(best.theta)
    return np.asarray(np.expm1(residuals[0, out]))


def _thinned(curve: Curve, seed: int) -> Curve:
    """Return the curve over some of its runs, enough to tell a hopeless start."""
    runs = len(curve.log_loss)
    if runs <= _SCREENED_RUNS:
        return curve
    some = np.random.default_rng([seed, 0x7468696E]).choice(runs, _SCREENED_RUNS, replace=False)
    return curve.over(some)


def _in_chunks(
    curve: Curve,
    begun: NDArray[np.floating],
    weights: Array | None,
    free: NDArray[np.bool_],
    rounds: int,
    stop: threading.Event,
) -> Minimum:
    """Minimise some sets at a time. Raises StoppedError once `stop` is set."""
    parts, size = [], max(16, _CHUNK // len(curve.log_loss))
    for first in range(0, len(begun), size):
        if stop.is_set():
            raise StoppedError
        some = slice(first, first + size)
        own = weights if weights is None or len(weights) == 1 else weights[some]
        parts.append(minimise(curve, begun[some], own, free, rounds))
    return Minimum.joined(parts)
