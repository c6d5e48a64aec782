"""Training jobs: what decides a student, where it was trained already, and which candidate does best on the dev split.

Every candidate of a student learns from the same examples, and the one with the lowest loss on dev is kept. Candidates
are trained in search/STUDENT/CANDIDATE. Of the others only the record stays; the best one's folder becomes
students/STUDENT once all have been tried, so that no student of half a search is ever measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import write_text
from fractionate.run.folder import write_rows
from fractionate.run.names import Student
from fractionate.run.records import TRAINING, TrainingRecord, Tried, read_training
from fractionate.run.run import Run
from fractionate.students.checkpoints import TrainingDivergedError
from fractionate.students.settings import with_rate_for
from fractionate.types import Example

if TYPE_CHECKING:
    from fractionate.students.trainer import TrainingReport

INPUTS, EXAMPLES = "inputs.sha256", "examples.jsonl"


@dataclass(frozen=True)
class StudentTraining:
    """One training of one student: its examples, its dev examples (none without a dev split), its settings.

    `settings` may hold several candidates; see `candidates`.
    """

    student: Student
    examples: Sequence[Example]
    dev: Sequence[Example]
    settings: TrainConfig

    @classmethod
    def of(cls, run: Run, student: Student, examples: Sequence[Example], dev: Sequence[Example]) -> StudentTraining:
        """Return the job of a student of a run."""
        return cls(student, examples, dev, settings_for(run, student))

    def candidates(self) -> list[StudentTraining]:
        """Return a job for every candidate, each with a learning rate."""
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

    def was_done_in(self, folder: Path) -> bool:
        """Return whether a folder's student, or what is left of it, was trained by this very job."""
        try:
            return (folder / INPUTS).read_text(encoding="utf-8").strip() == self.digest()
        except OSError:
            return False

    def train(self, run: Run, folder: Path) -> None:
        """Train the student into a folder, from where an interrupted training left off."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        given = (self.student.base, self.examples, folder, self.settings, self.student.seed)

        def on_step(step: int, steps: int, loss: float) -> None:
            run.progress.advance(step, steps)
            run.progress.step(f"loss {loss:.3f}")

        if self.settings.workers > 1:
            from fractionate.cluster.training import train_over_workers

            report = train_over_workers(*given, on_step, dev=self.dev, say=run.progress.stage)
        else:
            from fractionate.students.train import train_student

            report = train_student(*given, on_step, dev=self.dev)
        self.keep(folder)
        run.progress.advance(0, 0)
        run.progress.stage(f"  {summary(report)}")

    def keep(self, folder: Path) -> None:
        """Note beside a student that was just trained what it learnt from."""
        write_rows(folder / EXAMPLES, (asdict(example) for example in self.examples))
        write_text(self.digest() + "\n", folder / INPUTS)


def summary(report: TrainingReport) -> str:
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


@dataclass(frozen=True)
class Trained:
    """How many examples a student learnt from, how many were too long, and what was tried on dev, row by row."""

    examples: int
    left_out: int
    tried: tuple[Tried, ...] = ()


def train_best(run: Run, job: StudentTraining, fresh: Container[Path] = ()) -> Trained:
    """Train a student by the candidate that does best on the dev split, or keep it where it was trained so already.

    `fresh` are folders that were filled a moment ago. Raises FractionateError where training fails, or diverges with
    every candidate.
    """
    candidates, folder = job.candidates(), run.folder.student(job.student.name)
    chosen = candidates[0] if len(candidates) == 1 else _search(run, candidates, fresh)
    if chosen.was_done_in(folder):
        if folder not in fresh:
            run.progress.stage(f"train {job.student.name}: kept, already trained on these {len(job.examples)} examples")
    else:
        _put(run, chosen, folder)
    record = read_training(folder)
    tried = tuple(_rows(run, candidates, chosen)) if job.dev else ()
    return Trained(int(record.get("examples", len(job.examples))), int(record.get("left_out", 0)), tried)


def missing(run: Run, job: StudentTraining) -> Iterator[tuple[StudentTraining, Path]]:
    """Yield the trainings that `train_best` would not find done, and the folder of each; none depends on another."""
    candidates, student = job.candidates(), run.folder.student(job.student.name)
    if len(candidates) == 1:
        tried = _folder(run, candidates[0])
        moved = _has_weights(tried) and candidates[0].was_done_in(tried)
        if not (moved or candidates[0].was_done_in(student)):
            yield candidates[0], student
        return
    for candidate in candidates:
        folder = _folder(run, candidate)
        _remember(run, candidate, folder)
        if not candidate.was_done_in(folder):
            yield candidate, folder


def note_diverged(candidate: StudentTraining, folder: Path) -> None:
    """Leave a record of a candidate whose loss is no longer a number, so that it is not tried again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.with_name(folder.name + ".partial"), ignore_errors=True)
    _leave_record(folder, json.dumps({"diverged": True}) + "\n", candidate)


