"""Students trained on a cluster: several side by side, each as a Ray task, and one by several processes of Ray Train.

Every process calls `train_student` as one that trains alone does, so that a student is the same wherever it is trained.
An actor beside the run takes their steps and tells them to stop; checkpoints are those of any training.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fractionate.cluster.connect import beside_driver, joined, why
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
from fractionate.config import TrainConfig
from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.files import unpack
from fractionate.students.checkpoints import TrainingDivergedError
from fractionate.students.group import Group
from fractionate.students.train import estimate_each, prepare, train_student
from fractionate.students.trainer import OnStep, TrainingReport
from fractionate.types import Example

RESTARTS = 8
"""Times that a training's processes are started again after one of them died or failed."""
STOP_S = 60.0
"""Seconds that an interrupted training has for the step it is in."""
_LOOK_S = 0.2
_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # else a training of some seconds takes some more to end
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_KINDS: dict[str, Callable[[str], FractionateError]] = {
    TrainingDivergedError.__name__: lambda line: TrainingDivergedError(),
    UsageError.__name__: UsageError,
}
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
    trust_remote_code: bool = False


class Ending(NamedTuple):
    """What a training process ends with: a report and the student as bytes (none if it was written to its place), or
    the class and the line of an error; neither where it was stopped.
    """

    report: TrainingReport | None = None
    student: bytes = b""
    error: tuple[str, str] | None = None


def train_over_workers(
    base: str,
    examples: Sequence[Example],
    out: Path,
    settings: TrainConfig,
    seed: int = 0,
    on_step: OnStep | None = None,
    trust_remote_code: bool = False,
    dev: Sequence[Example] = (),
    address: str = "ray",
    say: Callable[[str], None] = lambda _: None,
) -> TrainingReport:
    """Train a student as `train_student` does, by `settings.workers` processes of the cluster at `address`.

    Each has a GPU to itself, or its share of the cores where the cluster has no GPU. Of a step's examples each reads
    its share; gradients and losses are those of the whole step, but for rounding. A process that dies is started again,
    with the others, from the last checkpoint, and `say` is told so.

    Raises as `train_student` does, and UsageError where Ray is not installed or has too few GPUs.
    """
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray", f"train.workers = {settings.workers}")
    prepare(base, examples, settings, trust_remote_code)  # what is wrong with them is said before anything is started
    outcomes: list[Outcome] = []

    def step(job: TrainingJob, *step: Any) -> None:
        if on_step is not None:
            on_step(*step)

    job = TrainingJob(base, tuple(examples), out, settings, seed, tuple(dev), trust_remote_code)
    with joined(address):
        train_side_by_side([job], step, lambda _, outcome: outcomes.append(outcome), say=say)
    if isinstance(outcomes[0], FractionateError):
        raise outcomes[0]
    return outcomes[0]


