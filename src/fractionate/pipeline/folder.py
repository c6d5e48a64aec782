"""A run's folder: which file holds what, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError
from fractionate.files import write_text


class RunFolder:
    """The files of one run. Every one is plain text or SQLite that anyone can open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.demonstrations = path / "demonstrations.jsonl"
        self.screened = path / "screened.jsonl"
        self.students = path / "students"
        self.attempts = path / "attempts.jsonl"
        self.notes = path / "notes.json"
        self.results = path / "results.json"
        self.markdown = path / "report.md"
        self.html = path / "report.html"
        self.config = path / "config.json"

    def create(self) -> None:
        """Make the folder. Raises FractionateError where that is not allowed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FractionateError(f"the run's folder {self.path} cannot be made: {error.strerror}") from None

    def student(self, variant: str) -> Path:
        """Return the folder of a student."""
        return self.students / variant


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, whole."""
    write_text((json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def read_rows(path: Path, made_by: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row). Raises UsageError naming the stage that makes the file where it is missing."""
    if not path.is_file():
        raise UsageError(f"{path} is not there yet: run the stage that makes it first (fractionate {made_by} CONFIG)")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(
                    f"{path}:{number}: not valid JSON ({error.msg}): run fractionate {made_by} again"
                ) from None
