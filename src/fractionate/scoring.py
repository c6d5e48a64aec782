"""Score recorded outputs as a data set does: the plain function behind `fractionate score`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from fractionate.datasets import get, iter_problems
from fractionate.datasets.base import Dataset
from fractionate.datasets.hub import Row, read_file
from fractionate.errors import FractionateError, UsageError
from fractionate.types import Answer, Score


class Summary(TypedDict):
    """What a file scored: rows, means over all rows (0 to 1), and the share of rows without an answer to score."""

    n: int
    exact_match: float
    f1: float
    unextracted: float


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row: its answer (None when there is none), its score, and whether there was an answer to score."""

    prediction: Answer | None
    score: Score
    extracted: bool

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


def score_file(
    path: Path, dataset_name: str, rows_out: Path | None = None, *, gold: str = "", output_field: str = ""
) -> Summary:
    """Score every row of a JSONL or CSV file as a data set does, and write the scored rows to `rows_out` where given.

    A row holds `output` (a model's raw text; null counts as unextracted) or `prediction` (already extracted: a string,
    or a list of spans), and `answers` (alternatives, each a string or a list of spans) or a single `answer`.
    `output_field` names another field with the raw text. `gold` is a data reference ("gsm8k:test.jsonl"): then the
    answers are those of the problem that the row's `index` names. In CSV, a cell that begins with "[" is read as JSON.

    Nothing is written before every row was read. Raises UsageError with file, line and reason for a row that cannot be
    scored, FractionateError when `rows_out` cannot be written.
    """
    dataset = get(dataset_name)
    answers_of = _answers_by_index(gold) if gold else _answers_in_row
    scored = [_score_row(row, dataset, answers_of, output_field) for row in _rows(path)]
    if not scored:
        raise UsageError(f"{path} has no rows to score")
    if rows_out is not None:
        _write(scored, rows_out)
    return summarize(scored)


def summarize(scored: list[ScoredRow]) -> Summary:
    """Return the means of at least one scored row."""
    n = len(scored)
    return {
        "n": n,
        "exact_match": sum(row.score.exact_match for row in scored) / n,
        "f1": sum(row.score.f1 for row in scored) / n,
        "unextracted": sum(not row.extracted for row in scored) / n,
    }


def _rows(path: Path) -> Iterator[Row]:
    for row in read_file(path):
        yield Row(_unfolded(row), row.where) if path.suffix.lower() in (".csv", ".tsv") else row


def _unfolded(row: Row) -> dict[str, Any]:
    """Read the cells of a CSV row that hold lists."""
    values = dict(row.values)
    for name in ("answers", "answer", "prediction"):
        cell = values.get(name)
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            try:
                values[name] = json.loads(cell)
            except ValueError:
                # A bracketed text that is no JSON is an answer in brackets.
                continue
    return values


def _score_row(
    row: Row, dataset: Dataset, answers_of: Callable[[Row], tuple[Answer, ...]], output_field: str
) -> ScoredRow:
    prediction = _prediction(row, dataset, output_field)
    extracted = prediction is not None and any(span.strip() for span in prediction)
    return ScoredRow(prediction, dataset.score(prediction, answers_of(row)), extracted)


def _prediction(row: Row, dataset: Dataset, output_field: str) -> Answer | None:
    field = output_field or "output"
    if field in row.values:
        output = row.values[field]
        if output is not None and not isinstance(output, str):
            raise row.error(f"{field!r} must be a string or null, not {_kind(output)}")
        return dataset.extract(output) if output is not None else None
    if output_field:
        raise row.error(f"no field {output_field!r}: it has {', '.join(row.values)}")
    if "prediction" not in row.values:
        raise row.error("neither 'output' nor 'prediction': name the field with --output-field")
    prediction = row.values["prediction"]
    return None if prediction is None else _answer(row, "prediction", prediction)


def _answers_in_row(row: Row) -> tuple[Answer, ...]:
    if row.values.get("answers") is not None:
        given = row.values["answers"]
        alternatives = given if isinstance(given, list) else [given]
    elif row.values.get("answer") is not None:
        alternatives = [row.values["answer"]]
    else:
        raise row.error("no 'answers': give them in the row, or name the data set that holds them with --gold")
    if not alternatives:
        raise row.error("'answers' is empty")
    return tuple(_answer(row, "answers", alternative) for alternative in alternatives)


def _answer(row: Row, name: str, value: object) -> Answer:
    """Return one answer: a string or number is one span, a list is several."""
    spans = value if isinstance(value, list) else [value]
    for span in spans:
        if not isinstance(span, str | int | float | bool):
            raise row.error(f"{name!r} must hold strings or lists of strings, not {_kind(span)}")
    return tuple(span if isinstance(span, str) else json.dumps(span) for span in spans)


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", type(None): "null", bool: "true or false"}.get(type(value), "a number")


def _answers_by_index(reference: str) -> Callable[[Row], tuple[Answer, ...]]:
    """Return the look-up of a row's answers in a data set by the row's `index`."""
    by_index = {problem.index: problem.answers for problem in iter_problems(reference)}

    def answers(row: Row) -> tuple[Answer, ...]:
        index = row.values.get("index")
        try:
            return by_index[int(str(index))]
        except (KeyError, ValueError):
            raise row.error(f"'index' is {index!r}, which is no row of {reference}") from None

    return answers


def _write(scored: list[ScoredRow], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in scored)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
