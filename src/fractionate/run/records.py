"""The small JSON records of a run's folder: notes, throughput, what was tried on dev, trainings.

Every record is validated as it is read, so that one which was cut, edited or damaged is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from fractionate.config.values import Count, Rate
from fractionate.errors import UsageError, shortened
from fractionate.files import write_text
from fractionate.run.folder import RunFolder
from fractionate.types import Throughput

T = TypeVar("T")
TRAINING = "training.json"
"""A trained student's own record, in its folder."""
STAGES = ("data", "demonstrate", "screen", "train", "evaluate")

_Finite = Annotated[float, Field(ge=-1e15, le=1e15)]
_ByStage = dict[str, list[str]]


class _Notes(TypedDict):
    notes: _ByStage
    warnings: _ByStage


class _Speed(TypedDict):
    input_per_s: Annotated[list[Rate], Field(min_length=1)]
    output_per_s: Annotated[list[Rate], Field(min_length=1)]
    device: str
    cores: Annotated[int, Field(ge=1, le=10**6)]
    batch_size: Annotated[int, Field(ge=1, le=10**6)]


class Tried(TypedDict):
    """One candidate that was trained and judged on the dev split; losses are in nats per target token."""

    student: str
    base: str
    method: str
    learning_rate: Rate | None
    lora_rank: Count | None
    epochs: Rate
    examples: Count | None
    steps: Count | None
    planned_steps: Count | None
    best_step: Count | None
    dev_loss: _Finite | None
    dev_examples: Count | None
    dev_losses: list[tuple[Count, _Finite]]
    chosen: bool


@with_config(ConfigDict(extra="allow"))
class TrainingRecord(TypedDict, total=False):
    """What training.json says of a trained student, as far as it is read again; it holds more."""

    base: str
    examples: Count
    left_out: Count
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    parameters: Count
    steps: Count
    planned_steps: Count
    best_step: Count
    dev_examples: Count
    dev_losses: list[tuple[Count, float]]
    diverged: bool


class Notes:
    """What the report states besides figures: notes (what to know) and warnings (what went wrong).

    They are kept by stage, so that stages run one by one leave the same report as a whole run. A stage that runs again
    replaces its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        found = read_record(path, _NOTES, "delete it and run the stages again")
        self._notes, self._warnings = (found["notes"], found["warnings"]) if found else ({}, {})
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
        """Keep what went wrong, once: the run goes on, and its exit code says that something did."""
        if text not in self.warnings():
            self._warnings.setdefault(self._stage, []).append(text)

    def save(self) -> None:
        """Write the file, whole."""
        _write({"notes": self._notes, "warnings": self._warnings}, self._path)

    def all(self) -> list[str]:
        """Return all notes in the order of the stages."""
        return [note for stage in STAGES for note in self._notes.get(stage, [])]

    def warnings(self) -> list[str]:
        """Return all warnings in the order of the stages."""
        return [warning for stage in STAGES for warning in self._warnings.get(stage, [])]


def read_throughput(folder: RunFolder) -> dict[str, Throughput]:
    """Return the throughput of local models by name, as far as it was measured in this folder."""
    table = read_record(folder.throughput, _SPEEDS, "delete it and evaluate again") or {}
    return {
        name: Throughput(
            tuple(speed["input_per_s"]), tuple(speed["output_per_s"]), speed["device"], speed["cores"],
            speed["batch_size"],
        )
        for name, speed in table.items()
    }  # fmt: skip


def write_throughput(folder: RunFolder, speeds: Mapping[str, Throughput]) -> None:
    """Keep the throughput of local models by name."""
    _write({name: asdict(speed) for name, speed in speeds.items()}, folder.throughput)


def write_tried(folder: RunFolder, rows: Sequence[Tried]) -> None:
    """Keep what was tried on the dev split for the report; nothing where nothing was."""
    if rows:
        _write(rows, folder.tried)
    else:
        folder.tried.unlink(missing_ok=True)


def read_tried(folder: RunFolder) -> list[Tried]:
    """Return what was tried on the dev split, a row per candidate."""
    return read_record(folder.tried, _TRIED, "run fractionate train again") or []


def read_training(folder: Path) -> TrainingRecord:
    """Return a trained student's own record, empty where it is missing or cannot be read."""
    try:
        return read_record(folder / TRAINING, _TRAINING, "") or {}
    except UsageError:
        return {}


def add_to_training(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add what the run knows of a trained student to the student's own record."""
    record = dict(read_training(folder))
    if record and record | dict(facts) != record:
        write_text(json.dumps(record | dict(facts), indent=2) + "\n", folder / TRAINING, private=True)


def read_record(path: Path, form: TypeAdapter[T], fix: str) -> T | None:
    """Return a JSON record, None where there is none. Raises UsageError that names the file and the fix."""
    try:
        return form.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = shortened(" ".join(f"{place}: {first['msg']}".encode("ascii", "backslashreplace").decode().split()))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error)
    raise UsageError(f"{path} cannot be read ({reason}): {fix}")


def _write(record: Any, path: Path) -> None:
    write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", path, private=True)


_NOTES = TypeAdapter(_Notes)
_SPEEDS = TypeAdapter(dict[str, _Speed])
_TRIED = TypeAdapter(list[Tried])
_TRAINING = TypeAdapter(TrainingRecord)
