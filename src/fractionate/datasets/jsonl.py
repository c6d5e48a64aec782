"""`jsonl`: the user's own questions with known answers, from .jsonl, .json, .csv, .tsv and .parquet files.

A row has a question and an answer, and may have a context, an id, a split, a kind, a group (what it shares with other
rows) and subquestions. A row of chat `messages` is read as a question with its earlier turns (`Chats`). Columns are
found under their usual names (`SYNONYMS`) or those of `data.columns`. A row that cannot be used stops the reading,
naming file, line and reason: a question left out unseen would change every figure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fractionate.datasets.base import Dataset, Reference
from fractionate.errors import UsageError
from fractionate.files import utf8
from fractionate.rows import TEXT_TABLES, Row, kind_of, list_in, read_rows, read_turns, written_turns
from fractionate.scoring.final import extract_final
from fractionate.scoring.metrics import text_score
from fractionate.types import Answer, Problem, Turn

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem", "input", "query"),
    "answers": ("answers", "answer", "gold", "target", "label"),
    "context": ("context", "passage"),
    "id": ("id",),
    "subquestions": ("subquestions",),
    "kind": ("kind",),
    "group": ("group", "conversation_id"),
    "history": ("history",),
}
REQUIRED = ("question", "answers")
LISTS = ("answers", "subquestions")
SPLIT_COLUMN = "split"
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
    """Read a subquestions value: a list of strings, or text with one per line."""
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.splitlines()
    if not isinstance(value, list):
        raise ValueError(f"a list of strings or text with one per line is wanted, not {kind_of(value)}")
    for each in value:
        if not isinstance(each, str):
            raise ValueError(f"a subquestion is a string, not {kind_of(each)}")
    return tuple(_sound(each.strip()) for each in value if each.strip())


class Chats:
    """Reads rows of chat messages as questions, in the order of their file, and tells which belong to one chat."""

    def __init__(self) -> None:
        self._groups: dict[bytes, str] = {}

    def question(self, row: Row) -> Row:
        """Return a row of chat messages as a question: the last thing that the user says, and the turns before it.

        The last message is the answer where the assistant says it and the row has no answer of its own. Rows whose
        turns begin with those of an earlier row are of its group: they were cut out of one chat. Other rows are
        returned as they are. Raises UsageError for messages that hold no question.
        """
        values = row.values
        if "messages" not in values or row.has(*SYNONYMS["question"]):
            return row
        try:
            turns = list(_read_turns(values["messages"]))
        except ValueError as error:
            raise row.error(f"messages: {error}") from None
        answer = [turns.pop()[1]] if turns and turns[-1][0] == "assistant" else []
        if not turns or turns[-1][0] != "user":
            raise row.error("messages: the question is the last message by the user, and there is none")
        found: dict[str, Any] = {"question": turns[-1][1], "history": written_turns(turns[:-1])}
        if answer and not row.has(*SYNONYMS["answers"]):
            found["answers"] = answer
        if not row.has(*SYNONYMS["group"]):
            found["group"] = self._group(turns)
        return Row({**{name: value for name, value in values.items() if name != "messages"}, **found}, row.where)

    def _group(self, turns: Sequence[Turn]) -> str:
        """Return the name of the chat that the turns, the last one by the user, are of."""
        digest, known = hashlib.blake2b(digest_size=16), ""
        for turn in turns:
            digest.update(utf8(repr(turn)))
            if turn[0] == "user":
                known = self._groups.get(digest.digest(), known)
        return self._groups.setdefault(digest.digest(), known or f"chat {len(self._groups) + 1}")


def _read_history(value: Any) -> tuple[Turn, ...]:
    """Read the turns before a question. Text under this name is a column of the user's own, and none of ours."""
    return () if value is None or isinstance(value, str) else _read_turns(value)


def _read_turns(value: Any) -> tuple[Turn, ...]:
    return tuple((role, _sound(text)) for role, text in read_turns(value))


