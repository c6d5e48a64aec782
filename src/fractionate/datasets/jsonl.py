"""`jsonl`: the user's own questions with known answers, from .jsonl, .json, .csv, .tsv and .parquet files.

A row has a question and an answer, and may have a context, an id, a split, a kind and subquestions. Columns are found
under their usual names (`SYNONYMS`) or those of `data.columns`. A row that cannot be used stops the reading, naming
file, line and reason: a question left out unseen would change every figure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.jsonl_rows import kind_of, read_rows, refuse
from fractionate.errors import UsageError
from fractionate.types import Answer, Problem, Score

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem", "input", "query"),
    "answers": ("answers", "answer", "gold", "target", "label"),
    "context": ("context", "passage"),
    "id": ("id",),
    "subquestions": ("subquestions",),
    "kind": ("kind",),
}
REQUIRED = ("question", "answers")
LISTS = ("answers", "subquestions")
SPLIT_COLUMN = "split"
TEXT_TABLES = (".csv", ".tsv")
"""Files whose cells are text: a list of answers or subquestions stands in them as JSON."""
T = TypeVar("T")


def read_answers(value: Any) -> tuple[Answer, ...]:
    """Read an answers value; raises ValueError with the reason when it is none.

    A string or number is the answer; a list of strings or numbers its alternatives; a list of lists alternatives of
    several spans. true and false also stand for yes and no.
    """
    if not isinstance(value, list):
        return _alternatives(value)
    if not value:
        raise ValueError("the list of answers is empty")
    found = [
        answer
        for each in value
        for answer in ([tuple(_spans(each))] if isinstance(each, list) else _alternatives(each))
    ]
    return tuple(dict.fromkeys(found))


def read_subquestions(value: Any) -> tuple[str, ...]:
    """Read a subquestions value: a list of strings, or text with one a line."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.splitlines()
    if not isinstance(value, list):
        raise ValueError(f"a list of strings or text with one a line is wanted, not {kind_of(value)}")
    for each in value:
        if not isinstance(each, str):
            raise ValueError(f"a subquestion is a string, not {kind_of(each)}")
    return tuple(_sound(each.strip()) for each in value if each.strip())


def _cell(value: Any) -> Any:
    """Return what a cell of a table of text holds: the list that it writes as JSON, else the text itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _spans(value: list[Any]) -> Iterator[str]:
    if not value:
        raise ValueError("an alternative without spans")
    for span in value:
        yield _text(span)


def _alternatives(value: Any) -> tuple[Answer, ...]:
    if isinstance(value, bool):
        return (("yes",), ("true",)) if value else (("no",), ("false",))
    return ((_text(value),),)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no answer")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"a string, a number or a list of these is wanted, not {kind_of(value)}")
    if not value.strip():
        raise ValueError("empty")
    return _sound(value.strip())


def _sound(text: str) -> str:
    """Return text that can be written down again; a lone surrogate (a broken \\u escape) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a broken \\u escape: half of a surrogate pair") from None
    return text


class _Reading:
    """One pass over a file: which columns it has, and which ids have been seen."""

    def __init__(self, reference: Reference) -> None:
        if not reference.path:
            raise UsageError(f"{reference.text!r} names no file: write jsonl:PATH")
        self.path = Path(reference.path)
        self.split = reference.split
        self.is_text = self.path.suffix.lower() in TEXT_TABLES
        self.mapped = reference.columns
        self.seen: set[str] = set()

    def problems(self) -> Iterator[Problem]:
        index = 0
        for line, row in read_rows(self.path):
            if self.split and not self._is_of_split(line, row):
                continue
            yield self._problem(line, row, index)
            index += 1

    def _problem(self, line: int, row: dict[str, Any], index: int) -> Problem:
        return Problem(
            id=self._id(line, row, index),
            question=self._read(line, row, "question", _question, ""),
            answers=self._read(line, row, "answers", read_answers, ()),
            context=self._read(line, row, "context", _optional_text, ""),
            dataset="jsonl",
            split=self.split,
            index=index,
            kind=self._read(line, row, "kind", _optional_text, ""),
            subquestions=self._read(line, row, "subquestions", read_subquestions, ()),
        )

    def _read(self, line: int, row: dict[str, Any], ours: str, reader: Callable[[Any], T], default: T) -> T:
        column = self._column(line, row, ours)
        if column is None:
            return default
        value = _cell(row[column]) if self.is_text and ours in LISTS else row[column]
        if ours in REQUIRED and value is None:
            refuse(self.path, line, f"{column}: empty")
        try:
            return reader(value)
        except ValueError as error:
            refuse(self.path, line, f"{column}: {error}")

    def _column(self, line: int, row: dict[str, Any], ours: str) -> str | None:
        """Return the row's name for one of our columns. A mapped or a required one that is missing is refused."""
        wanted = (self.mapped[ours],) if ours in self.mapped else SYNONYMS[ours]
        found = next((name for name in wanted if row.get(name) is not None), None)
        if found is None:
            found = next((name for name in wanted if name in row), None)
        if found is None and (ours in REQUIRED or ours in self.mapped):
            has = ", ".join(map(str, list(row)[:8])) or "nothing"
            mend = f"map yours under [data.columns]: {ours} = …" if ours not in self.mapped else "mend data.columns"
            refuse(self.path, line, f"no column {' or '.join(wanted)} (the row has {has}): {mend}")
        return found

    def _id(self, line: int, row: dict[str, Any], index: int) -> str:
        given = self._read(line, row, "id", _optional_text, "") or f"{self.path.stem}-{index}"
        if given in self.seen:
            refuse(self.path, line, f"the id {given!r} stands on an earlier row too: ids are unique")
        self.seen.add(given)
        return given

    def _is_of_split(self, line: int, row: dict[str, Any]) -> bool:
        if SPLIT_COLUMN not in row:
            refuse(self.path, line, f"#{self.split} was asked for, but the row has no column {SPLIT_COLUMN!r}")
        return bool(row[SPLIT_COLUMN] == self.split)


def _question(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a question is a string, not {kind_of(value)}")
    return _text(value)


def _optional_text(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    return _text(value)


def _load(reference: Reference) -> Iterator[Problem]:
    return _Reading(reference).problems()


def _extract(output: str) -> Answer | None:
    from fractionate.datasets.text import extract_final

    return extract_final(output)


def _score(prediction: Answer | None, answers: Sequence[Answer]) -> Score:
    from fractionate.datasets.metrics import text_score

    return text_score(prediction, answers)


DATASET = Dataset(
    name="jsonl",
    source="the user's own file",
    licence="the user's own",
    metric="exact_match",
    answer_form="text",
    default_cap=3,
    load=_load,
    extract=_extract,
    score=_score,
    default_split="",
)
