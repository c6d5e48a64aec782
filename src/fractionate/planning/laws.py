"""The two laws: how low a loss supervised training reaches, and how low distillation does.

Source: "Distillation Scaling Laws", arXiv 2502.08606v2 (ICML 2025). Losses are in nats per token, sizes in
non-embedding parameters, lengths in tokens. The formulas check nothing and know no ranges: the checked functions are in
`predict.py`. Coefficients may be arrays too, so that one call covers many draws of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fractionate.planning.checks import Values

Coefficient = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SupervisedLaw:
    """L(N, D) = E + (A N^−α + B D^−β)^γ.

    Hoffmann's law (arXiv 2203.15556) is the case γ = 1. E is the loss that no size and no amount of data goes below.
    """

    e: Coefficient
    a: Coefficient
    b: Coefficient
    alpha: Coefficient
    beta: Coefficient
    gamma: Coefficient = 1.0

    def loss(self, params: ArrayLike, tokens: ArrayLike) -> Values:
        """Return the loss of a model of that size after that many tokens."""
        return self.e + self._above(params, tokens) ** self.gamma

    def tokens_for(self, params: ArrayLike, loss: ArrayLike) -> Values:
        """Return the tokens that a model of that size needs for a loss; infinite if it never reaches the loss."""
        n, target = np.asarray(params, np.float64), np.asarray(loss, np.float64)
        above = np.maximum(target - self.e, 0.0) ** (1 / np.asarray(self.gamma))
        left = above - self.a * n**-self.alpha
        with np.errstate(divide="ignore"):
            needed = np.where(left > 0, np.maximum(left, 0) / self.b, 0.0) ** (-1 / np.asarray(self.beta))
        return np.float64(needed) if np.ndim(needed) == 0 else needed

    def _above(self, params: ArrayLike, tokens: ArrayLike) -> Values:
        n, d = np.asarray(params, np.float64), np.asarray(tokens, np.float64)
        return self.a * n**-self.alpha + self.b * d**-self.beta


@dataclass(frozen=True, slots=True)
class DistillationLaw:
    """The loss of a student of size N_S after D_S tokens of a teacher's logits, the teacher's own loss being L_T.

    L_S = L_T + L_T^(−c0) [1 + (L_T / (L̃_S d1))^(1/f1)]^(−c1 f1) (A N_S^−α + B D_S^−β)^γ, where L̃_S is the loss of
    the same student after supervised training. Data identify f1 and K = c1 f1 d1^(−1/f1), but not c1 and d1 separately.
    """

    a: Coefficient
    b: Coefficient
    alpha: Coefficient
    beta: Coefficient
    gamma: Coefficient
    c0: Coefficient
    c1: Coefficient
    f1: Coefficient
    d1: Coefficient

    @property
    def k(self) -> Values:
        """K = c1 f1 d1^(−1/f1): how fast a student falls behind a teacher that is worse than itself."""
        c1, f1, d1 = (np.asarray(value, np.float64) for value in (self.c1, self.f1, self.d1))
        return np.exp(np.log(c1) + np.log(f1) - np.log(d1) / f1)

    def loss(self, params: ArrayLike, tokens: ArrayLike, teacher_loss: ArrayLike, supervised_loss: ArrayLike) -> Values:
        """Return the student's loss; it always lies above the teacher's."""
        log_n, log_d = (np.log(np.asarray(value, np.float64)) for value in (params, tokens))
        teacher = np.asarray(teacher_loss, np.float64)
        log_teacher = np.log(teacher)
        behind = (log_teacher - np.log(supervised_loss) - np.log(self.d1)) / self.f1
        size_and_data = np.logaddexp(
            np.log(self.a) - self.alpha * log_n, np.log(self.b) - self.beta * log_d
        )  # in logarithms, because the terms differ by more powers of ten than a float has digits
        log_gap = -self.c0 * log_teacher - self.c1 * self.f1 * np.logaddexp(0.0, behind) + self.gamma * size_and_data
        loss = teacher + np.exp(log_gap)
        return np.float64(loss) if np.ndim(loss) == 0 else loss


def as_dict(law: SupervisedLaw | DistillationLaw) -> dict[str, float]:
    """Return the coefficients by the names that tables and files use: E, A, B, alpha …; K too for distillation."""
    values = {_NAMES.get(field.name, field.name): float(getattr(law, field.name)) for field in fields(law)}
    return values | {"K": float(law.k)} if isinstance(law, DistillationLaw) else values


_NAMES = {"e": "E", "a": "A", "b": "B"}
