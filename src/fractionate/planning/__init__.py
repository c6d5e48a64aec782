"""Plan before paying: sample sizes, learning curves, break-even, and the distillation scaling law with its recipes.

`from fractionate.planning import student_loss` works for every name in `__all__`; nothing is loaded before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Architecture": "flops",
    "Bill": "break_even",
    "CoefficientSet": "coefficients",
    "Design": "power",
    "DistillationLaw": "laws",
    "DistillationRuns": "runs",
    "OutsideFittedRange": "predict",
    "SCENARIOS": "scenarios",
    "SETS": "coefficients",
    "Saving": "break_even",
    "Setting": "recipes",
    "SupervisedLaw": "laws",
    "SupervisedRuns": "runs",
    "Teacher": "recipes",
    "advantage": "choice",
    "best_size": "choice",
    "best_teacher_loss": "predict",
    "pay_back": "break_even",
    "load_coefficients": "coefficients",
    "fit_distillation": "fit",
    "fit_supervised": "fit",
    "learning_curve": "curve",
    "least_compute": "choice",
    "power_at": "power",
    "questions_needed": "power",
    "read_runs": "runs",
    "recipe": "recipes",
    "saved_at": "break_even",
    "spread": "recipes",
    "student_loss": "predict",
    "supervised_loss": "predict",
    "training_flops": "flops",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = sorted(_HOMES)
