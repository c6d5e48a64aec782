"""Students trained side by side on a cluster, before a run goes through them one by one and finds them trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.errors import FractionateError
from fractionate.run.run import Run
from fractionate.run.tuning import StudentTraining, missing, name_of, note_diverged, summary
from fractionate.students.checkpoints import TrainingDivergedError

if TYPE_CHECKING:
    from fractionate.cluster.training import Outcome


@contextmanager
def on_cluster(run: Run, jobs: Sequence[StudentTraining], place: str) -> Iterator[Collection[Path]]:
    """Be in the cluster at `place` ("ray" if empty) while students are trained, if there is anything to train.

    Yields the folders of those that were trained at once, side by side: all of them, unless one student takes several
    processes. Raises FractionateError where one of them failed, when the others are done.
    """
    todo = [one for job in jobs for one in missing(run, job)]
    if not todo:
        yield ()
        return
    from fractionate.cluster.connect import joined

    run.progress.stage(f"train: {len(todo)} training{'s' * (len(todo) > 1)} on {place or 'ray'}")
    with joined(place or "ray"):
        alone = run.config.train.workers == 1
        yield _side_by_side(run, todo, sum(len(one.candidates()) for one in jobs)) if alone else ()


def _side_by_side(run: Run, todo: Sequence[tuple[StudentTraining, Path]], count: int) -> Collection[Path]:
    """Carry out trainings, `count` of which the run has in all."""
    from fractionate.cluster.training import TrainingJob, train_side_by_side

    remote = [
        TrainingJob(one.student.base, one.examples, folder, one.settings, one.student.seed, one.dev)
        for one, folder in todo
    ]
    jobs = {one.out: job for one, (job, _) in zip(remote, todo, strict=True)}
    failures: list[FractionateError] = []

    def on_step(at: TrainingJob, step: int, steps: int, loss: float) -> None:
        run.progress.step(f"{_called(run, jobs[at.out], at.out)}: step {step} of {steps}, loss {loss:.3f}")

    def on_end(at: TrainingJob, outcome: Outcome) -> None:
        job, folder = jobs[at.out], at.out
        if not isinstance(outcome, FractionateError):
            job.keep(folder)
            run.progress.stage(f"  {_called(run, job, folder)}: {summary(outcome)}")
            return
        run.progress.stage(f"  {_called(run, job, folder)}: {outcome}")
        if isinstance(outcome, TrainingDivergedError) and _is_candidate(run, folder):
            note_diverged(job, folder)
        else:
            failures.append(outcome)

    for job, folder in todo:
        folder.parent.mkdir(parents=True, exist_ok=True)
        run.progress.stage(f"train {_called(run, job, folder)}: {job.student.base} on {len(job.examples)} examples")
    train_side_by_side(remote, on_step, on_end, count)
    if failures:
        raise failures[0]
    return frozenset(jobs)


def _called(run: Run, job: StudentTraining, folder: Path) -> str:
    """Return what a training is called in a line of progress: its student, and which candidate."""
    name = job.student.name
    return f"{name} ({name_of(job.settings)})" if _is_candidate(run, folder) else name


def _is_candidate(run: Run, folder: Path) -> bool:
    return folder.parent != run.folder.students
