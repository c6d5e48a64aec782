"""What training costs in floating-point operations, by scenario.

Source: "Distillation Scaling Laws", arXiv 2502.08606v2, section 5 and its appendix on compute. A forward pass over
one token of a transformer with N non-embedding parameters takes

    F(N) = 2 N (1 + σ1 · n_ctx · N^(−1/3) + σ2 · n_vocab · N^(−2/3))

where the second term is attention over the context and the third the output layer; σ1 and σ2 come from the fixed
ratio of width to depth of the paper's models. A backward pass costs two forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from fractionate.planning.checks import Values, not_negative, positive
from fractionate.planning.scenarios import Scenario, scenario

SIGMA_CONTEXT = 0.0378567
SIGMA_VOCABULARY = 2.2012848
TRAINING_PASSES = 3
"""The cost of a training step in forward passes: one forward pass, and a backward pass of twice its cost."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The terms of a token's cost besides parameters: context length in tokens, and vocabulary size."""

    context: float = 4096
    vocabulary: float = 32768

    def forward(self, params: ArrayLike) -> Values:
        """Return F(N) in FLOPs per token for N non-embedding parameters."""
        n = positive("params", params)
        attention = SIGMA_CONTEXT * self.context * n ** (-1 / 3)
        output = SIGMA_VOCABULARY * self.vocabulary * n ** (-2 / 3)
        return 2 * n * (1 + attention + output)


DEFAULT_ARCHITECTURE = Architecture()


def training_flops(
    student_params: ArrayLike,
    student_tokens: ArrayLike,
    teacher_params: ArrayLike = 1.0,
    teacher_tokens: ArrayLike = 0.0,
    paid: Scenario | str = "best-case",
    *,
    students: float = 1.0,
    architecture: Architecture = DEFAULT_ARCHITECTURE,
) -> Values:
    """Return the FLOPs of one student: its own training, and the teacher's costs that the scenario pays for.

    3 F(N_S) D_S + F(N_T) (δ_inference D_S + δ_pretraining 3 D_T / students): the teacher's pretraining is shared by all
    students of it. Sizes in non-embedding parameters, lengths in tokens. Supervised training is the best case.
    """
    paid = scenario(paid) if isinstance(paid, str) else paid
    d_s, d_t = not_negative("student_tokens", student_tokens), not_negative("teacher_tokens", teacher_tokens)
    teacher_runs = paid.inference * d_s + paid.pretraining * TRAINING_PASSES * d_t / positive("students", students)
    own = TRAINING_PASSES * architecture.forward(student_params) * d_s
    return own + architecture.forward(teacher_params) * teacher_runs
