"""Minimise the Huber loss of a curve from many starts, or for many resamples, at once.

The loss of the paper is Σ Huber(log L̂ − log L), δ = 1e-4: nearly the sum of absolute errors. Each round solves, for
all sets of parameters together, the weighted least squares that majorise it at the present residuals (iteratively
reweighted least squares) with Levenberg's damping, and keeps a step only if it lowers the loss itself. That takes
tens of rounds where L-BFGS-B takes hundreds of evaluations one after the other. `polished` then runs SciPy's L-BFGS-B
on the loss itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractionate.planning.objective import Array, Curve

DELTA = 1e-4
"""Residuals of a log loss below this count by their square, others by their size."""
_STOP = 1e-7
"""A set of parameters is done when a round lowers its loss by less than this share, several times running."""
_PATIENCE = 12
_SCALE = DELTA * 1e-3
"""About the loss at residuals of a thousandth."""


@dataclass
class Minimum:
    """Parameters (sets, parameters) and the loss at each (sets,)."""

    theta: NDArray[np.float64]
    loss: NDArray[np.float64]

    def best(self, count: int = 1) -> Minimum:
        """Return the `count` sets with the lowest losses, lowest first."""
        order = np.argsort(self.loss, kind="stable")[:count]
        return Minimum(self.theta[order], self.loss[order])

    @staticmethod
    def joined(parts: Sequence[Minimum]) -> Minimum:
        """Return the sets of all parts, in order."""
        return Minimum(np.concatenate([part.theta for part in parts]), np.concatenate([part.loss for part in parts]))


def huber(residuals: Array, weights: Array) -> Array:
    """Return Σ weight · Huber(residual) over the last axis, divided by the weights' sum."""
    size = np.abs(residuals)
    inner = np.minimum(size, DELTA)
    return np.asarray((weights * (inner * (size - inner / 2))).sum(axis=-1) / weights.sum(axis=-1))


def minimise(
    curve: Curve,
    starts: Array,
    weights: Array | None = None,
    free: NDArray[np.bool_] | None = None,
    rounds: int = 100,
) -> Minimum:
    """Minimise from each start (sets, parameters).

    `weights` (sets, runs) or (1, runs) count the runs, as in a resample. Parameters that are not `free` stay as they
    start. Starts are put within the curve's bounds. Computes in the precision of the starts.
    """
    kind = starts.dtype
    theta = np.clip(starts, curve.lower, curve.upper).astype(kind)
    weights = np.ones((1, len(curve.log_loss)), kind) if weights is None else weights.astype(kind)
    chosen = np.flatnonzero(np.ones(theta.shape[1], bool) if free is None else free)
    with np.errstate(over="ignore", invalid="ignore"):  # a step out of range is clipped, or refused
        return _minimise(curve, theta, weights, chosen, rounds)


def _minimise(curve: Curve, theta: Array, weights: Array, chosen: NDArray[np.intp], rounds: int) -> Minimum:
    damping, idle = np.full(len(theta), 1e-2), np.zeros(len(theta), int)
    active = np.arange(len(theta))
    residuals, jacobian = curve.residuals(theta)
    losses = huber(residuals, weights).astype(np.float64)
    for _ in range(rounds):
        own = weights if len(weights) == 1 else weights[active]
        tried = theta[active]
        tried[:, chosen] -= _step(residuals, jacobian[:, chosen], own, damping[active])
        np.clip(tried, curve.lower, curve.upper, out=tried)
        new_residuals, new_jacobian = curve.residuals(tried)
        new = huber(new_residuals, own)
        better = new < losses[active]
        gained = losses[active] - new > _STOP * losses[active]
        theta[active[better]], losses[active[better]] = tried[better], new[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 6.0), 1e-10, 1e10)
        # A refused step is no standstill: the next one is shorter, up to a point.
        idle[active] = np.where(better & gained, 0, idle[active] + np.where(better | (damping[active] > 1e6), 4, 1))
        residuals[better], jacobian[better] = new_residuals[better], new_jacobian[better]
        on = idle[active] < _PATIENCE
        if not on.all():
            active, residuals, jacobian = active[on], residuals[on], jacobian[on]
        if not active.size:
            break
    return Minimum(theta.astype(np.float64), losses)


def polished(curve: Curve, theta: NDArray[np.float64], free: NDArray[np.bool_] | None = None) -> Minimum:
    """Minimise the loss itself with SciPy's L-BFGS-B from one set of parameters (parameters,)."""
    from scipy.optimize import minimize

    chosen = np.flatnonzero(np.ones(len(theta), bool) if free is None else free)
    weights = np.ones((1, len(curve.log_loss)))

    def loss(part: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        whole = theta.copy()
        whole[chosen] = part
        residuals, jacobian = curve.residuals(whole[None])
        slopes = np.clip(residuals, -DELTA, DELTA)
        # Of the order of one: a mean of squares of 1e-4 would meet the optimiser's tolerances anywhere.
        return float(huber(residuals, weights)[0]) / _SCALE, (jacobian[0, chosen] @ slopes[0]) / slopes.size / _SCALE

    bounds = list(zip(curve.lower[chosen], curve.upper[chosen], strict=True))
    found = minimize(
        loss,
        theta[chosen],
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30},
    )
    whole = theta.copy()
    whole[chosen] = found.x
    return Minimum(whole[None], np.array([found.fun * _SCALE]))


def _step(residuals: Array, jacobian: Array, weights: Array, damping: NDArray[np.float64]) -> Array:
    """Return what to subtract: the solution of damped, reweighted normal equations, by set."""
    emphasis = weights / np.maximum(np.abs(residuals), DELTA).astype(residuals.dtype)
    scaled = jacobian * emphasis[:, None, :]
    normal = np.matmul(scaled, jacobian.transpose(0, 2, 1)).astype(np.float64)
    slope = np.matmul(scaled, residuals[:, :, None]).astype(np.float64)
    diagonal = np.einsum("bii->bi", normal)
    floor = 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    diagonal += damping[:, None] * np.maximum(diagonal, floor) + floor
    return np.asarray(np.linalg.solve(normal, slope)[:, :, 0])
