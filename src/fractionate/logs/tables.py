"""Rows of one's own (JSONL, JSON, CSV, TSV, Parquet): an outcome per question, or outputs that are scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.analysis.systems import Answered, System
from fractionate.datasets import iter_problems, parse_reference
from fractionate.datasets.scoring import Scoring, score_rows
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, outcome_of
from fractionate.rows import Row, kind_of
from fractionate.types import Usage

OUTCOMES = ("outcome", "correct", "exact_match", "score")
"""Fields that hold an outcome, the first that a row has."""
IDS = ("id", "index", "question_id", "doc_id")
REPEATS = ("repeat", "epoch", "sample", "seed")
INPUT_TOKENS = ("input_tokens", "prompt_tokens")
OUTPUT_TOKENS = ("output_tokens", "completion_tokens")
DOLLARS = ("usd", "cost_usd")
METRICS = ("exact_match", "f1")


def read_table(rows: Sequence[Row], path: Path, name: str, choices: Choices) -> System:
    """Read rows as a system. Raises UsageError naming the row where one lacks an id or outcome, or has a wrong one."""
    if not rows:
        raise UsageError(f"{path} is empty: there is nothing to compare")
    outcomes = _outcomes(rows, path, choices)
    ids, numbered = _ids(rows, choices)
    notes = ("its rows have no id: they are matched by their place",) if numbered else ()
    shared = _passages(choices) if choices.gold and not choices.group else {}
    answers = []
    seen: dict[str, int] = {}
    for row, question, outcome in zip(rows, ids, outcomes, strict=True):
        seen[question] = seen.get(question, 0) + 1
        text = row.values.get("question")
        answers.append(
            Answered(
                question_id=question,
                outcome=outcome,
                group=choices.group_of(row.values, row.where) or shared.get(question, ""),
                question=" ".join(text.split()) if isinstance(text, str) else "",
                usage=_usage(row, name),
                usd=_number(row, row.values, DOLLARS),
                repeat=str(seen[question]) if choices.repeats else _first(row.values, REPEATS),
            )
        )
    return System(name, tuple(answers), "rows", notes)


def _passages(choices: Choices) -> dict[str, str]:
    """Return what the questions of the --gold data share, by their index."""
    problems = iter_problems(choices.gold, choices.columns)
    return {str(problem.index): problem.group or problem.context for problem in problems}


def _outcomes(rows: Sequence[Row], path: Path, choices: Choices) -> list[float | None]:
    scored = choices.dataset or choices.gold or choices.fields.output or choices.fields.answers
    field = choices.outcome or next((name for name in OUTCOMES if name in rows[0].values), "")
    if choices.outcome or (field and not scored):
        return [_outcome(row, field) for row in rows]
    if not scored and "answers" not in rows[0].values:
        has = ", ".join(map(str, rows[0].values))
        raise UsageError(
            f"{path}: no outcome ({', '.join(OUTCOMES)}) and nothing to score (output and answers) among {has}: name "
            "the field with --outcome-field, or the right answers with --answers-field or --gold"
        )
    dataset = choices.dataset or (parse_reference(choices.gold).name if choices.gold else "jsonl")
    metric = choices.metric or "exact_match"
    if metric not in METRICS:
        raise UsageError(f"outputs are scored by {' or '.join(METRICS)}, not {metric!r}: fix --metric")
    scoring = Scoring(dataset, "", None, choices.gold, choices.fields, choices.columns)
    found: list[float | None] = [None] * len(rows)
    for one in score_rows(rows, scoring, repeats=True).rows:
        found[one.position] = float(getattr(one.score, metric))
    return found


def _outcome(row: Row, field: str) -> float | None:
    if field not in row.values:
        raise row.error(f"no field {field!r} (the row has {', '.join(map(str, row.values))})")
    return outcome_of(row.values[field], f"{row.where}: {field!r}")


def _ids(rows: Sequence[Row], choices: Choices) -> tuple[list[str], bool]:
    """Return what each row calls its question, and whether that is only its place."""
    if choices.id:
        return [choices.id_of(row.values, row.where) for row in rows], False
    by_index = choices.fields.index or ("index" if choices.gold else "")
    names = (by_index, *IDS) if by_index else IDS
    field = next((name for name in names if name in rows[0].values), "")
    if not field:
        return [str(place) for place in range(len(rows))], True
    return [row.text(field) for row in rows], False


def _usage(row: Row, name: str) -> dict[str, Usage]:
    nested = row.values.get("usage")
    values = {**row.values, **nested} if isinstance(nested, Mapping) else row.values
    read, written = _number(row, values, INPUT_TOKENS), _number(row, values, OUTPUT_TOKENS)
    if read is None or written is None:
        return {}
    model = _first(row.values, ("model",)) or name
    return {model: Usage(calls=1, input_tokens=round(read), output_tokens=round(written))}


def _number(row: Row, values: Mapping[str, Any], names: Sequence[str]) -> float | None:
    field = next((name for name in names if values.get(name) not in (None, "")), "")
    if not field:
        return None
    try:
        number = float(values[field])
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(values[field], bool) or not 0 <= number < float("inf"):
        raise row.error(f"{field!r} must be a number from 0, not {kind_of(values[field])}: {values[field]!r}"[:200])
    return number


def _first(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((str(values[name]) for name in names if values.get(name) not in (None, "")), "")
