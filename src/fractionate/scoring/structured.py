"""Reads and scores outputs that hold a structure: JSON by its fields and schema, SQL queries by their rows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fractionate.databases import Database, QueryError, Rows
from fractionate.errors import UsageError, shortened
from fractionate.scoring.forms import read_whole
from fractionate.scoring.metrics import ONE, ZERO
from fractionate.types import Answer, Score

_FENCED = re.compile(r"```[ \t]*(\w*)[ \t]*\n(.*?)```", re.DOTALL)


def read_json(output: str) -> Answer | None:
    """Return the last JSON object or array of an output as canonical JSON: a fenced one first, else where it stands."""
    said = whole(output)
    for text in (*(match[2] for match in reversed(list(_FENCED.finditer(said)))), said):
        if (found := _last_json(text)) is not None:
            return (found,)
    return None


def _last_json(text: str) -> str | None:
    decoder, place, last = json.JSONDecoder(), 0, None
    while (start := min((at for at in (text.find("{", place), text.find("[", place)) if at >= 0), default=-1)) >= 0:
        try:
            value, place = decoder.raw_decode(text, start)
            last = json.dumps(value, ensure_ascii=False, sort_keys=True)
        except (ValueError, RecursionError):
            place = start + 1
    return last


@dataclass(frozen=True)
class SameFields:
    """Scores JSON: exact match where all fields agree (and the schema holds), F1 is the share of them that do."""

    fields: tuple[str, ...] = ()
    schema: str = ""
    """The JSON Schema as JSON."""

    def __call__(self, prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        """Return the score against the best alternative; no prediction scores 0."""
        if prediction is None or not prediction or not answers:
            return ZERO
        value = _parsed(prediction[0])
        if value is _NO_JSON or not self._is_valid(value):
            return ZERO
        return max(self._against(value, answer) for answer in answers)

    def _against(self, value: Any, answer: Answer) -> Score:
        gold = _parsed(answer[0]) if answer else _NO_JSON
        if gold is _NO_JSON:
            said = shortened(repr(answer[0] if answer else ""), 60)
            raise UsageError(f'the known answer {said} is no JSON: the scorer "json" compares JSON')
        names = self.fields or (tuple(gold) if isinstance(gold, dict) else ())
        if not names:
            return ONE if _same_json(value, gold) else ZERO
        agree = [_same_json(_inside(value, name), _inside(gold, name)) for name in names]
        return Score(float(all(agree)), sum(agree) / len(agree))

    def _is_valid(self, value: Any) -> bool:
        return not self.schema or bool(_validator(self.schema).is_valid(value))


_NO_JSON = object()
_ABSENT = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, dict) and name in value:
        return value[name]
    for part in name.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return _ABSENT
    return value


def _same_json(one: Any, other: Any) -> bool:
    """Compare as JSON: 1 and 1.0 are one number, true is not 1, texts are compared without case and outer space."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return one.strip().casefold() == other.strip().casefold()
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return one is not _ABSENT and type(one) in (int, float, type(None)) and one == other


@lru_cache(maxsize=16)
def _validator(schema: str) -> Any:
    import jsonschema

    table = json.loads(schema)
    kind = jsonschema.validators.validator_for(table, default=jsonschema.Draft202012Validator)
    return kind(table)


_QUERY = re.compile(r"\b(?:WITH|SELECT)\b.*", re.IGNORECASE | re.DOTALL)
_ORDERED = re.compile(r"\bORDER\s+BY\b", re.IGNORECASE)
MOST_ROWS = 100_000
"""Rows of a result that are compared; a query with more is wrong unless the known one has as many."""


def read_query(output: str) -> Answer | None:
    """Return the last SQL query of an output: of its last fenced block, else from the last line that begins one."""
    said = whole(output)
    for match in reversed(list(_FENCED.finditer(said))):
        if query := _QUERY.search(match[2]):
            return (query[0].strip().rstrip(";").strip(),)
    starts = [match.start() for match in re.finditer(r"(?im)^[ \t>]*(?:WITH|SELECT)\b", said)]
    query = _QUERY.search(said, starts[-1] if starts else 0)
    if query is None:
        return None
    return (query[0].partition("\n\n")[0].partition(";")[0].strip(),)


@dataclass(frozen=True)
class SameRows:
    """Scores a query by its rows: 1 where they are those of a known query, or of a known list of rows as JSON.

    Columns are compared by position. The order of rows counts where `ordered` says so (None: where the known query has
    ORDER BY).
    """

    database: Database
    ordered: bool | None
    seconds: float
    _known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, prediction: Answer | None, answers: Sequence[Answer]) -> Score:
        """Return the score against the best alternative; no prediction scores 0."""
        if not prediction:
            return ZERO
        try:
            rows = self._rows(prediction[0])
        except QueryError:
            return ZERO
        return ONE if any(self._same(rows, answer[0]) for answer in answers if answer) else ZERO

    def _same(self, rows: Sequence[tuple[Any, ...]], gold: str) -> bool:
        if gold not in self._known:
            self._known[gold] = self._gold_rows(gold)
        wanted = self._known[gold]
        ordered = _ORDERED.search(gold) is not None if self.ordered is None else self.ordered
        if len(rows) != len(wanted):
            return False
        return bool(rows == wanted if ordered else sorted(rows, key=repr) == sorted(wanted, key=repr))

    def _gold_rows(self, gold: str) -> list[tuple[Any, ...]]:
        given = _parsed(gold)
        if isinstance(given, list):
            return [tuple(map(_plain, row)) if isinstance(row, list) else (_plain(row),) for row in given]
        try:
            return self._rows(gold)
        except QueryError as error:
            raise UsageError(
                f"the known query {shortened(repr(gold), 80)} fails on {self.database.path}: {error}"
            ) from None

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        def take(names: list[str], rows: Rows) -> list[tuple[Any, ...]]:
            found = []
            for row in rows:
                found.append(tuple(map(_plain, row)))
                if len(found) > MOST_ROWS:
                    break
            return found

        return self.database.query(query, {}, self.seconds, take)


def _plain(value: Any) -> Any:
    """Return a cell as it is compared: 1 and 1.0 are one, floats to nine digits, all else as text."""
    if value is None:
        return None
    if isinstance(value, int | float) or type(value).__name__ == "Decimal":
        return float(f"{float(value):.9g}")
    return str(value)


def whole(output: str) -> str:
    """Return an output without what a model thinks aloud; "" where nothing is left."""
    found = read_whole(output)
    return found[0] if found else ""