def name_of(settings: TrainConfig) -> str:
    """Return a candidate's folder: what may differ between two of them."""
    rank = f"-rank-{settings.lora_rank}" if settings.method == "lora" else ""
    return f"rate-{settings.learning_rate}{rank}-epochs-{settings.epochs}"


def _search(run: Run, candidates: list[StudentTraining], fresh: Container[Path]) -> StudentTraining:
    """Train the candidates that are not trained yet, and return the best of all."""
    best, lowest = None, math.inf
    for number, candidate in enumerate(candidates, 1):
        folder = _folder(run, candidate)
        _remember(run, candidate, folder)
        said = f"try {candidate.student.name}, candidate {number} of {len(candidates)} ({name_of(candidate.settings)})"
        if candidate.was_done_in(folder):
            if folder not in fresh:
                run.progress.stage(f"{said}: kept")
        else:
            run.progress.stage(f"{said}: {len(candidate.examples)} examples")
            _try(run, candidate, folder)
        loss = _lowest_loss(read_training(folder))
        if loss < lowest:
            beaten, best, lowest = best, candidate, loss
        else:
            beaten = candidate
        if beaten:
            _drop_weights(_folder(run, beaten))
    if best is None:
        raise FractionateError(
            f"training {candidates[0].student.name} diverged with every candidate (its loss is not a number): "
            "lower train.search.learning_rate"
        )
    return best


def _remember(run: Run, candidate: StudentTraining, folder: Path) -> None:
    """Count a student that was trained by this very candidate already, in an earlier run of the config, as its try."""
    student = run.folder.student(candidate.student.name)
    if candidate.was_done_in(student) and not candidate.was_done_in(folder):
        shutil.rmtree(folder, ignore_errors=True)
        _leave_record(folder, (student / TRAINING).read_text(encoding="utf-8"), candidate)


def _leave_record(folder: Path, record: str, candidate: StudentTraining) -> None:
    folder.mkdir(parents=True)
    write_text(record, folder / TRAINING)
    write_text(candidate.digest() + "\n", folder / INPUTS)


def _try(run: Run, candidate: StudentTraining, folder: Path) -> None:
    try:
        candidate.train(run, folder)
    except TrainingDivergedError as error:
        run.progress.stage(f"  {error}")
        note_diverged(candidate, folder)


def _put(run: Run, chosen: StudentTraining, folder: Path) -> None:
    """Put the chosen student in its place: moved from where it was tried, else trained."""
    tried = _folder(run, chosen)
    if not (_has_weights(tried) and chosen.was_done_in(tried)):
        run.progress.stage(f"train {chosen.student.name}: {chosen.student.base} on {len(chosen.examples)} examples")
        chosen.train(run, folder)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    tried.rename(folder)
    _remember(run, chosen, tried)
    run.progress.stage(f"train {chosen.student.name}: {name_of(chosen.settings)} was best on dev")


def _drop_weights(folder: Path) -> None:
    """Leave a candidate's record alone."""
    for path in folder.iterdir():
        if path.name not in (TRAINING, INPUTS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _folder(run: Run, candidate: StudentTraining) -> Path:
    return run.folder.search / candidate.student.name / name_of(candidate.settings)


def _lowest_loss(record: TrainingRecord) -> float:
    return min((float(loss) for _, loss in record.get("dev_losses", [])), default=math.inf)


def _rows(run: Run, candidates: list[StudentTraining], chosen: StudentTraining) -> Iterator[Tried]:
    """Yield what the report says of each candidate; losses are in nats per target token, None where one diverged."""
    for candidate in candidates:
        alone = len(candidates) == 1
        record = read_training(run.folder.student(candidate.student.name) if alone else _folder(run, candidate))
        settings, loss = candidate.settings, _lowest_loss(record)
        yield {
            "student": candidate.student.name,
            "base": candidate.student.base,
            "method": settings.method,
            "learning_rate": settings.learning_rate,
            "lora_rank": settings.lora_rank if settings.method == "lora" else None,
            "epochs": settings.epochs,
            "examples": record.get("examples"),
            "steps": record.get("steps"),
            "planned_steps": record.get("planned_steps"),
            "best_step": record.get("best_step"),
            "dev_loss": loss if math.isfinite(loss) else None,
            "dev_examples": record.get("dev_examples"),
            "dev_losses": record.get("dev_losses", []),
            "chosen": candidate is chosen,
        }
