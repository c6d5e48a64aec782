"""What the report must state besides figures: warnings (what went wrong, at its top) and notes (what to know).

Kept by stage in notes.json, so that stages run one by one leave the same report as a whole run.
"""

from __future__ import annotations

import json
from pathlib import Path

from fractionate.errors import UsageError
from fractionate.files import write_text

STAGES = ("data", "demonstrate", "screen", "train", "evaluate")
_Table = dict[str, list[str]]


class Notes:
    """The notes and warnings of a run. A stage that runs again replaces its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes, self._warnings = _read(path)
        self._stage = "data"

    def clear(self) -> None:
        """Forget what an earlier run in the same folder noted."""
        self._notes, self._warnings = {}, {}

    def begin(self, stage: str) -> None:
        """Begin a stage anew."""
        self._stage = stage
        self._notes[stage] = []
        self._warnings[stage] = []

    def add(self, text: str) -> None:
        """Keep a fact, once."""
        if text not in self.all():
            self._notes.setdefault(self._stage, []).append(text)

    def warn(self, text: str) -> None:
        """Keep what went wrong, once: the run goes on, and its last exit code says that something did."""
        if text not in self.warnings():
            self._warnings.setdefault(self._stage, []).append(text)

    def save(self) -> None:
        """Write the file, whole."""
        table = {"notes": self._notes, "warnings": self._warnings}
        write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", self._path, private=True)

    def all(self) -> list[str]:
        """Return all notes in the order of the stages."""
        return [note for stage in STAGES for note in self._notes.get(stage, [])]

    def warnings(self) -> list[str]:
        """Return all warnings in the order of the stages."""
        return [warning for stage in STAGES for warning in self._warnings.get(stage, [])]


def _read(path: Path) -> tuple[_Table, _Table]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return _by_stage(table["notes"]), _by_stage(table["warnings"])
    except (FileNotFoundError, NotADirectoryError):  # where a file is in the folder's place, making it says so
        return {}, {}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): delete it and run the stages again") from None


def _by_stage(table: _Table) -> _Table:
    return {stage: [str(text) for text in texts] for stage, texts in table.items()}
