"""The answers of `fractionate plan` in words and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.planning.flops import SCENARIOS

_ADVICE = {
    "distill": "distill",
    "supervised": "train without a teacher",
    "undecided": "undecided, the coefficients' intervals leave it open",
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
    """Return the lines for `plan recipe`: a table with a row per scenario, and what to make of it."""
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
    said = list(dict.fromkeys(warning for answer in answers for warning in answer["warnings"]))
    return [*lines, *(f"outside the fitted range, so extrapolated: {warning}" for warning in said)]


def _recipe_sentences(answer: Mapping[str, Any]) -> list[str]:
    gain = answer["supervised_loss"] - answer["student_loss"]
    told = f"{abs(gain):.4f} nats {'below' if gain > 0 else 'above'} supervised training"
    span = answer["range"].get("gain_over_supervised")
    if span:
        told += f" [{-span[1]:+.3f}, {-span[0]:+.3f}]"
    lines = [
        f"{answer['scenario']}: {_ADVICE[answer['advice']]}",
        f"  {told}; {SCENARIOS[answer['scenario']].meaning}",
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
        lines.append("  the teacher's training is not paid for: any teacher of this size and loss will do")
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
    margin, differ = f"{100 * answer['margin']:g} points", f"{answer['discordance']:.1%}"
    head = (
        f"{answer['questions']:,} questions show non-inferiority at a margin of {margin} with "
        f"{answer['target_power']:.0%} power, if only one of the two is right on {differ} of them"
    )
    if answer["difference"]:
        head += f" and the true difference is {100 * answer['difference']:+g} points"
    if answer["design_effect"] > 1:
        independent, effect = f"{answer['independent_questions']:,}", f"{answer['design_effect']:.2f}"
        head += f" ({independent} if none shared a passage, times {effect})"
    rows = [("questions", "power"), *((f"{row['questions']:,}", f"{row['power']:.1%}") for row in answer["table"])]
    return [head, "", *columns(rows)]


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
