"""Whether two machines see the same disk, and where on its own a worker keeps what others cannot see."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fractionate.files import packed, write_text


class Proof(NamedTuple):
    """A file, what nobody else has written into one of its name, and the folder that the driver works in."""

    file: Path
    token: str
    folder: Path


@contextmanager
def proof(beside: Path) -> Iterator[Proof]:
    """Lay a file beside a place for a while: whoever reads the token in it sees this very disk."""
    shown = Proof(beside.resolve().with_name(f".{beside.name}.shared"), uuid.uuid4().hex, Path.cwd())
    write_text(shown.token, shown.file)
    try:
        yield shown
    finally:
        shown.file.unlink(missing_ok=True)


def settle(shown: Proof, place: Path) -> Path:
    """Return where to write what belongs at `place`: there, if the disk of the proof is seen from here.

    Then this process also works in the driver's folder, so that relative paths mean the same. Else it is a folder of
    this machine, always the same for one place, so that an interrupted work is found again.
    """
    with suppress(OSError):
        if shown.file.read_text(encoding="utf-8") == shown.token:
            os.chdir(shown.folder)
            return place
    mine = Path(tempfile.gettempdir()) / f"fractionate-{os.getuid()}" / "training"
    mine.mkdir(parents=True, exist_ok=True, mode=0o700)
    return mine / hashlib.sha256(str(place).encode()).hexdigest()[:16] / place.name


def brought_from(here: Path, place: Path) -> bytes:
    """Return a folder that was written `here` as bytes for its `place`, and clear it away; nothing if it lies there."""
    if here == place:
        return b""
    content = packed(here)
    shutil.rmtree(here.parent, ignore_errors=True)
    return content
