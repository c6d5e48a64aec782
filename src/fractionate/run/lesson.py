"""One training of one student: what decides its result, and where it has been done already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.config import TrainConfig
from fractionate.files import write_text
from fractionate.run.folder import write_rows
from fractionate.run.names import Student
from fractionate.run.run import Run
from fractionate.students.settings import with_rate_for
from fractionate.types import Example

if TYPE_CHECKING:
    from fractionate.students.trainer import TrainingReport

INPUTS, RECORD, EXAMPLES = "inputs.sha256", "training.json", "examples.jsonl"


@dataclass(frozen=True)
class Lesson:
    """What a student is to learn from, what it is judged by on the way (nothing where there is no dev split), and how.

    `settings` may hold several candidates; see `candidates`.
    """

    student: Student
    examples: Sequence[Example]
    dev: Sequence[Example]
    settings: TrainConfig

    @classmethod
    def of(cls, run: Run, student: Student, examples: Sequence[Example], dev: Sequence[Example]) -> Lesson:
        """Return the lesson of a student of a run."""
        return cls(student, examples, dev, settings_for(run, student))

    def candidates(self) -> list[Lesson]:
        """Return a lesson for every candidate, each with a learning rate."""
        return [
            replace(self, settings=with_rate_for(settings, self.student.base))
            for settings in self.settings.candidates()
        ]

    def digest(self) -> str:
        """Return what decides the student: its base, examples, settings, seed and dev split."""
        decisive = [
            self.student.base,
            [[list(example.messages), example.target] for example in self.examples],
            self.settings.decisive(with_dev=bool(self.dev)),
            self.student.seed,
        ]
        if self.dev:
            decisive.append([[list(example.messages), example.target] for example in self.dev])
        return hashlib.sha256(json.dumps(decisive, ensure_ascii=False).encode()).hexdigest()

    def is_learnt_in(self, folder: Path) -> bool:
        """Return whether a folder's student, or what is left of it, was trained by this very lesson."""
        try:
            return (folder / INPUTS).read_text(encoding="utf-8").strip() == self.digest()
        except OSError:
            return False

    def learn(self, run: Run, folder: Path) -> None:
        """Train the student into a folder, from where an interrupted training left off."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        given = (self.student.base, self.examples, folder, self.settings, self.student.seed)

        def on_step(step: int, steps: int, loss: float) -> None:
            run.progress.step(f"step {step} of {steps}, loss {loss:.3f}")

        if self.settings.workers > 1:
            from fractionate.cluster.training import train_over_workers

            report = train_over_workers(*given, on_step, dev=self.dev, say=run.progress.stage)
        else:
            from fractionate.students.train import train_student

            report = train_student(*given, on_step, dev=self.dev)
        self.keep(folder)
        run.progress.stage(f"  {told(report)}")

    def keep(self, folder: Path) -> None:
        """Note beside a student that was just trained what it learnt from."""
        write_rows(folder / EXAMPLES, (asdict(example) for example in self.examples))
        write_text(self.digest() + "\n", folder / INPUTS)


def told(report: TrainingReport) -> str:
    """Return what a training came to, in a line."""
    judged = f", {min(one.loss for one in report.dev_losses):.3f} on dev" if report.dev_losses else ""
    early = f", stopped after step {report.steps}" if report.steps < report.planned_steps else ""
    return (
        f"loss {report.loss_first:.3f} → {report.loss_last:.3f}{judged}, {report.tokens} tokens "
        f"in {report.seconds:.0f} s{early}"
    )


def settings_for(run: Run, student: Student) -> TrainConfig:
    """Return how a student is trained: a `max_examples` of its own may be more than that of [train]."""
    train = run.config.train
    most = max(train.max_examples, student.max_examples) if train.max_examples else 0
    return train.model_copy(update={"max_examples": most})


def record_of(folder: Path) -> dict[str, Any]:
    """Return a trained student's own report, empty where it cannot be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def add_to_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add what the run knows of a trained student to its own report."""
    record = record_of(folder)
    if record and record | dict(facts) != record:
        write_text(json.dumps(record | dict(facts), indent=2) + "\n", folder / RECORD)
