"""The laws as curves to fit, and the minimisation of their Huber loss for many sets of parameters at once.

Everything is in logarithms (arXiv 2502.08606v2, appendix on fitting; Hoffmann et al. do the same), so that a sum of
terms that span many powers of ten keeps its digits. With n(i) = log N_i and d(i) = log D_i:

    supervised     log L   = LSE( log E, γ LSE(log A − α n, log B − β d) )
    distillation   log L_S = LSE( log L_T, −c0 log L_T + h + γ LSE(log A − α n, log B − β d) )
                   h       = −c1 f1 log(1 + exp(z)),  z = log(L_T / L̃_S) / f1 + log K − log(c1 f1)

(LSE is the logarithm of the sum of exponentials.) The second is the published law with K = c1 f1 d1^(−1/f1) in the
place of d1. Where the published coefficients are, z is below 0 for all but the worst teachers, so that h is −K
(L_T/L̃_S)^(1/f1) to a few digits: data identify K and f1, but not c1 and d1 separately.

The loss of the paper is Σ Huber(log L̂ − log L), δ = 1e-4: nearly the sum of absolute errors. Each round solves, for
all sets of parameters together, the weighted least squares that majorise it at the present residuals (iteratively
reweighted least squares) with Levenberg's damping, and accepts a step only if it lowers the loss itself. That takes
tens of rounds, where L-BFGS-B takes hundreds of sequential evaluations. `polished` then runs SciPy's L-BFGS-B on the
loss itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fractionate.planning.laws import DistillationLaw, SupervisedLaw

Array = NDArray[np.floating]


@dataclass(frozen=True)
class SupervisedCurve:
    """The supervised law over runs: logarithms of size, tokens and measured loss, each of shape (runs,)."""

    log_params: Array
    log_tokens: Array
    log_loss: Array

    names = ("log_E", "log_A", "log_B", "alpha", "beta", "gamma")
    lower = np.array([-20.0, -20.0, -20.0, 0.0, 0.0, 0.0])
    upper = np.array([5.0, 60.0, 60.0, 4.0, 4.0, 4.0])

    def cast(self, kind: type[np.floating]) -> SupervisedCurve:
        """Return the curve in another precision."""
        return SupervisedCurve(*self.stacked().astype(kind))

    def over(self, runs: NDArray[np.intp]) -> SupervisedCurve:
        """Return the curve over some of the runs."""
        return SupervisedCurve(*self.stacked()[:, runs])

    def stacked(self) -> Array:
        """Return the arrays as rows of one, in the order of the fields."""
        return np.stack([self.log_params, self.log_tokens, self.log_loss])

    def residuals(self, theta: Array) -> tuple[Array, Array]:
        """Return predicted minus measured log loss, (sets, runs), and its derivatives, (sets, parameters, runs)."""
        log_e, log_a, log_b, alpha, beta, gamma = (theta[:, number, None] for number in range(6))
        terms, of_size = _lse(log_a - alpha * self.log_params, log_b - beta * self.log_tokens)
        log_loss, of_terms = _lse(gamma * terms, log_e)
        jacobian = np.empty((len(theta), 6, len(self.log_loss)), theta.dtype)
        jacobian[:, 0] = 1 - of_terms
        _of_terms(jacobian[:, 1:], self, gamma, terms, of_size, of_terms)
        return log_loss - self.log_loss, jacobian

    def law(self, theta: Array) -> SupervisedLaw:
        """Return the law of one set of parameters."""
        log_e, log_a, log_b, *exponents = (float(value) for value in theta)
        return SupervisedLaw(float(np.exp(log_e)), float(np.exp(log_a)), float(np.exp(log_b)), *exponents)


@dataclass(frozen=True)
class DistillationCurve:
    """The distillation law over runs: logarithms, each of shape (runs,).

    Size and tokens of the student, loss of the teacher, loss of the student after supervised training, and its
    measured loss.
    """

    log_params: Array
    log_tokens: Array
    log_teacher: Array
    log_supervised: Array
    log_loss: Array

    names = ("log_A", "log_B", "alpha", "beta", "gamma", "c0", "log_K", "log_f1", "log_c1")
    lower = np.array([-20.0, -20.0, 0.0, 0.0, 0.0, -20.0, -40.0, np.log(0.01), np.log(0.05)])
    upper = np.array([60.0, 60.0, 4.0, 4.0, 4.0, 20.0, 40.0, np.log(5.0), np.log(1e4)])

    def cast(self, kind: type[np.floating]) -> DistillationCurve:
        """Return the curve in another precision."""
        return DistillationCurve(*self.stacked().astype(kind))

    def over(self, runs: NDArray[np.intp]) -> DistillationCurve:
        """Return the curve over some of the runs."""
        return DistillationCurve(*self.stacked()[:, runs])

    def stacked(self) -> Array:
        """Return the arrays as rows of one, in the order of the fields."""
        return np.stack([self.log_params, self.log_tokens, self.log_teacher, self.log_supervised, self.log_loss])

    def residuals(self, theta: Array) -> tuple[Array, Array]:
        """Return predicted minus measured log loss, (sets, runs), and its derivatives, (sets, parameters, runs)."""
        log_a, log_b, alpha, beta, gamma, c0, log_k, log_f1, log_c1 = (theta[:, number, None] for number in range(9))
        terms, of_size = _lse(log_a - alpha * self.log_params, log_b - beta * self.log_tokens)
        scale = np.exp(log_c1 + log_f1)
        ratio = (self.log_teacher - self.log_supervised) * np.exp(-log_f1)
        bent, of_bend = _softplus(ratio + (log_k - log_c1 - log_f1))
        bent *= -scale  # this is h
        of_bend *= -scale  # and this its derivative in z
        log_loss, of_gap = _lse(bent - c0 * self.log_teacher + gamma * terms, self.log_teacher)
        jacobian = np.empty((len(theta), 9, len(self.log_loss)), theta.dtype)
        _of_terms(jacobian, self, gamma, terms, of_size, of_gap)
        jacobian[:, 5] = -of_gap * self.log_teacher
        of_bend *= of_gap
        bent *= of_gap
        jacobian[:, 6] = of_bend
        np.subtract(bent, of_bend, out=jacobian[:, 8])
        np.subtract(jacobian[:, 8], of_bend * ratio, out=jacobian[:, 7])
        return log_loss - self.log_loss, jacobian

    def law(self, theta: Array) -> DistillationLaw:
        """Return the law of one set of parameters, with d1 from K, f1 and c1."""
        log_a, log_b, alpha, beta, gamma, c0, log_k, log_f1, log_c1 = (float(value) for value in theta)
        f1 = np.exp(log_f1)
        log_d1 = f1 * (log_c1 + log_f1 - log_k)
        a, b, c1, d1 = (float(np.exp(value)) for value in (log_a, log_b, log_c1, log_d1))
        return DistillationLaw(a, b, alpha, beta, gamma, c0, c1, float(f1), d1)


Curve = SupervisedCurve | DistillationCurve


def _of_terms(jacobian: Array, curve: Curve, gamma: Array, terms: Array, of_size: Array, outer: Array) -> None:
    """Fill in the derivatives by log A, log B, α, β and γ."""
    np.multiply(outer, gamma, out=jacobian[:, 1])
    np.multiply(jacobian[:, 1], of_size, out=jacobian[:, 0])
    jacobian[:, 1] -= jacobian[:, 0]
    np.multiply(jacobian[:, 0], -curve.log_params, out=jacobian[:, 2])
    np.multiply(jacobian[:, 1], -curve.log_tokens, out=jacobian[:, 3])
    np.multiply(outer, terms, out=jacobian[:, 4])


def _lse(first: Array, second: Array) -> tuple[Array, Array]:
    """Return log(e^first + e^second), and its derivative by `first`."""
    gap = first - second
    total, of_first = _softplus(gap)
    total += second
    return total, of_first


def _softplus(values: Array) -> tuple[Array, Array]:
    """Return log(1 + e^x) and its derivative e^x / (1 + e^x), without overflow."""
    small = np.exp(-np.abs(values))
    raised = small + 1
    total = np.log(raised)  # to an absolute error of a rounding unit, which is what a log loss needs
    total += np.maximum(values, 0)
    return total, np.where(values >= 0, 1 / raised, small / raised)


DELTA = 1e-4
"""Residuals of a log loss below this count by their square, others by their size."""
_STOP = 1e-7
"""A set of parameters is finished after several rounds that lower its loss by less than this share."""
_PATIENCE = 12
_SCALE = DELTA * 1e-3
"""The loss at residuals of about a thousandth."""


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
    with np.errstate(over="ignore", invalid="ignore"):  # a step out of range is clipped or rejected
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
        # A rejected step does not mean convergence, because the next step is shorter, up to a limit of the damping.
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
        # Scaled to the order of one: a mean of squares of 1e-4 would meet the optimiser's tolerances at any point.
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
