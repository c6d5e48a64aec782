"""`recorded:PATH`: replay of recorded outputs (a JSONL or CSV file, or a folder of them), such as a user's logs.

A row names its question by `id`, `index` or `question`, and holds a decomposer's output (`decomposition`), a solver's
(`output`), or both; solver rows are matched by the decomposition that they answered. Other field names are mapped
under [models.options."recorded:PATH".format]. A question without a row is an error, never an empty answer.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.base import Style
from fractionate.types import ROLES, Completion, Origin, Problem, Request, Role, Usage

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "index": ("index",),
    "question": ("question", "problem", "input"),
    "decomposition": ("decomposition", "questions", "subquestions"),
    "output": ("output", "completion", "response", "answers"),
}
_SAME_QUESTION = 0.6
"""Similarity (difflib ratio) under which a row found by index is taken for another question."""


@dataclass(frozen=True)
class Row:
    """One recorded row, its fields under our names."""

    place: str
    file: str
    role: Role | None
    question: str
    decomposition: str | None
    output: str | None
    sample: int | None
    usage: Mapping[str, Any]
    latency_s: float

    def text(self, role: Role) -> str | None:
        """Return what the row holds for a role: None if nothing."""
        if self.role is not None:
            return self.output if self.role == role else None
        return self.decomposition if role == "decomposer" else self.output


class RecordedModel:
    """A model whose replies were recorded."""

    paid = False

    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = name
        self.style: Style = options.style or "instruct"
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
        self._by_id: dict[str, list[Row]] = {}
        self._by_index: dict[int, list[Row]] = {}
        self._by_question: dict[str, list[Row]] = {}
        for file in files:
            self._read(file)
        if not (self._by_id or self._by_index or self._by_question):
            raise UsageError(f"{path} holds no recorded rows")

    def key(self, request: Request) -> str:
        """Return the store key: the very row that is replayed. Raises UsageError where there is none."""
        row = self._find(request)
        return hashlib.sha256(f"{self.identity}\n{row.place}\n{request.role}".encode()).hexdigest()

    async def complete(self, request: Request) -> Completion:
        """Replay the row. Tokens the row does not report are counted with a tokenizer and flagged."""
        row = self._find(request)
        text = row.text(request.role) or ""
        return Completion(text, usage=_usage(row, request, text), latency_s=row.latency_s)

    async def close(self) -> None:
        """Nothing is held."""

    def samples(self, problem: Problem) -> int:
        """Return how many independent decompositions of a problem were recorded."""
        rows = [row for row in self._rows(problem) if row.text("decomposer")]
        return len({row.sample for row in rows}) if any(row.sample is not None for row in rows) else min(len(rows), 1)

    def _find(self, request: Request) -> Row:
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

    def _rows(self, problem: Problem) -> list[Row]:
        if rows := self._by_id.get(problem.id):
            return rows
        if rows := self._by_index.get(problem.index):
            for row in rows:
                if row.question and not _same_question(row.question, problem.question):
                    raise UsageError(
                        f"{row.place}: index {problem.index} is another question than {problem.id}: "
                        "the recorded rows belong to another data set or split"
                    )
            return rows
        return self._by_question.get(_normal(problem.question), [])

    def _lacks(self, request: Request, origin: Origin, has_rows: bool) -> str:
        what = f"{self.name} has no {request.role} output for {origin.problem.id}"
        if request.sample:
            return f"{what}, sample {request.sample + 1}: set run.samples to the number of recorded ones"
        if request.role == "solver" and has_rows:
            given = "these subquestions" if origin.decomposition else "the question alone"
            return f"{what} given {given}: recorded solvers answer only what they were asked; pair them as recorded"
        return f"{what} ({origin.problem.question[:60]!r}): leave the question out of the data or add its row"

    def _read(self, file: Path) -> None:
        for place, raw in _raw_rows(file):
            row = Row(
                place=place,
                file=file.name,
                role=_role(raw.get("role"), place),
                question=str(self._field(raw, "question") or ""),
                decomposition=_as_text(self._field(raw, "decomposition")),
                output=_as_text(self._field(raw, "output"), missing="" if self._has(raw, "output") else None),
                sample=int(raw["sample"]) if raw.get("sample") not in (None, "") else None,
                usage=raw.get("usage") or {},
                latency_s=float(raw.get("latency_s") or 0.0),
            )
            identifier, index = self._field(raw, "id"), self._field(raw, "index")
            if identifier is None and index is None and not row.question:
                raise UsageError(f"{place}: the row names no question: give it an id, an index or the question's text")
            if identifier is not None:
                self._by_id.setdefault(str(identifier), []).append(row)
            if index is not None:
                self._by_index.setdefault(int(index), []).append(row)
            if row.question:
                self._by_question.setdefault(_normal(row.question), []).append(row)

    def _field(self, raw: Mapping[str, Any], ours: str) -> Any:
        return next((raw[name] for name in self._names[ours] if raw.get(name) is not None), None)

    def _has(self, raw: Mapping[str, Any], ours: str) -> bool:
        return any(name in raw for name in self._names[ours])


def _answering(rows: list[Row], origin: Origin) -> list[Row]:
    """Keep the solver rows that answered the same decomposition, or none."""
    wanted = _normal(origin.decomposition)
    return [row for row in rows if _normal(row.decomposition or "") == wanted]


def _usage(row: Row, request: Request, text: str) -> Usage:
    if row.usage:
        return Usage(
            calls=1,
            input_tokens=int(row.usage.get("input_tokens", row.usage.get("prompt_tokens", 0))),
            cached_input_tokens=int(row.usage.get("cached_input_tokens", 0)),
            output_tokens=int(row.usage.get("output_tokens", row.usage.get("completion_tokens", 0))),
        )
    from fractionate.models.tokens import reference_counter

    count, _ = reference_counter()
    prompt = "\n".join(message.content for message in request.messages)
    return Usage(calls=1, input_tokens=count(prompt), output_tokens=count(text), counted=1)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in {".jsonl", ".csv"})
        if not files:
            raise UsageError(f"recorded:{path} is a folder without .jsonl or .csv files")
        return files
    if not path.is_file():
        raise UsageError(
            f"recorded:{path} is not there: name a .jsonl or .csv file of recorded outputs, or their folder"
        )
    return [path]


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _raw_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    if file.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            yield f"{file}:{number}", dict(row)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{file}:{number}: not valid JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{file}:{number}: a recorded row is a JSON object, not {type(row).__name__}")
        yield f"{file}:{number}", row


def _role(value: Any, place: str) -> Role | None:
    if value in (None, ""):
        return None
    for role in ROLES:
        if value == role:
            return role
    raise UsageError(f"{place}: role is 'decomposer' or 'solver', not {value!r}")


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
    return left == right or difflib.SequenceMatcher(None, left, right).ratio() >= _SAME_QUESTION
