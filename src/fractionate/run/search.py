"""Choosing how a student is trained: every candidate learns from the same examples, the lowest loss on dev is kept.

Candidates are trained in search/STUDENT/CANDIDATE. Of those that were beaten only the record stays; the best one's
folder becomes students/STUDENT once all have been tried, so that no student of half a search is ever measured.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import write_text
from fractionate.run.lesson import INPUTS, RECORD, Lesson, record_of
from fractionate.run.run import Run
from fractionate.students.checkpoints import TrainingDivergedError


@dataclass(frozen=True)
class Trained:
    """How many examples a student learnt from, how many were too long, and what was tried on dev, row by row."""

    examples: int
    left_out: int
    tried: tuple[dict[str, Any], ...] = ()


def train_best(run: Run, lesson: Lesson, fresh: Container[Path] = ()) -> Trained:
    """Train a student by the candidate that does best on the dev split, or keep it where it was trained so already.

    `fresh` are folders that were filled a moment ago. Raises FractionateError where training fails, or diverges with
    every candidate.
    """
    candidates, folder = lesson.candidates(), run.folder.student(lesson.student.name)
    chosen = candidates[0] if len(candidates) == 1 else _search(run, candidates, fresh)
    if chosen.is_learnt_in(folder):
        if folder not in fresh:
            run.progress.stage(
                f"train {lesson.student.name}: kept, already trained on these {len(lesson.examples)} examples"
            )
    else:
        _put(run, chosen, folder)
    record = record_of(folder)
    tried = tuple(_rows(run, candidates, chosen)) if lesson.dev else ()
    return Trained(int(record.get("examples", len(lesson.examples))), int(record.get("left_out", 0)), tried)


def missing(run: Run, lesson: Lesson) -> Iterator[tuple[Lesson, Path]]:
    """Yield the trainings that `train_best` would not find done, and the folder of each; none depends on another."""
    candidates, student = lesson.candidates(), run.folder.student(lesson.student.name)
    if len(candidates) == 1:
        tried = _folder(run, candidates[0])
        moved = _has_weights(tried) and candidates[0].is_learnt_in(tried)
        if not (moved or candidates[0].is_learnt_in(student)):
            yield candidates[0], student
        return
    for candidate in candidates:
        folder = _folder(run, candidate)
        _remember(run, candidate, folder)
        if not candidate.is_learnt_in(folder):
            yield candidate, folder


def note_diverged(candidate: Lesson, folder: Path) -> None:
    """Leave a record of a candidate whose loss is no longer a number, so that it is not tried again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.with_name(folder.name + ".partial"), ignore_errors=True)
    _leave_record(folder, json.dumps({"diverged": True}) + "\n", candidate)


def name_of(settings: TrainConfig) -> str:
    """Return a candidate's folder: what may differ between two of them."""
    rank = f"-rank-{settings.lora_rank}" if settings.method == "lora" else ""
    return f"rate-{settings.learning_rate}{rank}-epochs-{settings.epochs}"


def _search(run: Run, candidates: list[Lesson], fresh: Container[Path]) -> Lesson:
    """Train the candidates that are not trained yet, and return the best of all."""
    best, lowest = None, math.inf
    for number, candidate in enumerate(candidates, 1):
        folder = _folder(run, candidate)
        _remember(run, candidate, folder)
        said = f"try {candidate.student.name}, candidate {number} of {len(candidates)} ({name_of(candidate.settings)})"
        if candidate.is_learnt_in(folder):
            if folder not in fresh:
                run.progress.stage(f"{said}: kept")
        else:
            run.progress.stage(f"{said}: {len(candidate.examples)} examples")
            _try(run, candidate, folder)
        loss = _lowest_loss(record_of(folder))
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


def _remember(run: Run, candidate: Lesson, folder: Path) -> None:
    """Count a student that was trained by this very candidate already, in an earlier run of the config, as its try."""
    student = run.folder.student(candidate.student.name)
    if candidate.is_learnt_in(student) and not candidate.is_learnt_in(folder):
        shutil.rmtree(folder, ignore_errors=True)
        _leave_record(folder, (student / RECORD).read_text(encoding="utf-8"), candidate)


def _leave_record(folder: Path, record: str, candidate: Lesson) -> None:
    folder.mkdir(parents=True)
    write_text(record, folder / RECORD)
    write_text(candidate.digest() + "\n", folder / INPUTS)


def _try(run: Run, candidate: Lesson, folder: Path) -> None:
    try:
        candidate.learn(run, folder)
    except TrainingDivergedError as error:
        run.progress.stage(f"  {error}")
        note_diverged(candidate, folder)


def _put(run: Run, chosen: Lesson, folder: Path) -> None:
    """Put the chosen student in its place: moved from where it was tried, else trained."""
    tried = _folder(run, chosen)
    if not (_has_weights(tried) and chosen.is_learnt_in(tried)):
        run.progress.stage(f"train {chosen.student.name}: {chosen.student.base} on {len(chosen.examples)} examples")
        chosen.learn(run, folder)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    tried.rename(folder)
    _remember(run, chosen, tried)
    run.progress.stage(f"train {chosen.student.name}: {name_of(chosen.settings)} was best on dev")


def _drop_weights(folder: Path) -> None:
    """Leave a candidate's record alone."""
    for path in folder.iterdir():
        if path.name not in (RECORD, INPUTS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _folder(run: Run, candidate: Lesson) -> Path:
    return run.folder.search / candidate.student.name / name_of(candidate.settings)


def _lowest_loss(record: dict[str, Any]) -> float:
    return min((float(loss) for _, loss in record.get("dev_losses", [])), default=math.inf)


def _rows(run: Run, candidates: list[Lesson], chosen: Lesson) -> Iterator[dict[str, Any]]:
    """Yield what the report says of each candidate; losses are in nats per target token, None where one diverged."""
    for candidate in candidates:
        alone = len(candidates) == 1
        record = record_of(run.folder.student(candidate.student.name) if alone else _folder(run, candidate))
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
