"""Students trained side by side on a cluster, before a run goes through them one by one and finds them trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.errors import FractionateError
from fractionate.run.lesson import Lesson, told
from fractionate.run.run import Run
from fractionate.run.search import missing, name_of, note_diverged
from fractionate.students.dev import TrainingDivergedError

if TYPE_CHECKING:
    from fractionate.cluster.students import Outcome, TrainingJob


@contextmanager
def on_cluster(run: Run, lessons: Sequence[Lesson], place: str) -> Iterator[Collection[Path]]:
    """Be in the cluster at `place` ("ray" if empty) while students are trained, if there is anything to train.

    Yields the folders of those that were trained at once, side by side: all of them, unless one student takes several
    processes. Raises FractionateError where one of them failed, when the others are done.
    """
    todo = [one for lesson in lessons for one in missing(run, lesson)]
    if not todo:
        yield ()
        return
    from fractionate.cluster.connect import joined

    run.progress.stage(f"train: {len(todo)} training{'s' * (len(todo) > 1)} on {place or 'ray'}")
    with joined(place or "ray"):
        alone = run.config.train.workers == 1
        yield _side_by_side(run, todo, sum(len(one.candidates()) for one in lessons)) if alone else ()


def _side_by_side(run: Run, todo: Sequence[tuple[Lesson, Path]], count: int) -> Collection[Path]:
    """Carry out trainings, `count` of which the run has in all."""
    from fractionate.cluster.students import TrainingJob, train_side_by_side

    jobs = [
        TrainingJob(one.student.base, one.examples, folder, one.settings, one.student.seed, one.dev)
        for one, folder in todo
    ]
    lessons = {job.out: lesson for job, (lesson, _) in zip(jobs, todo, strict=True)}
    failures: list[FractionateError] = []

    def on_step(job: TrainingJob, step: int, steps: int, loss: float) -> None:
        run.progress.step(f"{_called(run, lessons[job.out], job.out)}: step {step} of {steps}, loss {loss:.3f}")

    def on_end(job: TrainingJob, outcome: Outcome) -> None:
        lesson, folder = lessons[job.out], job.out
        if not isinstance(outcome, FractionateError):
            lesson.keep(folder)
            run.progress.stage(f"  {_called(run, lesson, folder)}: {told(outcome)}")
            return
        run.progress.stage(f"  {_called(run, lesson, folder)}: {outcome}")
        if isinstance(outcome, TrainingDivergedError) and _is_candidate(run, folder):
            note_diverged(lesson, folder)
        else:
            failures.append(outcome)

    for lesson, folder in todo:
        folder.parent.mkdir(parents=True, exist_ok=True)
        run.progress.stage(
            f"train {_called(run, lesson, folder)}: {lesson.student.base} on {len(lesson.examples)} examples"
        )
    train_side_by_side(jobs, on_step, on_end, count)
    if failures:
        raise failures[0]
    return frozenset(lessons)


def _called(run: Run, lesson: Lesson, folder: Path) -> str:
    """Return what a training is called in a line of progress: its student, and which candidate."""
    name = lesson.student.name
    return f"{name} ({name_of(lesson.settings)})" if _is_candidate(run, folder) else name


def _is_candidate(run: Run, folder: Path) -> bool:
    return folder.parent != run.folder.students
