"""What the report must state besides figures: screening, overlaps allowed, cells left out, tokens counted here.

Kept by stage in notes.json, so that stages run one by one leave the same report as a whole run.
"""

from __future__ import annotations

import json
from pathlib import Path

from fractionate.errors import UsageError
from fractionate.files import write_text

STAGES = ("data", "demonstrate", "screen", "train", "evaluate")


class Notes:
    """The notes of a run. A stage that runs again replaces its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_stage: dict[str, list[str]] = _read(path)
        self._stage = "data"

    def clear(self) -> None:
        """Forget the notes of an earlier run in the same folder."""
        self._by_stage = {}

    def begin(self, stage: str) -> None:
        """Begin a stage anew."""
        self._stage = stage
        self._by_stage[stage] = []

    def add(self, text: str) -> None:
        """Keep a fact, once."""
        stage = self._by_stage.setdefault(self._stage, [])
        if text not in self.all():
            stage.append(text)

    def save(self) -> None:
        """Write the file, whole."""
        write_text(json.dumps(self._by_stage, ensure_ascii=False, indent=1) + "\n", self._path)

    def all(self) -> list[str]:
        """Return all notes in the order of the stages."""
        return [note for stage in STAGES for note in self._by_stage.get(stage, [])]


def _read(path: Path) -> dict[str, list[str]]:
    try:
        return {stage: list(notes) for stage, notes in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): delete it and run the stages again") from None
