"""What a user's own file of questions holds: its delimiter and encoding, and which column is what.

`fractionate init --data` writes down what is found here, so that it can be corrected, and divides the questions into
training and test halves where they come in one file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.datasets.jsonl import Chats, read_answers
from fractionate.errors import UsageError
from fractionate.rows import LONGEST_CELL, list_in, read_rows
from fractionate.scoring.forms import infer_form
from fractionate.types import AnswerForm

USUAL: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem", "input", "query", "prompt", "instruction", "q", "text", "user"),
    "answers": (
        "answers", "answer", "gold", "target", "label", "output", "expected", "expected_answer", "final_answer",
        "correct_answer", "ground_truth", "reference", "response", "completion", "solution", "a",
    ),
    "context": ("context", "passage", "document", "background", "paragraph"),
    "group": ("group", "group_id", "document_id", "doc_id", "passage_id", "conversation_id", "title"),
    "id": ("id", "question_id", "qid", "uid", "uuid"),
}  # fmt: skip
"""Names that columns have in practice, the likeliest first, without case, blanks and dashes."""
DELIMITERS = ",;\t|"
MOST_TEST = 3000
"""Test questions that are set apart at most: about what a margin of 2 points takes."""
_SEEN = 1000
"""Rows that columns are judged by."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file, and how it is written. `delimiter` and `encoding` are "" where the format fixes them."""

    path: Path
    rows: Sequence[Mapping[str, Any]]
    delimiter: str = ""
    encoding: str = ""

    @property
    def reads_as_it_is(self) -> bool:
        """Whether the reader of data files takes it without a copy."""
        suffix = self.path.suffix.lower()
        usual = {".csv": ",", ".tsv": "\t"}.get(suffix, "")
        return suffix != ".txt" and self.delimiter == usual and self.encoding in ("", "UTF-8")


@dataclass(frozen=True, slots=True)
class Layout:
    """Our columns by the file's names, and the form of its answers."""

    columns: Mapping[str, str]
    answer: AnswerForm


def read_table(path: Path) -> Table:
    """Read a data file, a table of text by the delimiter and encoding it turns out to have.

    Raises UsageError for a file that is no table, or holds no row.
    """
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        chats = Chats()
        table = Table(path, [chats.question(row).values for row in read_rows(path)])
    else:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        text, encoding = _decoded(data)
        delimiter = _delimiter(text, path)
        csv.field_size_limit(LONGEST_CELL)
        try:
            parsed = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
            found = [{key: value for key, value in row.items() if key} for row in parsed]
        except csv.Error as error:
            raise UsageError(f"{path}: malformed CSV ({error})") from None
        table = Table(path, [row for row in found if any(row.values())], delimiter, encoding)
    if not table.rows:
        raise UsageError(f"{path} holds no rows: it needs a header and a question with its answer per row")
    return table


def _decoded(data: bytes) -> tuple[str, str]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace"), "UTF-16"
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace"), "Windows-1252"


def _delimiter(text: str, path: Path) -> str:
    """Return the delimiter by which most first rows have the header's number of cells, two or more."""
    head = text[:200_000]

    def alike(delimiter: str) -> tuple[int, int]:
        try:
            rows = [row for row, _ in zip(csv.reader(io.StringIO(head), delimiter=delimiter), range(50), strict=False)]
        except csv.Error:
            return 0, 0
        cells = len(rows[0]) if rows else 0
        return (sum(len(row) == cells for row in rows), cells) if cells > 1 else (0, 0)

    best = max(DELIMITERS, key=alike)
    if alike(best) == (0, 0):
        raise UsageError(f"{path}: no delimiter (one of , ; tab |) divides its first line into columns")
    return best


def find_layout(table: Table, given: Mapping[str, str] | None = None) -> Layout:
    """Return which column is what: `given` ones, else by their names, else the one whose cells are questions.

    Raises UsageError naming the columns where question or answer cannot be told.
    """
    names = list(dict.fromkeys(name for row in table.rows[:_SEEN] for name in row))
    for ours, yours in (given or {}).items():
        if ours not in USUAL or yours not in names:
            what = f"no column {yours!r}" if ours in USUAL else f"{ours!r} is none of {', '.join(USUAL)}"
            raise UsageError(f"{table.path}: {what}; its columns are {', '.join(names)}")
    columns = dict(given or {})
    plain = {re.sub(r"[\s-]+", "_", name.strip()).casefold(): name for name in reversed(names)}
    for ours, usual in USUAL.items():
        free = [plain[name] for name in usual if name in plain and plain[name] not in columns.values()]
        if ours not in columns and free:
            columns[ours] = free[0]
    others = [name for name in names if name not in columns.values()]
    if "question" not in columns:
        asked = [name for name in others if _share_asking(table, name) > 0.5]
        if len(asked) == 1:
            columns["question"] = asked[0]
            others.remove(asked[0])
    if "answers" not in columns and len(others) == 1:
        columns["answers"] = others[0]
    missing = next((ours for ours in ("question", "answers") if ours not in columns), None)
    if missing:
        raise UsageError(
            f"{table.path}: which column holds the {missing.removesuffix('s')} cannot be told (it has "
            f"{', '.join(names)}): add --column {missing}=NAME"
        )
    if "id" in columns and not _are_unique(table, columns["id"]):
        del columns["id"]
    if "group" in columns and _are_unique(table, columns["group"]) and "group" not in (given or {}):
        del columns["group"]
    return Layout(columns, infer_form(_answers(table, columns["answers"])))


def _share_asking(table: Table, name: str) -> float:
    cells = [str(row.get(name) or "") for row in table.rows[:_SEEN]]
    return sum(cell.rstrip().endswith("?") for cell in cells) / len(cells)


def _are_unique(table: Table, name: str) -> bool:
    cells = [row.get(name) for row in table.rows]
    return None not in cells and "" not in cells and len(set(map(str, cells))) == len(cells)


def _answers(table: Table, name: str) -> Iterable[tuple[tuple[str, ...], ...]]:
    for row in table.rows:
        try:
            yield read_answers(list_in(row.get(name)))
        except ValueError:
            continue  # the rows are written, and refused by name, by the one who reads them


def as_rows(table: Table, layout: Layout) -> list[dict[str, Any]]:
    """Return the rows under our names; those without a question or an answer are left out."""
    rows = []
    for number, row in enumerate(table.rows):
        ours = {name: row.get(yours) for name, yours in layout.columns.items()}
        if table.delimiter:
            ours["answers"] = list_in(ours["answers"])
        if str(ours["question"] or "").strip() and ours["answers"] not in (None, "", []):
            history = row.get("history") if isinstance(row.get("history"), list) else None
            named = {"id": f"{table.path.stem}-{number}", **ours, "history": history}
            rows.append({name: value for name, value in named.items() if value not in (None, "", [])})
    return rows


def divide(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Divide rows into training and test halves, at most 3,000 for the test; the same rows are always divided alike.

    Rows of one group, one passage or one question (after the same turns of a chat) stay on one side, so that nothing
    that is tested was learnt.
    """
    units: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        asked = [*(turn["content"] for turn in row.get("history", ())), str(row["question"])]
        shared = row.get("group") or row.get("context") or " ".join(" ".join(asked).casefold().split())
        units.setdefault(str(shared), []).append(row)
    order = sorted(units, key=lambda name: hashlib.sha256(name.encode("utf-8", "replace")).digest())
    wanted = min(MOST_TEST, len(rows) // 2)
    train: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    for name in order:
        (test if len(test) + len(units[name]) <= wanted else train).extend(units[name])
    return train, test
