"""Rows of one's own (JSONL, JSON, CSV, TSV, Parquet): an outcome per question, or outputs that are scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fractionate.analysis.systems import Answered, System
from fractionate.datasets.gold import find_gold, key_of
from fractionate.datasets.scoring import REPEATS, misfit, score_rows
from fractionate.errors import UsageError
from fractionate.logs.choices import MOST_DOLLARS, MOST_TOKENS, Choices, amount_of, digest, readable
from fractionate.rows import Row, at, shown
from fractionate.types import Usage

OUTCOMES = ("outcome", "correct", "exact_match", "score")
"""Fields that hold an outcome, the first that a row has."""
IDS = ("id", "index", "question_id", "doc_id")
INPUT_TOKENS = ("input_tokens", "prompt_tokens")
OUTPUT_TOKENS = ("output_tokens", "completion_tokens")
DOLLARS = ("usd", "cost_usd")
METRICS = ("exact_match", "f1")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of a row, and what is known of how it was parsed."""

    value: float | None
    unparsed: bool | None = None
    lenient: float | None = None
    label: float | None = None


def read_table(rows: Sequence[Row], path: Path, name: str, choices: Choices, column: str = "") -> System:
    """Read rows as a system. `column` is the field of its output, or of its outcome where there is nothing to score by.

    Raises UsageError naming the row where one lacks an id or outcome, or has a wrong one.
    """
    if not rows:
        raise UsageError(f"{path} is empty: there is nothing to compare")
    if column:
        choices = _of_column(rows, choices, column)
    outcomes, does_not_fit, judge = _outcomes(rows, path, choices)
    ids, numbered = ids_of(rows, choices)
    notes = ("its rows have no id: they are matched by their position",) if numbered else ()
    shared = _passages(choices, rows) if choices.scoring.gold and not choices.group else [""] * len(rows)
    answers = []
    seen: dict[str, int] = {}
    for row, question, outcome, passage in zip(rows, ids, outcomes, shared, strict=True):
        seen[question] = seen.get(question, 0) + 1
        text = row.values.get("question")
        with readable(row.where, "row"):
            answers.append(
                Answered(
                    question_id=question,
                    outcome=outcome.value,
                    group=choices.group_of(row.values, row.where) or passage,
                    question=digest(" ".join(text.split())) if isinstance(text, str) else "",
                    usage=_usage(row, name),
                    usd=_amount(row, row.values, DOLLARS, MOST_DOLLARS),
                    repeat=str(seen[question]) if choices.repeats else _first(row.values, REPEATS),
                    unparsed=outcome.unparsed,
                    lenient=outcome.lenient,
                    label=outcome.label,
                )
            )
    return System(name, tuple(answers), "rows", notes, misfit=does_not_fit, judge=judge)


def _of_column(rows: Sequence[Row], choices: Choices, column: str) -> Choices:
    """Return the choices with one column as the output, or as the outcome where nothing says what is right."""
    held = [at(row.values, column, rows) for row in rows]
    if all(value is rows for value in held):
        raise rows[0].error(f"no field {column!r}: it has {', '.join(map(str, rows[0].values))}")
    scoring = choices.scoring
    judged = bool(scoring.names_reader)
    if not scoring.scale:  # a scale alone makes the column a rating, whatever stands beside it
        judged = judged or bool(scoring.fields.answers) or "answers" in rows[0].values
    if judged and not all(isinstance(value, bool | None) for value in held):
        return replace(choices, outcome="", scoring=replace(scoring, fields=replace(scoring.fields, output=column)))
    return replace(choices, outcome=column)


def _passages(choices: Choices, rows: Sequence[Row]) -> list[str]:
    """Return what the question of each row shares with others, as the --gold data say."""
    scoring = choices.scoring
    gold = find_gold(scoring.gold, scoring.columns, scoring.fields.index, rows)
    problems = [gold.problems.get(gold.key(row)) for row in rows]
    return [problem.group or problem.context if problem else "" for problem in problems]