def train_side_by_side(
    jobs: Sequence[TrainingJob],
    on_step: Callable[[TrainingJob, int, int, float], None],
    on_end: Callable[[TrainingJob, Outcome], None],
    count: int = 0,
    say: Callable[[str], None] = lambda _: None,
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
        trainings = _Trainings(jobs, _begin(jobs, max(count, len(jobs)), shared, coordinator), coordinator, say)
        try:
            while trainings.waiting:
                trainings.pass_on(on_step, on_end)
        except BaseException:
            with suppress(ray.exceptions.RayError):
                coordinator.stop.remote()
                given_up = time.monotonic() + STOP_S
                while trainings.waiting and time.monotonic() < given_up:
                    trainings.pass_on(lambda *_: None, on_end)  # what is done by now is kept
            raise


class Coordinator:
    """Stands between the run and training processes, as an actor: steps one way, "stop" the other."""

    def __init__(self) -> None:
        self._starts: Counter[int] = Counter()
        self._steps: list[tuple[Any, ...]] = []
        self._stopped = False
        self._endings: dict[int, Ending] = {}

    def start(self, at: int) -> bool:
        """Note that the processes of a training have been started. Returns whether there is anything to do for them."""
        self._starts[at] += 1
        return not (self._stopped or at in self._endings)

    def step(self, at: int, *step: Any) -> bool:
        """Note a step. Returns whether it was to be the last."""
        self._steps.append((at, *step))
        return self._stopped

    def stop(self) -> None:
        """Have all processes stop after their step."""
        self._stopped = True

    def end(self, at: int, ending: Ending) -> None:
        """Note what a training ends with: its processes are not started again."""
        self._endings.setdefault(at, ending)

    def ending(self, at: int) -> Ending | None:
        """Return what a training has ended with, None where its processes died too often."""
        return self._endings.get(at, Ending() if self._stopped else None)

    def news(self) -> tuple[list[Any], Counter[int]]:
        """Return the steps noted since the last time, and how often the processes of each training were started."""
        steps, self._steps = self._steps, []
        return steps, self._starts


def _begin(jobs: Sequence[TrainingJob], count: int, shared: SharedCheck, coordinator: Any) -> dict[Any, int]:
    """Have each training begun when there is room for it. Returns their numbers by Ray's references to their ends."""
    import ray

    there = machines()
    begun = {}
    for at, (job, memory) in enumerate(zip(jobs, _memory(jobs), strict=True)):
        job = replace(job, out=job.out.resolve())
        if job.settings.workers > 1:
            each = resource_request(there, job.settings.workers, together=True)
            task = ray.remote(_train_together).options(num_cpus=0, max_retries=0)
            begun[task.remote(job, shared, threads(each), coordinator, at, each)] = at
            continue
        each = resource_request(there, count, together=False)
        task = ray.remote(_train).options(
            num_cpus=each["CPU"],
            num_gpus=each["GPU"],
            memory=0 if each["GPU"] else memory_request(there, memory),  # a GPU to itself is all that it needs
            max_retries=RESTARTS,
            retry_exceptions=False,
        )
        begun[task.remote(job, shared, threads(each), coordinator, at)] = at
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


class _Trainings:
    """Trainings in progress. `waiting` has the numbers of those that have not ended, by Ray's references."""

    def __init__(
        self, jobs: Sequence[TrainingJob], waiting: dict[Any, int], coordinator: Any, say: Callable[[str], None]
    ) -> None:
        self.waiting = waiting
        self._jobs = jobs
        self._coordinator = coordinator
        self._say = say
        self._last: Counter[int] = Counter()
        self._starts: Counter[int] = Counter()

    def pass_on(
        self,
        on_step: Callable[[TrainingJob, int, int, float], None],
        on_end: Callable[[TrainingJob, Outcome], None],
    ) -> None:
        """Wait a moment and pass on what came in: steps, then ends, each taken off `waiting` before it is passed on."""
        import ray

        done, _ = ray.wait(list(self.waiting), timeout=_LOOK_S)
        steps, starts = ray.get(self._coordinator.news.remote())
        for at, *step in steps:
            self._last[at] = step[0]
            on_step(self._jobs[at], *step)
        processes = [job.settings.workers for job in self._jobs]
        for at, count in starts.items():
            if count > max(1, self._starts[at]) and processes[at] > 1 and not done:
                self._say(f"  a process was lost after step {self._last[at]}: all go on from the last checkpoint")
        self._starts = starts
        for one in done:
            job = self._jobs[self.waiting.pop(one)]
            outcome = _outcome(one, job)
            if outcome is not None:
                on_end(job, outcome)


def _outcome(one: Any, job: TrainingJob) -> Outcome | None:
    """Return what became of a training, its student in its place; None where it was stopped."""
    import ray

    try:
        ending: Ending = ray.get(one)
    except ray.exceptions.RayError as error:
        fix = "run the same command again to go on"
        return FractionateError(f"training into {job.out} was given up ({why(error)}): {fix}")
    if ending.error is not None:
        kind, line = ending.error
        return _KINDS.get(kind, FractionateError)(line)
    try:
        if ending.student:
            unpack(ending.student, job.out)
    except FractionateError as error:
        return error
    return ending.report


# ---------------------------------------------------------------- on the cluster


class _StoppedError(Exception):
    """The run wants no further step."""


def _train(
    job: TrainingJob, shared: SharedCheck, threads: int, coordinator: Any, at: int, group: Group | None = None
) -> Ending:
    """Train a student in this process, alone or as one of a group."""
    import torch

    group = group or Group()

    def ask(method: Any, *given: Any) -> Any:  # all processes do what the first is told
        return group.broadcast(_asked(method, at, *given) if group.first else None)

    def on_step(*step: Any) -> None:
        if ask(coordinator.step, *step) is not False:
            raise _StoppedError

    if not ask(coordinator.start):
        return Ending()  # stopped, or started again after what no second try would fix
    torch.set_num_threads(threads)
    out = output_path(shared, job.out)
    given = (job.base, job.examples, out, job.settings, job.seed, on_step, job.trust_remote_code, job.dev, group)
    try:
        report = train_student(*given)
    except _StoppedError:
        return Ending()
    except FractionateError as error:
        return Ending(error=(type(error).__name__, str(error)))
    return Ending(report, packed_from(out, job.out) if group.first else b"")


def _train_together(
    job: TrainingJob, shared: SharedCheck, threads: int, coordinator: Any, at: int, each: dict[str, float]
) -> Ending:
    """Have Ray Train start the processes of one student, and start them again; `each` has the resources of one."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray is not followed: to mypy its class is Any
        def _create_default_callbacks(self) -> list[Any]:
            # This one asks the dashboard, which there need not be, and is waited for 12 s at every end. What it would
            # tidy up after a controller that died goes with the driver's own end.
            made = super()._create_default_callbacks()
            return [one for one in made if type(one).__name__ != "PlacementGroupCleanerCallback"]

    given = {"job": ray.put(job), "rest": (shared, threads, coordinator, at)}
    workers = job.settings.workers
    scaling = ScalingConfig(num_workers=workers, use_gpu=each["GPU"] > 0, resources_per_worker=each)
    failed = ""
    # Ray Train wants a place for its own, and may still be at it when all is done.
    with tempfile.TemporaryDirectory(prefix="fractionate-ray-", ignore_cleanup_errors=True) as notes:
        run = RunConfig(name="training", storage_path=notes, failure_config=FailureConfig(max_failures=RESTARTS))
        try:
            Trainer(_train_in_group, train_loop_config=given, scaling_config=scaling, run_config=run).fit()
        except Exception as error:  # of many classes, none of which tells more than its words
            failed = why(error)
    ending: Ending | None = ray.get(coordinator.ending.remote(at))
    if ending is None:
        line = (
            f"training with train.workers = {workers} was given up after {RESTARTS} restarts ({failed}): run the same "
            "command again to go on from the last checkpoint"
        )
        return Ending(error=("FractionateError", line))
    return ending


def _train_in_group(given: dict[str, Any]) -> None:
    """Train in one of the processes that Ray Train has joined."""
    import ray

    shared, threads, coordinator, at = given["rest"]
    group = Group.here()
    ending = _train(ray.get(given["job"]), shared, threads, coordinator, at, group)
    if ending.error is not None:
        _asked(coordinator.end, at, ending)
        if ending.error[0] not in _KINDS:
            raise FractionateError(ending.error[1])  # the others may wait for this process: all are ended
    elif ending.report is not None and group.first:
        _asked(coordinator.end, at, ending)


def _asked(method: Any, *given: Any) -> Any:
    """Return what an actor of the run's says; None where it is gone, and the run with it."""
    import ray

    try:
        return ray.get(method.remote(*given))
    except ray.exceptions.RayActorError:
        return None
