"""The answers of `fractionate plan`, as records for JSON; `tables.py` words them for a terminal."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fractionate.errors import UsageError
from fractionate.planning.checks import positive
from fractionate.planning.choice import advantage, crossover_range, least_compute, least_supervised_compute
from fractionate.planning.coefficients import CoefficientSet
from fractionate.planning.power import Design, design_effect, power_at, questions_needed
from fractionate.planning.predict import best_teacher_loss, checked_teacher_loss
from fractionate.planning.recipes import Recipe, Setting, recipe, spread

DRAWS = 200
_CROSSOVER_DRAWS = 24


def law(params: float, tokens: float, teacher_loss: float | None, coefficients: CoefficientSet) -> dict[str, Any]:
    """Return what the laws say of one student: with a teacher, without, and with the best teacher there could be."""
    n, d = positive("student-params", params), positive("student-tokens", tokens)
    answer: dict[str, Any] = {
        "student_loss": None,
        "supervised_loss": float(coefficients.supervised.loss(n, d)),
        "coefficients": coefficients.name,
        "student_params": float(n),
        "student_tokens": float(d),
        "teacher_loss": teacher_loss,
    }
    given: dict[str, Any] = {"params": n, "tokens": d}
    if teacher_loss is not None:
        given["teacher_loss"] = checked_teacher_loss(teacher_loss, coefficients)
        answer["student_loss"] = _student_loss(n, d, teacher_loss, coefficients)
    if coefficients.distillation is not None:
        best = float(best_teacher_loss(n, d, coefficients))
        answer |= {"best_teacher_loss": best, "best_student_loss": _student_loss(n, d, best, coefficients)}
    warnings = coefficients.outside(**given)
    answer |= {"range": _law_ranges(params, tokens, teacher_loss, coefficients)}
    return answer | {"within_range": not warnings, "warnings": warnings}


def _student_loss(params: Any, tokens: Any, teacher_loss: float, coefficients: CoefficientSet) -> float:
    own = coefficients.supervised.loss(params, tokens)
    return float(coefficients.distilled.loss(params, tokens, teacher_loss, own))


def _law_ranges(
    params: float, tokens: float, teacher_loss: float | None, coefficients: CoefficientSet
) -> dict[str, list[float]]:
    """Return 90 % ranges of the losses over draws of the coefficients."""
    if not coefficients.has_uncertainty:
        return {}
    drawn = coefficients.drawn(4 * DRAWS)
    own = drawn.supervised.loss(params, tokens)
    losses = {"supervised_loss": own}
    if teacher_loss is not None:
        losses["student_loss"] = drawn.distilled.loss(params, tokens, teacher_loss, own)
        losses["gain_over_supervised"] = own - losses["student_loss"]
    return {name: [float(value) for value in np.quantile(loss, [0.05, 0.95])] for name, loss in losses.items()}


def recipe_for(setting: Setting, target_loss: float | None = None) -> dict[str, Any]:
    """Return the recipe for a setting, its ranges, and whether to distil at all.

    With `target_loss` the budget is the least that reaches it, and what supervised training would take is told too.
    """
    extra: dict[str, Any] = {}
    if target_loss is not None:
        setting, extra = _for_target(setting, float(positive("loss", target_loss)))
    found = recipe(setting)
    ranges = {name: list(span) for name, span in spread(setting, DRAWS).items()}
    ahead = advantage(setting) if setting.teacher is None else None
    answer = {
        **asdict(found),
        "student_params": setting.student_params,
        "budget": setting.compute if math.isfinite(setting.compute) else None,
        "scenario": setting.scenario.name,
        "coefficients": setting.coefficients.name,
        "students": setting.students,
        "serving_flops": setting.serving,
        "range": ranges,
        "advice": advice(found, ranges),
        **extra,
    }
    if setting.teacher is None:
        answer["crossover_compute"] = ahead.ends if ahead else None
        answer["distillation_ever_ahead"] = ahead is not None
        if setting.coefficients.has_uncertainty:
            answer["crossover_range"] = list(crossover_range(setting, _CROSSOVER_DRAWS))
    warnings = _outside(found, setting)
    return answer | {"within_range": not warnings, "warnings": warnings}


def advice(found: Recipe, ranges: dict[str, list[float]]) -> str:
    """Return "distill", "supervised", or "undecided" where the coefficients' intervals leave it open."""
    low, high = ranges.get("gain_over_supervised", [found.supervised_loss - found.student_loss] * 2)
    if low <= 0 <= high:
        return "undecided"
    return "distill" if low > 0 else "supervised"


def _for_target(setting: Setting, target: float) -> tuple[Setting, dict[str, Any]]:
    if setting.teacher is not None:
        raise UsageError("a target loss is planned without a given teacher: leave out the teacher, or give compute")
    setting.check_values()
    if target <= float(setting.coefficients.supervised.e):
        raise UsageError(
            f"a loss of {target:g} is below the entropy floor E = {float(setting.coefficients.supervised.e):g} of "
            f"{setting.coefficients.name}: no student reaches it"
        )
    # A hair more than the least, so that rounding does not leave the recipe a hair short of the loss.
    compute = least_compute(setting, target) * (1 + 1e-6)
    supervised = least_supervised_compute(setting, target)
    told = {
        "target_loss": target,
        "supervised_compute": supervised if math.isfinite(supervised) else None,
        "compute_ratio": compute / supervised if math.isfinite(supervised) else None,
    }
    return replace(setting, compute=compute), told


def _outside(found: Recipe, setting: Setting) -> list[str]:
    said = setting.coefficients.outside(
        params=setting.student_params, tokens=found.student_tokens, teacher_loss=found.teacher_loss
    )
    return said + [f"{one} (teacher)" for one in setting.coefficients.outside(params=found.teacher_params)]


def power_for(design: Design, target: float, cluster_size: float, cluster_correlation: float) -> dict[str, Any]:
    """Return how many questions a non-inferiority test needs, and the power of some other numbers."""
    independent = questions_needed(design, target)
    effect = design_effect(cluster_size, cluster_correlation)
    table = sorted(
        {max(10, round(independent * share, -1 if independent >= 100 else 0)) for share in (0.25, 0.5, 1, 1.5, 2)}
    )
    return {
        "questions": math.ceil(independent * effect - 1e-9),
        "independent_questions": independent,
        "design_effect": effect,
        "power": power_at(design, independent),
        "target_power": target,
        **asdict(design),
        "table": [{"questions": math.ceil(n * effect), "power": power_at(design, int(n))} for n in table],
    }
