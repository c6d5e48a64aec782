"""Score recorded outputs as a data set does: the plain function behind `fractionate score`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from fractionate.datasets import get, iter_problems
from fractionate.datasets.base import Dataset
from fractionate.datasets.jsonl import forms_of, span_text
from fractionate.errors import FractionateError, UsageError
from fractionate.rows import TEXT_TABLES, Row, kind_of, list_in, read_rows
from fractionate.types import Answer, Score


class Summary(TypedDict):
    """What a file scored: rows, means over all rows (0 to 1), and the share of rows without an answer to score."""

    n: int
    exact_match: float
    f1: float
    unextracted: float


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row: its answer (None when there is none), its score, and whether there was an answer to score.

    `identity` is what the row calls its question: its `id`, else its `index`, else its place among the rows.
    """

    prediction: Answer | None
    score: Score
    extracted: bool
    identity: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--rows` writes it; an answer of several spans is a list."""
        prediction = self.prediction
        written = prediction[0] if prediction is not None and len(prediction) == 1 else prediction
        return {
            "prediction": written,
            "exact_match": self.score.exact_match,
            "f1": self.score.f1,
            "extracted": self.extracted,
        }


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what. Empty names stand for the usual ones: `output`, `answers`, `index`."""

    output: str = ""
    answers: str = ""
    index: str = ""

    def described(self, gold: str) -> str:
        """Return in words what is scored against what."""
        answers = f"the answers of {gold} by {self.index or 'index'!r}" if gold else repr(self.answers or "answers")
        return f"{self.output or 'output'!r} (or 'prediction') against {answers}"


def score_file(
    path: Path,
    dataset_name: str,
    rows_out: Path | None = None,
    *,
    gold: str = "",
    fields: Fields | None = None,
    columns: Mapping[str, str] | None = None,
) -> Summary:
    """Score every row of a data file as a data set does, and write the scored rows to `rows_out` where given.

    A row holds `output` (a model's raw text; null counts as unextracted) or `prediction` (already extracted: a string,
    or a list of spans), and `answers`: alternatives, each a string or a list of spans. `fields` names other fields for
    them. `gold` is a data reference ("gsm8k:test.jsonl"), its columns mapped by `columns`: then the answers are those
    of the problem that the row's `index` names. In CSV and TSV a cell that begins with "[" is read as JSON.

    Nothing is written before every row was read. Raises UsageError with file, line and reason for a row that cannot be
    scored, or where `rows_out` is the file itself; FractionateError when `rows_out` cannot be written.
    """
    if rows_out is not None and rows_out.exists() and path.exists() and rows_out.samefile(path):
        raise UsageError(f"{rows_out} is the file that is scored: name another for the scored rows")
    scored = score_rows(file_rows(path), dataset_name, gold=gold, fields=fields, columns=columns)
    if not scored:
        raise UsageError(f"{path} has no rows to score")
    if rows_out is not None:
        _write(scored, rows_out)
    return summarize(scored)


def score_rows(
    rows: Iterable[Row],
    dataset_name: str,
    *,
    gold: str = "",
    fields: Fields | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[ScoredRow]:
    """Score rows as `score_file` does those of a file. Raises UsageError as it does."""
    dataset, fields = get(dataset_name), fields or Fields()
    answers_of = _answers_by_index(gold, columns, fields) if gold else _answers_in_row(fields.answers)
    return [_score_row(row, dataset, answers_of, fields, position) for position, row in enumerate(rows)]


def summarize(scored: list[ScoredRow]) -> Summary:
    """Return the means of at least one scored row."""
    n = len(scored)
    return {
        "n": n,
        "exact_match": sum(row.score.exact_match for row in scored) / n,
        "f1": sum(row.score.f1 for row in scored) / n,
        "unextracted": sum(not row.extracted for row in scored) / n,
    }


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of outputs; in tables of text a cell that writes a list as JSON is that list."""
    for row in read_rows(path):
        if path.suffix.lower() in TEXT_TABLES:
            row = Row({name: list_in(cell) for name, cell in row.values.items()}, row.where)
        yield row


def _score_row(
    row: Row, dataset: Dataset, answers_of: Callable[[Row], tuple[Answer, ...]], fields: Fields, position: int
) -> ScoredRow:
    prediction = _prediction(row, dataset, fields.output)
    extracted = prediction is not None and any(span.strip() for span in prediction)
    given = (row.values.get(name) for name in ("id", fields.index or "index"))
    identity = next((str(value) for value in given if value not in (None, "")), str(position))
    return ScoredRow(prediction, dataset.score(prediction, answers_of(row)), extracted, identity)


def _prediction(row: Row, dataset: Dataset, output_field: str) -> Answer | None:
    field = output_field or "output"
    if field in row.values:
        output = row.values[field]
        if output is not None and not isinstance(output, str):
            raise row.error(f"{field!r} must be a string or null, not {kind_of(output)}")
        return dataset.extract(output) if output is not None else None
    if output_field:
        raise row.error(f"no field {output_field!r}: it has {', '.join(row.values)}")
    if "prediction" not in row.values:
        raise row.error("neither 'output' nor 'prediction': name the field with --output-field")
    prediction = row.values["prediction"]
    return None if prediction is None else _spans(row, "prediction", prediction)


def _answers_in_row(named: str) -> Callable[[Row], tuple[Answer, ...]]:
    """Return how a row's own answers are read: from the field named, or from `answers` and no other.

    A field called `answer` holds the model's own answer as often as the right one (it does in GSM8K-AI-SubQ's
    recordings), so it is taken only where it is named.
    """
    field = named or "answers"

    def answers(row: Row) -> tuple[Answer, ...]:
        given = row.values.get(field)
        if given is None:
            also = "; if 'answer' holds the right one, say --answers-field answer" if "answer" in row.values else ""
            raise row.error(
                f"no {field!r}: give them in the row, name their field with --answers-field, or the data set that "
                f"holds them with --gold{also}"
            )
        alternatives = given if isinstance(given, list) else [given]
        if not alternatives:
            raise row.error(f"{field!r} is empty")
        return tuple(answer for each in alternatives for answer in _alternatives(row, field, each))

    return answers


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


def _answers_by_index(
    reference: str, columns: Mapping[str, str] | None, fields: Fields
) -> Callable[[Row], tuple[Answer, ...]]:
    """Return the look-up of a row's answers in a data set by the row's index."""
    by_index = {problem.index: problem.answers for problem in iter_problems(reference, columns)}
    field = fields.index or "index"

    def answers(row: Row) -> tuple[Answer, ...]:
        index = row.values.get(field)
        if index is None:
            has = ", ".join(row.values)
            raise row.error(
                f"no field {field!r} to look up in {reference} (the row has {has}): name it with --index-field"
            )
        try:
            return by_index[int(str(index))]
        except (KeyError, ValueError):
            raise row.error(f"{field!r} is {index!r}, which is no row of {reference}") from None

    return answers


def _write(scored: list[ScoredRow], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in scored)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