def _spans(value: list[Any]) -> Iterator[str]:
    if not value:
        raise ValueError("an alternative without spans")
    for span in value:
        yield _text(span)


def _alternatives(value: Any) -> tuple[Answer, ...]:
    return tuple((_text(form),) for form in forms_of(value))


def forms_of(value: Any) -> tuple[str, ...]:
    """Return the forms that one answer may be given in, as text: `3.0` is "3", `true` is "yes" or "true".

    Raises ValueError for what is neither a string nor a finite number.
    """
    if isinstance(value, bool):
        return ("yes", "true") if value else ("no", "false")
    return (span_text(value),)


def span_text(value: Any) -> str:
    """Return one span as text, a whole number without a fraction. Raises ValueError as `forms_of` does."""
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
    return value


def _text(value: Any) -> str:
    text = span_text(value)
    if not text.strip():
        raise ValueError("empty")
    return _sound(text.strip())


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
        self.required = REQUIRED if reference.needs_answers else ("question",)
        self.seen: set[str] = set()
        self.chats = Chats()

    def problems(self) -> Iterator[Problem]:
        index = 0
        for row in read_rows(self.path):
            if self.split and not self._is_of_split(row):
                continue
            yield self._problem(self.chats.question(row), index)
            index += 1

    def _problem(self, row: Row, index: int) -> Problem:
        return Problem(
            id=self._id(row, index),
            question=self._read(row, "question", _question, ""),
            answers=self._read(row, "answers", read_answers, ()),
            context=self._read(row, "context", _optional_text, ""),
            dataset="jsonl",
            split=self.split,
            index=index,
            kind=self._read(row, "kind", _optional_text, ""),
            subquestions=self._read(row, "subquestions", read_subquestions, ()),
            group=self._read(row, "group", _optional_text, ""),
            history=self._read(row, "history", _read_history, ()),
        )

    def _read(self, row: Row, ours: str, reader: Callable[[Any], T], default: T) -> T:
        column = self._column(row, ours)
        if column is None:
            return default
        value = list_in(row.values[column]) if self.is_text and ours in LISTS else row.values[column]
        if value in (None, "") and ours == "answers" and ours not in self.required:
            return default
        if ours in self.required and value is None:
            raise row.error(f"{column}: empty")
        try:
            return reader(value)
        except ValueError as error:
            raise row.error(f"{column}: {error}") from None

    def _column(self, row: Row, ours: str) -> str | None:
        """Return the row's name for one of our columns. A mapped or a required one that is missing is refused."""
        wanted = (self.mapped[ours],) if ours in self.mapped else SYNONYMS[ours]
        found = next((name for name in wanted if row.values.get(name) is not None), None)
        if found is None:
            found = next((name for name in wanted if name in row.values), None)
        if found is None and (ours in self.required or ours in self.mapped):
            has = ", ".join(map(str, list(row.values)[:8])) or "nothing"
            fix = f"map yours under [data.columns]: {ours} = …" if ours not in self.mapped else "fix data.columns"
            raise row.error(f"no column {' or '.join(wanted)} (the row has {has}): {fix}")
        return found

    def _id(self, row: Row, index: int) -> str:
        given = self._read(row, "id", _optional_text, "") or f"{self.path.stem}-{index}"
        if given in self.seen:
            raise row.error(f"the id {given!r} stands on an earlier row too: ids are unique")
        self.seen.add(given)
        return given

    def _is_of_split(self, row: Row) -> bool:
        if SPLIT_COLUMN not in row.values:
            raise row.error(f"#{self.split} was asked for, but the row has no column {SPLIT_COLUMN!r}")
        return bool(row.values[SPLIT_COLUMN] == self.split)


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


DATASET = Dataset(
    name="jsonl",
    source="the user's own file",
    licence="the user's own",
    metric="exact_match",
    answer_form="text",
    default_cap=3,
    load=_load,
    extract=extract_final,
    score=text_score,
    default_split="",
)
