"""Several students trained side by side, each by one process of the cluster, just as one after another would be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fractionate.cluster.connect import beside_driver, why
from fractionate.cluster.machines import (
    SharedCheck,
    machines,
    memory_request,
    output_path,
    packed_from,
    resource_request,
    shared_check,
    threads,
)
from fractionate.cluster.training import RESTARTS, STOP_S, Coordinator, Failure, Result, StoppedError, as_error, asked
from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import unpack
from fractionate.students.train import estimate_each, train_student
from fractionate.students.trainer import TrainingReport
from fractionate.types import Example

_LOOK_S = 0.2
Outcome = TrainingReport | FractionateError
"""The end of a training: its report, or the error that ended it."""


@dataclass(frozen=True)
class TrainingJob:
    """One training that is wanted: what `train_student` is given."""

    base: str
    examples: Sequence[Example]
    out: Path
    settings: TrainConfig
    seed: int
    dev: Sequence[Example] = ()


def train_side_by_side(
    jobs: Sequence[TrainingJob],
    on_step: Callable[[TrainingJob, int, int, float], None],
    on_end: Callable[[TrainingJob, Outcome], None],
    count: int = 0,
) -> None:
    """Train students on the cluster that this process has joined, as many at once as it has GPUs, or memory, for.

    `on_step` is called for steps of all of them, `on_end` once for each, with its report or why it failed: the others
    go on. Cores are shared out among `count` trainings (as many as there are jobs, if that is more), so that a
    student is the same to the byte when only some are left to train; OMP_NUM_THREADS, if set, is used instead. A
    process that dies is started again, from its checkpoint where its disk is the same. Students of processes that do
    not share the disk of `out` come back through Ray, and their checkpoints stay where they were trained.

    Ctrl-C, and what a callback raises, stops each training after its step: from its checkpoint it goes on another time.
    """
    import ray

    with beside_driver(Coordinator) as coordinator, shared_check(jobs[0].out) as shared:
        begun = _begin(jobs, max(count, len(jobs)), shared, coordinator)
        waiting = {one: at for at, one in enumerate(begun)}
        try:
            while waiting:
                _pass_on(jobs, waiting, coordinator, on_step, on_end)
        except BaseException:
            with suppress(ray.exceptions.RayError):
                coordinator.stop.remote()
                given_up = time.monotonic() + STOP_S
                while waiting and time.monotonic() < given_up:
                    _pass_on(jobs, waiting, coordinator, lambda *_: None, on_end)  # what is done by now is kept
            raise


def _begin(jobs: Sequence[TrainingJob], count: int, shared: SharedCheck, coordinator: Any) -> list[Any]:
    """Have each training begun when there is room for it. Returns what Ray knows them by."""
    import ray

    there = machines()
    each = resource_request(there, count, together=False)
    begun = []
    for at, (job, memory) in enumerate(zip(jobs, _memory(jobs), strict=True)):
        work = ray.remote(_train_one).options(
            num_cpus=each["CPU"],
            num_gpus=each["GPU"],
            memory=0 if each["GPU"] else memory_request(there, memory),  # a GPU to itself is all that it needs
            max_retries=RESTARTS,
            retry_exceptions=False,
        )
        begun.append(work.remote(replace(job, out=job.out.resolve()), shared, threads(each), coordinator, at))
    return begun


def _memory(jobs: Sequence[TrainingJob]) -> list[int]:
    """Return the bytes that each training takes; examples that several learn from are read once."""
    alike: dict[tuple[str, int], list[int]] = {}
    for at, job in enumerate(jobs):
        alike.setdefault((job.base, id(job.examples)), []).append(at)
    needed = [0] * len(jobs)
    for (base, _), members in alike.items():
        needs = estimate_each(base, jobs[members[0]].examples, [jobs[at].settings for at in members])
        for at, need in zip(members, needs, strict=True):
            needed[at] = need["memory_bytes"]
    return needed


def _pass_on(
    jobs: Sequence[TrainingJob],
    waiting: dict[Any, int],
    coordinator: Any,
    on_step: Callable[[TrainingJob, int, int, float], None],
    on_end: Callable[[TrainingJob, Outcome], None],
) -> None:
    """Wait a moment and pass on what came in: steps, then ends, each taken off `waiting` before it is passed on."""
    import ray

    done, _ = ray.wait(list(waiting), timeout=_LOOK_S)
    for at, *step in ray.get(coordinator.news.remote())[0]:
        on_step(jobs[at], *step)
    for one in done:
        job = jobs[waiting.pop(one)]
        outcome = _outcome(one, job)
        if outcome is not None:
            on_end(job, outcome)


def _outcome(one: Any, job: TrainingJob) -> Outcome | None:
    """Return what became of a training, its student in its place; None where it was stopped."""
    import ray

    try:
        result, failure = ray.get(one)
        if failure is not None:
            return as_error(failure)
        if result is None:
            return None
        report, student = result
        if student:
            unpack(student, job.out)
        return report  # type: ignore[no-any-return]  # Ray is not followed
    except FractionateError as error:
        return error
    except ray.exceptions.RayError as error:
        fix = "run the same command again to go on"
        return FractionateError(f"training into {job.out} was given up ({why(error)}): {fix}")


# ---------------------------------------------------------------- on the cluster


def _train_one(
    job: TrainingJob, shared: SharedCheck, threads: int, coordinator: Any, at: int
) -> tuple[Result | None, Failure | None]:
    """Train one student in this process. Returns the result, and why there is none; neither where it was stopped."""
    import torch

    if asked(coordinator.is_stopped) is not False:
        return None, None
    torch.set_num_threads(threads)

    def on_step(*step: Any) -> None:
        if asked(coordinator.step, at, *step) is not False:
            raise StoppedError

    out = output_path(shared, job.out)
    try:
        report = train_student(job.base, job.examples, out, job.settings, job.seed, on_step, dev=job.dev)
    except StoppedError:
        return None, None
    except FractionateError as error:
        return None, (type(error).__name__, str(error))
    return (report, packed_from(out, job.out)), None
