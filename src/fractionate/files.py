"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from fractionate.errors import FractionateError


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 file beside its place and move it there, so that no reader ever sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
