"""Training the students of a run: examples in, one folder per student out; what is trained already is kept."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fractionate.errors import UsageError, missing_extra
from fractionate.run.ahead import on_cluster
from fractionate.run.data import learnt_from
from fractionate.run.names import Student
from fractionate.run.records import Tried, add_to_training, write_tried
from fractionate.run.run import Run
from fractionate.run.tuning import StudentTraining, train_best
from fractionate.students.demonstrate import Demonstration
from fractionate.students.examples import VARIANTS, build_examples, nested_share
from fractionate.types import Example, Problem


def check_trainer(run: Run) -> None:
    """Raise the error of a missing extra before anything is paid for."""
    for package in ("torch", "transformers", "trl", "peft", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train", "training a student")
    workers = run.config.train.workers
    if workers > 1 and importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray", f"train.workers = {workers}")


@dataclass(frozen=True)
class _Planned:
    """A student to train: its job, and what was left out of its examples, why."""

    student: Student
    job: StudentTraining
    because: str


def train_students(
    run: Run, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration], on: str = ""
) -> None:
    """Train every student of the run. One that there is no example for is left out, and said so.

    `on` is the cluster that they are trained on, as `--on` takes it; "" trains them here, one after another.
    """
    _check_dev(run, demonstrations)
    shown = {one.problem_id: one for one in demonstrations if one.answered_by}
    planned = _planned(run, demonstrations, screened)
    if on or run.config.train.workers > 1:
        known = list(planned)
        with on_cluster(run, [one.job for one in known], on) as fresh:
            tried = [row for one in known for row in _train(run, one, shown, fresh)]
    else:
        tried = [row for one in planned for row in _train(run, one, shown)]
    write_tried(run.folder, tried)


def _planned(
    run: Run, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration]
) -> Iterator[_Planned]:
    """Yield the students that there is something to learn for, one at a time; leave the others out."""
    sizes: set[tuple[str, int]] = set()
    for student in run.names.students:
        examples, left_out = examples_for(run, student, demonstrations, screened)
        if student.share < 1 and examples and (student.whole, len(examples)) in sizes:
            _leave_out_of_curve(run, student, len(examples))
            continue
        sizes.add((student.whole, len(examples)))
        dev = dev_examples_for(run, student, demonstrations, screened)
        because = "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))
        least = _least(run, student)
        if len(examples) < least or (run.data.dev and not dev):
            missing = _too_few(examples, least) if len(examples) < least else "the dev split has no example to judge by"
            run.progress.stage(f"train {student.name}: left out, {missing}{because}")
            run.folder.leave_out(student.name, missing + because)
            run.notes.warn(f"Student {student.name} was not trained: {missing}{because}.")
            continue
        run.folder.leave_out(student.name, "")
        yield _Planned(student, StudentTraining.of(run, student, examples, dev), because)


def _least(run: Run, student: Student) -> int:
    """Return how many examples a student needs: not more than it may have, and a share of a curve needs one."""
    train = run.config.train
    most = student.max_examples or train.min_examples
    return min(train.min_examples, most) if student.share == 1 else 1


def _too_few(examples: Sequence[Example], least: int) -> str:
    if not examples:
        return "there is no example to learn from"
    return f"{len(examples)} of the {least} examples that train.min_examples asks for can be learnt from"


def _train(
    run: Run, planned: _Planned, shown: Mapping[str, Demonstration], fresh: Collection[Path] = ()
) -> Sequence[Tried]:
    """Train one student, or find it trained, and note what it learnt from. Returns what was tried on the dev split."""
    student, examples, because = planned.student, planned.job.examples, planned.because
    trained = train_best(run, planned.job, fresh)
    teachers = learnt_from(student.train or run.config.data.train, examples, shown, student.role)
    add_to_training(run.folder.student(student.name), {"learnt_from": teachers})
    if trained.left_out:
        because += f"; {trained.left_out} left out: longer than train.max_length"
    called = student.role if student.whole == student.variant else f"{student.variant}, {student.role}"
    from_traffic = teachers["examples_by_traffic"]
    because = (f", {from_traffic} of them recorded answers" if from_traffic else "") + because
    run.notes.add(f"Student {student.name} ({called}) learnt from {trained.examples} examples{because}.")
    return trained.tried


def _check_dev(run: Run, demonstrations: Sequence[Demonstration]) -> None:
    """Say what the dev split is for, where there is one. Raises UsageError for demonstrations without it."""
    if not run.data.dev:
        return
    if not any(one.problem_id in run.data.dev for one in demonstrations):
        raise UsageError(
            f"{run.folder.demonstrations} holds no question of the dev split: run fractionate demonstrate again"
        )
    run.notes.add(
        f"Dev split: {len(run.data.dev)} questions, held out of training, decide which candidate is kept and when "
        f"training stops; {len(run.data.train)} are learnt from."
    )


def _leave_out_of_curve(run: Run, student: Student, examples: int) -> None:
    """Leave out a share so small that it is no other amount: it would look like one more training on its own."""
    reason = f"{student.share} of its demonstrations are {examples}, as many as another share of them is"
    run.progress.stage(f"train {student.name}: left out, {reason}")
    run.folder.leave_out(student.name, reason)
    run.notes.add(f"Student {student.name} was not trained: {reason}.")


def examples_for(
    run: Run, student: Student, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration]
) -> tuple[list[Example], dict[str, int]]:
    """Return what a student learns from, and counts by reason of what was left out."""
    examples, left_out = _built(run, student, run.data.train_of(student), demonstrations, screened)
    if student.max_examples and len(examples) > student.max_examples:
        left_out["over max_examples"] = len(examples) - student.max_examples
        examples = examples[: student.max_examples]
    return nested_share(examples, student.share, student.seed), left_out


def dev_examples_for(
    run: Run, student: Student, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration]
) -> list[Example]:
    """Return what a student is judged by: examples of the dev split, made like those that it learns from."""
    return _built(run, student, run.data.dev_of(student), demonstrations, screened)[0]


def _built(
    run: Run,
    student: Student,
    problems: Mapping[str, Problem],
    demonstrations: Sequence[Demonstration],
    screened: Sequence[Demonstration],
) -> tuple[list[Example], dict[str, int]]:
    forms = {name: run.data.dataset(name).answer_form for name in {one.dataset for one in problems.values()}}
    return build_examples(
        student.variant, problems, forms, demonstrations, screened, with_context=run.config.run.decomposer_context
    )


def screens(student: Student) -> bool:
    """Whether a student learns from screened demonstrations alone."""
    return VARIANTS[student.variant].screened
