"""Files are written whole or not at all, and never over what is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fractionate.errors import FractionateError, UsageError


def write_text(text: str | Iterable[str], path: Path) -> None:
    """Write a UTF-8 file beside its place and move it there, so that no reader ever sees half of it.

    `text` may come in parts, which are never held together. A device or a pipe (/dev/null, say) is written to, not
    replaced. Raises FractionateError naming the file where that fails.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_to(text, path)
        return

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines([text] if isinstance(text, str) else text)

    _write_beside(path, write)


def encodable(text: str) -> str:
    """Return text with a question mark for each lone surrogate, which neither a UTF-8 file nor SQLite can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file of bytes in the same way."""
    _write_beside(path, lambda beside: beside.write_bytes(content))


def packed(folder: Path) -> bytes:
    """Return all files of a folder as bytes (a tar)."""
    import io
    import tarfile

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(folder, arcname=".")
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write what `packed` returned as a folder, which is whole or not there; one that is there already is replaced.

    Raises FractionateError naming the folder where that fails.
    """
    import io
    import shutil
    import tarfile
    import tempfile

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                tar.extractall(Path(beside) / "new", filter="data")
            if folder.exists():
                folder.rename(Path(beside) / "old")
            (Path(beside) / "new").rename(folder)
    except (OSError, tarfile.TarError, shutil.Error) as error:
        raise FractionateError(f"{folder} cannot be written: {error}") from None


def _write_beside(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
        raise


def refuse_input(target: Path, *inputs: Path) -> None:
    """Raise UsageError if a file that is to be written is one of those that are read, by whatever name.

    Of a folder among the inputs every file may be read.
    """
    for source in inputs:
        with suppress(OSError):
            if target.samefile(source) or (source.is_dir() and target.exists() and target.parent.samefile(source)):
                raise UsageError(f"{target} is an input of this command and would be overwritten: name another file")


def _write_to(text: str | Iterable[str], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines([text] if isinstance(text, str) else text)
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
