"""The answers of `fractionate plan`: as records for JSON, and as lines of text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fractionate.errors import UsageError
from fractionate.planning.checks import positive
from fractionate.planning.choice import advantage, crossover_range, least_compute, least_supervised_compute
from fractionate.planning.coefficients import CoefficientSet
from fractionate.planning.power import Design, design_effect, power_at, questions_at, questions_needed
from fractionate.planning.predict import best_teacher_loss, checked_teacher_loss
from fractionate.planning.recipes import Recipe, Setting, recipe, spread
from fractionate.planning.scenarios import SCENARIOS

DRAWS = 200
_CROSSOVER_DRAWS = 24


def law(params: float, tokens: float, teacher_loss: float | None, coefficients: CoefficientSet) -> dict[str, Any]:
    """Return the predicted losses of one student: with its teacher, without a teacher, and with the best teacher."""
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

    With `target_loss` the budget is the smallest that reaches it, and the answer has that of supervised training too.
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
    """Return "distill", "supervised", or "undecided" where the coefficients' intervals include both."""
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
    # Slightly more than the minimum, so that rounding does not leave the recipe short of the target loss.
    compute = least_compute(setting, target) * (1 + 1e-6)
    supervised = least_supervised_compute(setting, target)
    extra = {
        "target_loss": target,
        "supervised_compute": supervised if math.isfinite(supervised) else None,
        "compute_ratio": compute / supervised if math.isfinite(supervised) else None,
    }
    return replace(setting, compute=compute), extra


def _outside(found: Recipe, setting: Setting) -> list[str]:
    warnings = setting.coefficients.outside(
        params=setting.student_params, tokens=found.student_tokens, teacher_loss=found.teacher_loss
    )
    return warnings + [f"{one} (teacher)" for one in setting.coefficients.outside(params=found.teacher_params)]


SAMPLES = (1, 2, 4, 8)
"""Samples per question that `plan power` compares, where sampling noise is known."""


def power_for(
    design: Design, target: float, cluster_size: float, cluster_correlation: float, noise: float | None = None
) -> dict[str, Any]:
    """Return how many questions a non-inferiority test needs, and the power of some other numbers.

    `noise` in [0, 1] is the share of the variance that is sampling noise; None where it is not known.
    """
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
        **({} if noise is None else {"noise": noise, "samples": _by_samples(math.ceil(independent * effect), noise)}),
    }


def _by_samples(questions: int, noise: float) -> list[dict[str, Any]]:
    """Return questions and outputs by samples per question, and what a question must cost for samples to be cheaper.

    That is in further outputs of the same system: None where samples save no question.
    """
    rows = []
    for samples in SAMPLES:
        fewer = questions_at(questions, noise, samples)
        saved, more = questions - fewer, fewer * samples - questions
        rows.append(
            {
                "samples": samples,
                "questions": fewer,
                "outputs": fewer * samples,
                "outputs_per_question_saved": max(more, 0) / saved if saved else None,
            }
        )
    return rows


_ADVICE = {
    "distill": "distill",
    "supervised": "train without a teacher",
    "undecided": "undecided, the coefficients' intervals include both",
}


def law_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines for `plan law`."""
    spans = answer["range"]
    rows = [("supervised loss", f"{answer['supervised_loss']:.4f}", _span(spans.get("supervised_loss"), ".3f"))]
    if answer["student_loss"] is not None:
        gain = answer["supervised_loss"] - answer["student_loss"]
        rows += [
            ("student's loss", f"{answer['student_loss']:.4f}", _span(spans.get("student_loss"), ".3f")),
            ("gain by distilling", f"{gain:+.4f}", _span(spans.get("gain_over_supervised"), "+.3f")),
        ]
    if "best_teacher_loss" in answer:
        rows.append(("best teacher's loss", f"{answer['best_teacher_loss']:.4f}", ""))
        rows.append(("student's loss with it", f"{answer['best_student_loss']:.4f}", ""))
    teacher = "no teacher" if answer["teacher_loss"] is None else f"a teacher of loss {answer['teacher_loss']:.4f}"
    student = f"{count(answer['student_params'])} parameters, {count(answer['student_tokens'])} tokens"
    return [f"{student}, {teacher}; losses in nats per token", "", *columns(rows), "", *_footer(answer)]


def recipe_lines(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines for `plan recipe`: a table with a row per scenario, and advice for each."""
    sizes = list(dict.fromkeys(count(answer["student_params"]) for answer in answers))
    head = f"a student of {' or '.join(sizes)} parameters, coefficients {answers[0]['coefficients']}"
    heads = (
        "scenario",
        "student",
        "student's loss",
        "supervised",
        "student tokens",
        "teacher",
        "its tokens",
        "its loss",
        "FLOPs",
    )
    rows = [heads]
    for answer in answers:
        rows.append(
            (
                answer["scenario"],
                count(answer["student_params"]),
                f"{answer['student_loss']:.4f}{_brackets(answer, 'student_loss', '.3f')}",
                f"{answer['supervised_loss']:.4f}",
                f"{count(answer['student_tokens'])}{_brackets(answer, 'student_tokens')}",
                f"{count(answer['teacher_params'])}{_brackets(answer, 'teacher_params')}",
                f"{count(answer['teacher_tokens'])}{_brackets(answer, 'teacher_tokens')}",
                f"{answer['teacher_loss']:.3f}{_brackets(answer, 'teacher_loss', '.3f')}",
                f"{answer['compute']:.3g}",
            )
        )
    lines = [head, "", *columns(rows), ""]
    for answer in answers:
        lines += _recipe_sentences(answer)
    if any(answer["range"] for answer in answers):
        lines.append("in brackets: the range as the coefficients vary within their 90 % intervals")
    warnings = list(dict.fromkeys(warning for answer in answers for warning in answer["warnings"]))
    return [*lines, *(f"outside the fitted range, so extrapolated: {warning}" for warning in warnings)]


