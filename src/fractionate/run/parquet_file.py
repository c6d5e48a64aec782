"""Parquet files, a group of rows at a time: written as rows come, read a column or a group alone.

Texts that UTF-8 cannot hold are fixed as in the store of calls. pyarrow is imported when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.errors import FractionateError, UsageError, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 8192
"""Rows that are written together."""


def write_table(path: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows, a group at a time. Raises FractionateError naming the file where that fails."""
    writer = open_writer(path, schema)
    waiting: list[dict[str, Any]] = []

    def flush() -> None:
        if waiting:
            write_group(writer, path, {name: [row[name] for row in waiting] for name in waiting[0]})
            waiting.clear()

    for row in rows:
        waiting.append(row)
        if len(waiting) == GROUP:
            flush()
    flush()
    writer.close()


def open_writer(path: Path, schema: Any) -> Any:
    """Open a file for groups of rows. Raises FractionateError naming it where that fails."""
    _, pq = parquet(str(path))
    try:
        return pq.ParquetWriter(path, schema, compression="zstd")
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None


def write_group(writer: Any, path: Path, columns: dict[str, list[Any]]) -> None:
    """Write columns of one length as a group of rows. Raises FractionateError naming the file where that fails."""
    pa, _ = parquet(str(path))
    arrays = [
        pa.array(
            [_sound(value) for value in columns[field.name]] if pa.types.is_string(field.type) else columns[field.name],
            field.type,
        )
        for field in writer.schema
    ]
    try:
        writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema), row_group_size=len(arrays[0]))
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None


def _sound(text: str | None) -> str | None:
    """Replace lone surrogates, which a reply may hold and no UTF-8 file can."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def open_file(path: Path) -> Any:
    """Open a file to read. Raises UsageError where it is none."""
    pa, pq = parquet(str(path))
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read ({error}): run fractionate evaluate again") from None


def read_column(file: Any, name: str) -> NDArray[Any]:
    """Return a whole column of numbers."""
    found: NDArray[Any] = file.read(columns=[name], use_threads=False).column(0).to_numpy()
    return found


def parquet(what: str) -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module. Raises UsageError naming the extra where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("pyarrow", "parquet", what) from None
    return pyarrow, pyarrow.parquet
