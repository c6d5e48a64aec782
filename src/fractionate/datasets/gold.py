"""The right answers of recorded outputs, from a data set: rows are matched to its questions by the value of a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.datasets import iter_problems
from fractionate.datasets.reference import parse_reference, resolve
from fractionate.errors import UsageError
from fractionate.rows import SUFFIXES, Row, at, read_rows
from fractionate.types import Problem

FIELDS = ("index", "id")
"""The fields that rows are matched by where none is named, the first that any row has."""


@dataclass(frozen=True)
class Gold:
    """The questions of a data reference by the value that rows name them by.

    `field` is the field of the rows; `by_position` says that its value is the question's position in the data (from 0)
    and not a value that the data themselves hold.
    """

    reference: str
    field: str
    by_position: bool
    problems: Mapping[str, Problem]

    def described(self) -> str:
        """Return in words how rows are matched."""
        return f"{self.field!r}" + (", as the position of the question (from 0)" if self.by_position else "")

    def key(self, row: Row) -> str:
        """Return what a row names its question by. Raises UsageError where it does not."""
        value = at(row.values, self.field)
        if value is None or value == "":
            has = ", ".join(map(str, row.values))
            raise row.error(
                f"no field {self.field!r} to look up in {self.reference} (the row has {has}): "
                "name it with --index-field"
            )
        return key_of(value)


def find_gold(reference: str, columns: Mapping[str, str] | None, field: str, rows: Sequence[Row]) -> Gold:
    """Return the questions of a data reference by what the rows' `field` holds ("" for the first usual one there is).

    A field that the data have too matches by its value there. Else values are looked for among the questions' ids,
    unless the field is `index`; and where none is an id, values are positions in the data, from 0. Raises UsageError
    where the reference cannot be read, a value names several questions, or no row names any.
    """
    field = field or next((name for name in FIELDS if any(at(row.values, name) is not None for row in rows)), "index")
    problems, keys, by_position = _keyed(reference, columns, field, rows)
    found: dict[str, Problem] = {}
    for key, problem in zip(keys, problems, strict=True):
        if key in found:
            raise UsageError(
                f"{reference}: {field!r} is {key!r} for the questions {found[key].id!r} and {problem.id!r}: "
                "name a field of unique values with --index-field"
            )
        found[key] = problem
    gold = Gold(reference, field, by_position, found)
    if rows and not any(gold.key(row) in found for row in rows):
        first, example = rows[0], next(iter(found), "")
        raise first.error(
            f"{field!r} is {at(first.values, field)!r}, which is no row of {reference}, and no other row matches "
            f"either (the first there is {example!r}): name the field that both share with --index-field"
        )
    return gold


def key_of(value: Any) -> str:
    """Return a value as text in which 12, 12.0 and "12" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _keyed(
    reference: str, columns: Mapping[str, str] | None, field: str, rows: Sequence[Row]
) -> tuple[list[Problem], list[str], bool]:
    """Return the questions, the key of each, and whether keys are positions."""
    parsed = parse_reference(reference, columns)
    path = Path(resolve(parsed, None).path) if parsed.path else None
    raw = path if path is not None and path.is_file() and path.suffix.lower() in SUFFIXES else None
    if raw is not None and parsed.name == "jsonl":
        first = next(read_rows(raw), None)
        if first is not None and at(first.values, field) is not None:
            # The reader of such files refuses ids that are given twice, and names the line.
            problems = list(iter_problems(reference, {**(columns or {}), "id": field}))
            return problems, [key_of(problem.id) for problem in problems], False
    problems = list(iter_problems(reference, columns))
    if raw is not None and (held := _held(raw, field, problems)):
        return problems, held, False
    ids = {key_of(problem.id) for problem in problems}
    if field != "index" and any(key_of(at(row.values, field)) in ids for row in rows):
        return problems, [key_of(problem.id) for problem in problems], False
    return problems, [str(problem.index) for problem in problems], True


def _held(path: Path, field: str, problems: Sequence[Problem]) -> list[str]:
    """Return the value of a field in the file's own row of each question; [] where rows and questions are not one."""
    rows = list(read_rows(path))
    keys = []
    for problem in problems:
        values = rows[problem.index].values if problem.index < len(rows) else {}
        value = at(values, field)
        texts = {" ".join(text.split()) for text in values.values() if isinstance(text, str)}
        if value is None or " ".join(problem.question.split()) not in texts:
            return []
        keys.append(key_of(value))
    return keys
