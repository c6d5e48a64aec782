"""`recorded:PATH`: replay of recorded outputs, such as a user's logs: a file that `rows` reads, or a folder of them.

A row names its question by `id`, `index` or `question`, and holds a decomposer's output (`decomposition`), a solver's
(`output`), or both; solver rows are matched by the decomposition that they answered. Other field names are mapped
under [models.options."recorded:PATH".format]. A question without a row is an error, never an empty answer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.base import SingleModel
from fractionate.models.tokens import reference_counter
from fractionate.rows import SUFFIXES, Row, read_rows, shown
from fractionate.spool import Places, Spool
from fractionate.types import ROLES, Completion, Origin, Problem, Request, Role, Usage

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "index": ("index",),
    "question": ("question", "problem", "input"),
    "decomposition": ("decomposition", "questions", "subquestions"),
    "output": ("output", "completion", "response", "answers"),
}
_COUNTS = ("input_tokens", "prompt_tokens", "cached_input_tokens", "output_tokens", "completion_tokens")
_REMEMBERED = 8192
"""Questions whose rows stay at hand: a call looks for them several times."""
MOST_TOKENS = 10**9
"""No call reads or writes so many."""
_SAME_QUESTION, _COMPARED = 0.6, 1000
"""Similarity (difflib ratio) of their beginnings, so many characters of them, under which a row found by index is taken
for another question: difflib's time grows with the square of the length."""


@dataclass(frozen=True)
class Recording:
    """One recorded row, its fields under our names."""

    place: str
    identifier: str | None
    index: int | None
    file: str
    role: Role | None
    question: str
    decomposition: str | None
    output: str | None
    sample: int | None
    usage: Mapping[str, int]
    latency_s: float

    def text(self, role: Role) -> str | None:
        """Return what the row holds for a role: None if nothing."""
        if self.role is not None:
            return self.output if self.role == role else None
        return self.decomposition if role == "decomposer" else self.output


_PLAIN = attrgetter(*(field.name for field in fields(Recording)))


def _plain(row: Recording) -> tuple[Any, ...]:
    *others, usage, latency_s = _PLAIN(row)
    return (*others, tuple(usage.items()), latency_s)


def _recording(plain: tuple[Any, ...]) -> Recording:
    *others, usage, latency_s = plain
    values: list[Any] = [*others, dict(usage), latency_s]
    return Recording(*values)


class RecordedModel(SingleModel):
    """A model whose replies were recorded."""

    replays = True

    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = name
        self.style = options.style or "instruct"
        path = Path(name.partition(":")[2])
        files = _files(path)
        self.identity = f"recorded:{_digest(files)}"
        self._names = {
            **_FIELDS,
            **{k: (v,) for k, v in options.format.items()},
        }
        unknown = set(options.format) - set(_FIELDS)
        if unknown:
            raise UsageError(f"{name}: format maps {', '.join(_FIELDS)}, not {sorted(unknown)[0]!r}")
        self._recordings = Spool(_plain, _recording)
        self._by_id, self._by_index, self._by_question = Places(), Places(), Places()
        for file in files:
            self._read(file)
        if not len(self._recordings):
            raise UsageError(f"{path} holds no recorded rows")
        self._rows = lru_cache(_REMEMBERED)(self._rows_of)

    def key(self, request: Request) -> str:
        """Return the store key: the very row that is replayed. Raises UsageError where there is none."""
        row = self._find(request)
        return hashlib.sha256(f"{self.identity}\n{row.place}\n{request.role}".encode()).hexdigest()

    async def complete(self, request: Request) -> Completion:
        """Replay the row. Tokens the row does not report are counted with a tokenizer and flagged."""
        row = self._find(request)
        text = row.text(request.role) or ""
        return Completion(text, usage=_usage(row, request, text), latency_s=row.latency_s)

    def samples(self, problem: Problem, role: Role = "decomposer") -> int:
        """Return how many independent outputs of a role were recorded for a problem."""
        rows = [row for row in self._rows(problem) if row.text(role)]
        return len({row.sample for row in rows}) if any(row.sample is not None for row in rows) else min(len(rows), 1)

    @property
    def counts_tokens_with(self) -> str:
        """The tokenizer that stands in for the one that nobody knows."""
        return f"with {reference_counter()[1]}"

    def _find(self, request: Request) -> Recording:
        origin = request.origin
        if origin is None:
            raise UsageError(f"{self.name} replays outputs for known questions only: it cannot answer a new prompt")
        rows = [row for row in self._rows(origin.problem) if row.text(request.role) is not None]
        matching = rows if request.role == "decomposer" else _answering(rows, origin)
        numbered = [row for row in matching if row.sample == request.sample]
        unnumbered = [row for row in matching if row.sample is None] if request.sample == 0 else []
        found = numbered or unnumbered
        # Two decomposers may have produced the same text and got different recorded answers: each keeps its own.
        stem = Path(origin.decomposer.partition(":")[2]).name
        own = [row for row in found if request.role == "solver" and row.file == stem]
        if not found:
            raise UsageError(self._lacks(request, origin, bool(rows)))
        return (own or found)[0]

    def _rows_of(self, problem: Problem) -> list[Recording]:
        if rows := [row for row in self._at(self._by_id, problem.id) if row.identifier == problem.id]:
            return rows
        if rows := [row for row in self._at(self._by_index, str(problem.index)) if row.index == problem.index]:
            for row in rows:
                if row.question and not _same_question(row.question, problem.question):
                    raise UsageError(
                        f"{row.place}: index {problem.index} is another question than {problem.id}: "
                        "the recorded rows belong to another data set or split"
                    )
            return rows
        asked = _normal(problem.question)
        return [row for row in self._at(self._by_question, asked) if _normal(row.question) == asked]

    def _at(self, places: Places, key: str) -> list[Recording]:
        return [self._recordings[place] for place in places.of(key)]

    def _lacks(self, request: Request, origin: Origin, has_rows: bool) -> str:
        what = f"{self.name} has no {request.role} output for {origin.problem.id}"
        if request.sample:
            asked_by = "run.samples, or run.repeats and run.votes"
            return f"{what}, sample {request.sample + 1}: ask for as many as were recorded ({asked_by})"
        if request.role == "solver" and has_rows:
            given = "these subquestions" if origin.decomposition else "the question alone"
            return f"{what} given {given}: recorded solvers answer only what they were asked; pair them as recorded"
        return f"{what} ({origin.problem.question[:60]!r}): leave the question out of the data or add its row"

    def _read(self, file: Path) -> None:
        for raw in read_rows(file):
            identifier, index = self._field(raw, "id"), _whole(raw, "index", self._field(raw, "index"))
            row = Recording(
                place=raw.where,
                identifier=None if identifier is None else str(identifier),
                index=index,
                file=file.name,
                role=_role(raw),
                question=str(self._field(raw, "question") or ""),
                decomposition=_as_text(self._field(raw, "decomposition")),
                output=_as_text(self._field(raw, "output"), missing="" if self._has(raw, "output") else None),
                sample=_whole(raw, "sample", raw.values.get("sample")),
                usage=_reported(raw),
                latency_s=_seconds(raw),
            )
            if identifier is None and index is None and not row.question:
                raise raw.error("the row names no question: give it an id, an index or the question's text")
            place = len(self._recordings)
            self._recordings.append(row)
            if row.identifier is not None:
                self._by_id.add(row.identifier, place)
            if index is not None:
                self._by_index.add(str(index), place)
            if row.question:
                self._by_question.add(_normal(row.question), place)

    def _field(self, raw: Row, ours: str) -> Any:
        return next((raw.values[name] for name in self._names[ours] if raw.values.get(name) is not None), None)

    def _has(self, raw: Row, ours: str) -> bool:
        return any(name in raw.values for name in self._names[ours])


