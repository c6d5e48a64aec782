"""The laws as curves to fit: log losses and their derivatives for many sets of parameters at once.

Everything is in logarithms (arXiv 2502.08606v2, appendix on fitting; Hoffmann et al. do the same), so that a sum of
terms that span many powers of ten keeps its digits. With n(i) = log N_i and d(i) = log D_i:

    supervised     log L   = LSE( log E, γ LSE(log A − α n, log B − β d) )
    distillation   log L_S = LSE( log L_T, −c0 log L_T + h + γ LSE(log A − α n, log B − β d) )
                   h       = −c1 f1 log(1 + exp(z)),  z = log(L_T / L̃_S) / f1 + log K − log(c1 f1)

(LSE is the logarithm of the sum of exponentials.) The second is the published law with K = c1 f1 d1^(−1/f1) in the
place of d1. Where the published coefficients are, z is below 0 for all but the worst teachers, so that h is −K
(L_T/L̃_S)^(1/f1) to a few digits: data tell K and f1, not c1 and d1 apart.
"""

from __future__ import annotations

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
        """Return the same in another precision."""
        return SupervisedCurve(*self.stacked().astype(kind))

    def over(self, runs: NDArray[np.intp]) -> SupervisedCurve:
        """Return the same over some of the runs."""
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

    Of the student's size and tokens, the teacher's loss, the loss that supervised training would bring the student to,
    and its measured loss.
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
        """Return the same in another precision."""
        return DistillationCurve(*self.stacked().astype(kind))

    def over(self, runs: NDArray[np.intp]) -> DistillationCurve:
        """Return the same over some of the runs."""
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