def _recipe_sentences(answer: Mapping[str, Any]) -> list[str]:
    gain = answer["supervised_loss"] - answer["student_loss"]
    compared = f"{abs(gain):.4f} nats {'below' if gain > 0 else 'above'} supervised training"
    span = answer["range"].get("gain_over_supervised")
    if span:
        compared += f" [{-span[1]:+.3f}, {-span[0]:+.3f}]"
    lines = [
        f"{answer['scenario']}: {_ADVICE[answer['advice']]}",
        f"  {compared}; {SCENARIOS[answer['scenario']].meaning}",
    ]
    if "crossover_compute" in answer:
        lines.append(f"  {_crossover(answer)}")
    if answer.get("compute_ratio"):
        supervised = f"{answer['compute_ratio']:.2f} of the {answer['supervised_compute']:.3g}"
        taken = f"a loss of {answer['target_loss']:g} takes {answer['compute']:.3g} FLOPs"
        lines.append(f"  {taken}, {supervised} that supervised training takes")
    elif "target_loss" in answer:
        lines.append(f"  supervised training never reaches a loss of {answer['target_loss']:g} at this size")
    if answer["serving_flops"]:
        lines.append(f"  serving takes {answer['serving_flops'] / answer['compute']:.0%} of the FLOPs")
    if answer["scenario"] == "teacher-inference" and "crossover_compute" in answer:
        lines.append("  the teacher's training is free here: any teacher of this size and loss is suitable")
    return lines


def _crossover(answer: Mapping[str, Any]) -> str:
    if not answer["distillation_ever_ahead"]:
        return "supervised training is ahead at every budget"
    if answer["crossover_compute"] is None:
        return "distilling is ahead at every budget"
    low, high = answer.get("crossover_range", (None, None))
    span = ""
    if "crossover_range" in answer:
        span = f" ({'0' if not low else f'{low:.1g}'} to {'no end' if high is None else f'{high:.1g}'})"
    return f"supervised training catches up at {answer['crossover_compute']:.2g} FLOPs{span}"


def fit_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines for `plan fit`."""
    rows = [("coefficient", "value", "90 % interval")]
    for name, value in answer["coefficients"].items():
        rows.append((name, f"{value:.4g}", _span(answer["intervals"].get(name), ".4g")))
    errors = [
        ("fitted runs", f"{answer['rms_relative_error']:.2%}"),
        (f"runs held out (in {answer['held_out']['folds']} parts)", f"{answer['held_out']['rms_relative_error']:.2%}"),
        (
            f"the largest {answer['largest']['share']:.0%}, from the others",
            f"{answer['largest']['rms_relative_error']:.2%}",
        ),
    ]
    head = f"{answer['law']} law, {answer['points']} runs; error of the loss (root mean square):"
    return [head, "", *columns(errors), "", *columns(rows), "", *(f"note: {note}" for note in answer["notes"])]


def power_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines for `plan power`."""
    margin, differ = f"{answer['margin']:g} percentage points", f"{answer['discordance']:.1%}"
    head = (
        f"{answer['questions']:,} questions show non-inferiority at a margin of {margin} with "
        f"{answer['target_power']:.0%} power, if only one of the two is right on {differ} of them"
    )
    if answer["difference"]:
        head += f" and the true difference is {answer['difference']:+g} percentage points"
    if answer["design_effect"] > 1:
        independent, effect = f"{answer['independent_questions']:,}", f"{answer['design_effect']:.2f}"
        head += f" ({independent} if none shared a passage, times {effect})"
    head += f"; the test is one-sided at {(1 - answer['confidence']) / 2:.3g}"
    rows = [("questions", "power"), *((f"{row['questions']:,}", f"{row['power']:.1%}") for row in answer["table"])]
    return [head, "", *columns(rows), *(_samples_lines(answer) if "samples" in answer else [])]


def _samples_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines on several samples per question: when they beat more questions."""
    rows = [("samples per question", "questions", "outputs per system")]
    rows += [(str(row["samples"]), f"{row['questions']:,}", f"{row['outputs']:,}") for row in answer["samples"]]
    _, two, *_ = answer["samples"]
    price = two["outputs_per_question_saved"]
    said = f"sampling noise is {answer['noise']:.0%} of what the differences vary by"
    if price is None:
        advice = f"{said}: samples show nothing that one output does not; ask more questions"
    elif price < 0.05:
        advice = f"{said}: samples are as good as questions; take whichever costs less"
    else:
        advice = (
            f"{said}: a second sample beats more questions where there are no more, or where a further question with "
            f"its known answer costs more than {price:.1f} outputs"
        )
    return ["", *columns(rows), "", advice]


def count(value: float) -> str:
    """Return a number of parameters or tokens in a few characters: 1.8B, 39B, 5.1e+15."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if size <= value < 1000 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _brackets(answer: Mapping[str, Any], name: str, form: str = "") -> str:
    span = answer["range"].get(name)
    if not span:
        return ""
    low, high = (f"{value:{form}}" if form else count(value) for value in span)
    return f" [{low}–{high}]" if low != high else ""


def _span(span: Sequence[float] | None, form: str) -> str:
    return f"[{span[0]:{form}}, {span[1]:{form}}]" if span else ""


def _footer(answer: Mapping[str, Any]) -> list[str]:
    lines = [f"coefficients {answer['coefficients']}; in brackets: the range as they vary within their 90 % intervals"]
    return lines + [f"outside the fitted range, so extrapolated: {warning}" for warning in answer["warnings"]]