def _answering(rows: list[Recording], origin: Origin) -> list[Recording]:
    """Keep the solver rows that answered the same decomposition, or none."""
    wanted = _normal(origin.decomposition)
    return [row for row in rows if _normal(row.decomposition or "") == wanted]


def _usage(row: Recording, request: Request, text: str) -> Usage:
    if row.usage:
        return Usage(
            calls=1,
            input_tokens=row.usage.get("input_tokens", row.usage.get("prompt_tokens", 0)),
            cached_input_tokens=row.usage.get("cached_input_tokens", 0),
            output_tokens=row.usage.get("output_tokens", row.usage.get("completion_tokens", 0)),
        )
    count, _ = reference_counter()
    prompt = "\n".join(message.content for message in request.messages)
    return Usage(calls=1, input_tokens=count(prompt), output_tokens=count(text), counted=1)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise UsageError(f"recorded:{path} is a folder without a file of recorded outputs ({', '.join(SUFFIXES)})")
        return files
    if not path.is_file():
        raise UsageError(f"recorded:{path} is not there: name a file of recorded outputs, or their folder")
    return [path]


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _role(raw: Row) -> Role | None:
    value = raw.values.get("role")
    if value in (None, ""):
        return None
    for role in ROLES:
        if value == role:
            return role
    raise raw.error(f"role is 'decomposer' or 'solver', not {shown(value)}")


def _whole(raw: Row, name: str, value: Any) -> int | None:
    """Return a whole number, which a CSV cell writes as text; None where the row has none."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
        if isinstance(value, bool) or not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise raw.error(f"{name!r} must be a whole number, not {shown(value)}") from None
    return int(value) if isinstance(value, int) else int(number)


def _reported(raw: Row) -> Mapping[str, int]:
    """Return a row's usage as token counts by name: an object, or in a table of text one written as JSON."""
    usage = raw.values.get("usage")
    if isinstance(usage, str) and usage.strip():
        try:
            usage = json.loads(usage)
        except (ValueError, RecursionError):
            raise raw.error(f"'usage' must be an object of token counts, not {shown(usage)}") from None
    if usage in (None, "", {}):
        return {}
    if not isinstance(usage, dict):
        raise raw.error(f"'usage' must be an object of token counts, not {shown(usage)}")
    return {name: _tokens(raw, name, usage[name]) for name in _COUNTS if usage.get(name) is not None}


def _tokens(raw: Row, name: str, value: Any) -> int:
    count = _whole(raw, name, value) or 0
    if not 0 <= count < MOST_TOKENS:
        raise raw.error(f"{name!r} must be a number of tokens, not {shown(value)}")
    return count


def _seconds(raw: Row) -> float:
    value = raw.values.get("latency_s")
    try:
        seconds = float(value) if value not in (None, "") else 0.0
    except (TypeError, ValueError):
        raise raw.error(f"'latency_s' must be seconds, not {shown(value)}") from None
    return seconds if 0 <= seconds < float("inf") else 0.0


def _as_text(value: Any, missing: str | None = None) -> str | None:
    if value is None:
        return missing
    if isinstance(value, list):
        return "\n".join(f"{number}. {item}" for number, item in enumerate(value, 1))
    return str(value)


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _same_question(recorded: str, ours: str) -> bool:
    left, right = _normal(recorded), _normal(ours)
    if left == right:
        return True
    return difflib.SequenceMatcher(None, left[:_COMPARED], right[:_COMPARED]).ratio() >= _SAME_QUESTION
