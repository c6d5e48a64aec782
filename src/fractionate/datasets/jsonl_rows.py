"""Rows of the user's files, one at a time: JSON lines, JSON, CSV, TSV, Parquet. What cannot be read names its line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from fractionate.errors import UsageError, missing_extra

Row: TypeAlias = tuple[int, dict[str, Any]]
"""The line (JSON lines, CSV, TSV) or the row (JSON, Parquet) a record begins on, counted from 1, and its fields."""

LONGEST_CELL = 1 << 24
"""Characters in one cell of a CSV file at most; the standard limit of 131,072 is less than some contexts."""


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file by its suffix. Raises UsageError naming file, line and reason."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: {path.suffix or 'no suffix'} is not read: use {', '.join(READERS)}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path} {what}: check the path in the data reference")
    try:
        yield from reader(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def refuse(path: Path, line: int, reason: str) -> NoReturn:
    """Raise the error of a row that cannot be used."""
    raise UsageError(f"{path}:{line}: {reason}")


def _json_lines(path: Path) -> Iterator[Row]:
    # Lines are cut in bytes: str.splitlines would also cut at U+2028 and others that may stand inside a question.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            text = _decoded(path, number, raw)
            if text.strip():
                yield number, _record(path, number, _parsed(path, number, text))


def _json(path: Path) -> Iterator[Row]:
    records = _parsed(path, 1, _decoded(path, 1, path.read_bytes()))
    if not isinstance(records, list):
        refuse(path, 1, f"a .json file holds one list of objects, not {kind_of(records)}: use .jsonl for one a line")
    for number, record in enumerate(records, start=1):
        yield number, _record(path, number, record)


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
                        refuse(path, begun, f"{len(cells)} cells, but the header names {len(header)}: quote the cells")
                    yield begun, dict(zip(header, cells, strict=False))
                begun = reader.line_num + 1
        except csv.Error as error:
            refuse(path, begun, f"malformed CSV ({error})")
        except UnicodeDecodeError as error:
            refuse(path, begun, f"not UTF-8 at or after this line ({error.reason}): save the file as UTF-8")


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
                    yield number, record
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


def _check_header(path: Path, line: int, header: list[str]) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        refuse(path, line, f"the header names the column {twice!r} twice: rename one")


def _decoded(path: Path, line: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        refuse(path, line, f"not UTF-8 ({error.reason} at byte {error.start + 1}): save the file as UTF-8")


def _parsed(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        place = line + error.lineno - 1 if path.suffix.lower() == ".json" else line
        refuse(path, place, f"malformed JSON ({error.msg} at column {error.colno})")
    except (ValueError, RecursionError) as error:
        refuse(path, line, f"malformed JSON ({error})")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _record(path: Path, line: int, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        refuse(path, line, f"a row is an object with named fields, not {kind_of(record)}")
    return record


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words for a message."""
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)
