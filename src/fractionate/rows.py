"""The one reader of rows: JSON lines, JSON, CSV, TSV and Parquet files, told apart by their ending.

Rows come one at a time, each with the place it stands in, so that whatever is wrong with one can be named: questions,
recorded outputs, outputs to score, measured runs and what fractionate itself wrote all come through here.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fractionate.errors import UsageError, missing_extra
from fractionate.types import Turn

LONGEST_CELL = 1 << 24
"""Characters in one cell of a CSV file at most; the standard limit of 131,072 is less than some contexts."""
TEXT_TABLES = (".csv", ".tsv")
"""Files whose cells are text: a list stands in them as JSON."""
LINES = (".jsonl", ".ndjson")
"""Files of JSON lines."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file or hub split. `where` names it in errors ("test.jsonl:12")."""

    values: Mapping[str, Any]
    where: str

    def has(self, *names: str) -> bool:
        """Tell whether any of the fields holds something."""
        return any(self.values.get(name) not in (None, "") for name in names)

    def value(self, *names: str) -> Any:
        """Return the first of the fields that holds something. Raises UsageError when none does."""
        for name in names:
            if self.values.get(name) not in (None, ""):
                return self.values[name]
        raise self.error(f"no {names[0]!r}" + (f" (the row has {', '.join(self.values)})" if self.values else ""))

    def text(self, *names: str) -> str:
        """Return the first of the fields that holds something, which must be text or a number, stripped."""
        value = self.value(*names)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise self.error(f"{names[0]!r} must be text, not {shown(value)}")
        return str(value).strip()

    def texts(self, *names: str) -> tuple[str, ...]:
        """Return a field that must be a list of text."""
        value = self.value(*names)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{names[0]!r} must be a list of strings, not {shown(value)}")
        return tuple(item.strip() for item in value)

    def error(self, reason: str) -> UsageError:
        """Return the error that names this row and what is wrong with it."""
        return UsageError(f"{self.where}: {reason}")


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file by its suffix, in order. Raises UsageError naming file, line and reason.

    JSON lines and JSON hold objects (a .json file a list of them, or an object that holds them by id); in CSV and TSV
    every cell is text. A row's line is the one it begins on; rows of JSON and Parquet are counted from 1.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'} is not read: use {', '.join(READERS)}")
    yield from _read(path, reader)


def read_growing(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines that is being written, or was when its writer died.

    Half a line at its end is passed over. Raises UsageError as `read_rows` does for anything else.
    """
    yield from _read(path, lambda file: _json_lines(file, growing=True))


def at(values: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """Return the value of a field, `missing` where there is none; "a.b.0" is entry 0 of `b` inside `a`.

    A field whose own name holds the dots wins.
    """
    if path in values or "." not in path:
        return values.get(path, missing)
    found: Any = values
    for step in path.split("."):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list | tuple) and step.isdecimal() and len(step) < 10 and int(step) < len(found):
            found = found[int(step)]
        else:
            return missing
    return found


def is_json(line: bytes) -> bool:
    """Whether bytes are a JSON value, whole."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def list_in(cell: Any) -> Any:
    """Return the list that a cell of a table of text writes as JSON; any other value as it is."""
    if not isinstance(cell, str) or not cell.lstrip().startswith("["):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # a bracketed text that is no JSON is text in brackets


def read_turns(value: Any) -> tuple[Turn, ...]:
    """Read chat messages as (role, text) each; content in parts is joined. Raises ValueError with the reason."""
    if not isinstance(value, list):
        raise ValueError(f"a list of messages is wanted, not {kind_of(value)}")
    return tuple(map(_turn, value))


def written_turns(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Return turns as chat messages, the form that `read_turns` reads."""
    return [{"role": role, "content": text} for role, text in turns]


def _turn(message: Any) -> Turn:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if isinstance(part, Mapping) and "text" in part)
    if not isinstance(content, str) or not isinstance(message.get("role"), str):
        raise ValueError('a message has a "role" and a "content" of text')
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in ("system", "user", "assistant"):
        raise ValueError(f'a role is "system", "user" or "assistant", not {role!r}: leave such messages out')
    return role, content.strip()


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words for a message."""
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)


def shown(value: object) -> str:
    """Return a value as Python writes it, cut to what a message can hold."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: Path, reader: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else "is no regular file"
        raise UsageError(f"{path} {what}: check the path")
    try:
        yield from reader(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _json_lines(path: Path, *, growing: bool = False) -> Iterator[Row]:
    # Lines are cut in bytes: str.splitlines would also cut at U+2028 and others that may stand inside a question.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if growing and not raw.endswith(b"\n") and not is_json(raw):
                return
            text = _decoded(path, number, raw)
            if text.strip():
                yield _row(_parsed(path, number, text), f"{path}:{number}")


def _json(path: Path) -> Iterator[Row]:
    table = _parsed(path, 1, _decoded(path, 1, path.read_bytes()))
    if isinstance(table, list):
        for number, record in enumerate(table, start=1):
            yield _row(record, f"{path}:{number}")
    elif isinstance(table, dict) and all(isinstance(record, dict) for record in table.values()):
        for name, record in table.items():
            yield Row(record, f"{path}: {name}")
    else:
        _refuse(path, 1, f"a .json file holds a list of objects, or objects by id, not {kind_of(table)}: use .jsonl "
                         "for one per line")  # fmt: skip


def _csv(path: Path, delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        begun = 1
        try:
            header = next((cells for cells in reader if cells), [])
            _check_header(path, reader.line_num, header)
            begun = reader.line_num + 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    if len(cells) > len(header):
                        _refuse(path, begun, f"{len(cells)} cells, but the header names {len(header)}: quote the cells")
                    yield Row(dict(zip(header, cells, strict=False)), f"{path}:{begun}")
                begun = reader.line_num + 1
        except csv.Error as error:
            _refuse(path, begun, f"malformed CSV ({error})")
        except UnicodeDecodeError as error:
            _refuse(path, begun, f"not UTF-8 at or after this line ({error.reason}): save the file as UTF-8")


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet", f"reading {path.name}") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{path}:{number}")
    except pyarrow.ArrowException as error:
        raise UsageError(f"{path} is not a Parquet file that can be read: {' '.join(str(error).split())}") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(READERS)


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    raise UsageError(f"{path}:{line}: {reason}")


def _check_header(path: Path, line: int, header: list[str]) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        _refuse(path, line, f"the header names the column {twice!r} twice: rename one")


def _decoded(path: Path, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        _refuse(path, line, f"not UTF-8 ({error.reason} at byte {error.start + 1}): save the file as UTF-8")


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = line + error.lineno - 1 if path.suffix.lower() == ".json" else line
        _refuse(path, place, f"malformed JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:
        _refuse(path, line, f"malformed JSON ({error})")


def _row(record: Any, where: str) -> Row:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: a row is an object with named fields, not {kind_of(record)}")
    return Row(record, where)