def _outcomes(rows: Sequence[Row], path: Path, choices: Choices) -> tuple[list[_Outcome], str, str]:
    """Return the outcome of each row, whether the scorer does not fit, and the identity of a judge that scores."""
    scoring = choices.scoring
    scored = scoring.names_reader or scoring.fields.output or scoring.fields.answers
    names = (*OUTCOMES, "rating") if scoring.scale else OUTCOMES
    field = choices.outcome or next((name for name in names if name in rows[0].values), "")
    if choices.outcome or (field and not scored):
        found = [_outcome(row, field, choices) for row in rows]
        unparsed = sum(one.unparsed is True for one in found)
        wrong = f"the scorer does not fit: {unparsed} of {len(found)} unparsed" if 2 * unparsed > len(found) else ""
        return found, wrong, ""
    if not scored and "answers" not in rows[0].values:
        has = ", ".join(map(str, rows[0].values))
        raise UsageError(
            f"{path}: no outcome ({', '.join(OUTCOMES)}) and nothing to score (output and answers) among {has}: name "
            "the field with --outcome-field, or the right answers with --answers-field or --gold"
        )
    metric = choices.metric or "exact_match"
    if metric not in METRICS:
        raise UsageError(f"outputs are scored by {' or '.join(METRICS)}, not {metric!r}: fix --metric")
    if not scoring.names_reader:
        scoring = replace(scoring, dataset="jsonl")
    results = score_rows(rows, scoring, repeats=True, lenient=True)
    found = [_Outcome(None)] * len(rows)
    for one in results.rows:
        lenient = None if one.lenient is None else float(getattr(one.lenient, metric))
        found[one.position] = _Outcome(float(getattr(one.score, metric)), not one.extracted, lenient, one.label)
    return found, misfit(results.rows, results.scorer), results.judge


def _outcome(row: Row, field: str, choices: Choices) -> _Outcome:
    value = at(row.values, field, row)
    if value is row:
        raise row.error(f"no field {field!r} (the row has {', '.join(map(str, row.values))})")
    extracted = row.values.get("extracted")  # `fractionate score --rows` says so
    unparsed = not extracted if isinstance(extracted, bool) else None
    return _Outcome(choices.outcome_of(value, f"{row.where}: {field!r}"), unparsed)


def ids_of(rows: Sequence[Row], choices: Choices) -> tuple[list[str], bool]:
    """Return what each row calls its question, and whether that is only its position."""
    if choices.id:
        return [choices.id_of(row.values, row.where) for row in rows], False
    by_index = choices.scoring.fields.index
    names = (by_index, *IDS) if by_index else ("index", *IDS) if choices.scoring.gold else IDS
    field = next((name for name in names if at(rows[0].values, name) not in (None, "")), "")
    if not field:
        return [str(position) for position in range(len(rows))], True
    ids = []
    for row in rows:
        value = at(row.values, field)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise row.error(f"{field!r} must be text or a number, not {shown(value)}")
        ids.append(key_of(value))
    return ids, False


def _usage(row: Row, name: str) -> dict[str, Usage]:
    nested = row.values.get("usage")
    values = {**row.values, **nested} if isinstance(nested, Mapping) else row.values
    read = _amount(row, values, INPUT_TOKENS, MOST_TOKENS)
    written = _amount(row, values, OUTPUT_TOKENS, MOST_TOKENS)
    if read is None or written is None:
        return {}
    model = _first(row.values, ("model",)) or name
    return {model: Usage(calls=1, input_tokens=round(read), output_tokens=round(written))}


def _amount(row: Row, values: Mapping[str, Any], names: Sequence[str], most: float) -> float | None:
    field = next((name for name in names if values.get(name) not in (None, "")), "")
    return amount_of(values[field], most, f"{row.where}: {field!r}") if field else None


def _first(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((str(values[name]) for name in names if values.get(name) not in (None, "")), "")
