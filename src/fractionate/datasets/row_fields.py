"""The fields of a row to score: its output, its prediction, and its right answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fractionate.datasets.gold import Gold
from fractionate.datasets.jsonl import forms_of, span_text
from fractionate.errors import UsageError
from fractionate.rows import Row, at, kind_of
from fractionate.types import Answer

if TYPE_CHECKING:
    from fractionate.datasets.scoring import Scoring

MISSING: Any = object()
"""Stands for a field that a row lacks."""


def row_output(row: Row, named: str) -> Any:
    """Return a row's raw output (a string or None), or `MISSING` where its prediction is to be read instead."""
    field = named or "output"
    output = at(row.values, field, MISSING)
    if output is MISSING:
        if named:
            raise row.error(f"no field {named!r}: it has {', '.join(map(str, row.values))}")
        return MISSING
    if output is not None and not isinstance(output, str):
        raise row.error(f"{field!r} must be a string or null, not {kind_of(output)}")
    return output


def row_prediction(row: Row) -> Answer | None:
    """Return a row's extracted answer, None for null. Raises UsageError where the row has none."""
    if "prediction" not in row.values:
        raise row.error("neither 'output' nor 'prediction': name the field with --output-field")
    prediction = row.values["prediction"]
    return None if prediction is None else _spans(row, "prediction", prediction)


def row_answers(row: Row, gold: Gold | None, scoring: Scoring) -> tuple[Answer, ...]:
    """Return the right answers of a row: those of the gold data, or the row's own.

    A field called `answer` holds the model's own answer as often as the right one (it does in GSM8K-AI-SubQ's
    recordings), so it is taken only where it is named.
    """
    if gold is not None:
        return gold.problems[gold.key(row)].answers
    field = scoring.fields.answers or "answers"
    given = at(row.values, field)
    if given is None:
        if (scoring.is_figure or scoring.judge) and not scoring.fields.answers:
            return ()  # a scorer of the user's own may need none, nor does a judge with a rubric
        also = "; if 'answer' holds the right one, say --answers-field answer" if "answer" in row.values else ""
        raise row.error(
            f"no {field!r}: give them in the row, name their field with --answers-field, or the data set that "
            f"holds them with --gold{also}"
        )
    alternatives = given if isinstance(given, list) else [given]
    if not alternatives:
        raise row.error(f"{field!r} is empty")
    return tuple(answer for each in alternatives for answer in _alternatives(row, field, each))


def _alternatives(row: Row, name: str, value: object) -> tuple[Answer, ...]:
    if isinstance(value, list):
        return (_spans(row, name, value),)
    try:
        return tuple((form,) for form in forms_of(value))
    except ValueError:
        raise _no_answer(row, name, value) from None


def _spans(row: Row, name: str, value: object) -> Answer:
    """Return one answer: a string or number is one span, a list is several."""
    spans = []
    for span in value if isinstance(value, list) else [value]:
        try:
            spans.append(span_text(span))
        except ValueError:
            raise _no_answer(row, name, span) from None
    return tuple(spans)


def _no_answer(row: Row, name: str, value: object) -> UsageError:
    return row.error(f"{name!r} must hold strings or lists of strings, not {kind_of(value)}")
