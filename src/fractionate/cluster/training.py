"""One student trained by several processes: Ray Train starts them and starts them again, TRL trains in each.

Every process calls `train_student` as one that trains alone does, in a group. The driver waits, passes their steps on
and, when it is interrupted, has them stop between two steps; checkpoints are those of any training.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.cluster.connect import beside_driver, joined, why
from fractionate.cluster.machines import (
    SharedCheck,
    machines,
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
from fractionate.students.train import prepare, train_student
from fractionate.students.trainer import OnStep, TrainingReport
from fractionate.types import Example

RESTARTS = 8
"""Times that a training's processes are started again after one of them died or failed."""
STOP_S = 60.0
"""Seconds that an interrupted training has for the step it is in."""
Result = tuple[TrainingReport, bytes]
"""A report, and the student as bytes (none if it was written to its place)."""
Failure = tuple[str, str]
"""Class and line of an error."""
_LOOK_S = 0.2
_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # else a training of some seconds takes some more to end
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


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
    with the others, from the last checkpoint, and `say` is told so. Where they do not share the disk of `out`, the
    student comes back through Ray, and checkpoints lie on the disk of the first process.

    Raises as `train_student` does, and UsageError where Ray is not installed or has too few GPUs.
    """
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("ray", "ray", f"train.workers = {settings.workers}")
    prepare(base, examples, settings, trust_remote_code)  # what is wrong with them is said before anything is started
    with joined(address), shared_check(out) as shared:
        each = resource_request(machines(), settings.workers, together=True)
        task = _Task(
            base, tuple(examples), out.resolve(), settings, seed, trust_remote_code, tuple(dev), shared, threads(each)
        )
        report, student = _through_ray(task, each, on_step, say)
        if student:
            unpack(student, out)
        return report


def as_error(failure: tuple[str, str]) -> FractionateError:
    """Return the error that another process raised, of its class and words."""
    kind, words = failure
    if kind == TrainingDivergedError.__name__:
        return TrainingDivergedError()
    return UsageError(words) if kind == UsageError.__name__ else FractionateError(words)


@dataclass(frozen=True)
class _Task:
    """The training that every process carries out. `shared` tells whether a process sees the file system of `out`."""

    base: str
    examples: tuple[Example, ...]
    out: Path
    settings: TrainConfig
    seed: int
    trust: bool
    dev: tuple[Example, ...]
    shared: SharedCheck
    threads: int


class Coordinator:
    """Stands between the driver and training processes, as an actor: steps one way, "stop" the other."""

    def __init__(self) -> None:
        self._starts = 0
        self._steps: list[tuple[Any, ...]] = []
        self._stopped = False
        self._over = False
        self._result: Result | None = None
        self._failure: Failure | None = None

    def start(self) -> bool:
        """Note that processes have been started. Returns whether there is anything to do for them."""
        self._starts += 1
        self._over |= self._stopped
        return not self._over

    def step(self, *step: Any) -> bool:
        """Note a step. Returns whether it was to be the last."""
        self._steps.append(step)
        return self._stopped

    def stop(self) -> None:
        """Have the processes stop after their step."""
        self._stopped = True

    def is_stopped(self) -> bool:
        """Return whether nothing more is to be started."""
        return self._stopped

    def leave(self, result: Result | None = None, failure: Failure | None = None) -> None:
        """Note that the processes are done: with a result, without one for good, or because they were to stop."""
        self._over = True
        self._result, self._failure = self._result or result, self._failure or failure

    def news(self) -> tuple[list[Any], int, bool]:
        """Return the steps noted since, how often processes were started, and whether they are done."""
        steps, self._steps = self._steps, []
        return steps, self._starts, self._over

    def ending(self) -> tuple[Result | None, Failure | None]:
        """Return the result and the failure, as far as there is one."""
        return self._result, self._failure


class StoppedError(Exception):
    """The driver wants no further step."""


def _through_ray(
    task: _Task, each: dict[str, float], on_step: OnStep | None, say: Callable[[str], None]
) -> tuple[TrainingReport, bytes]:
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

    # Ray Train wants a place for its own, and may still be at it when all is done.
    own = tempfile.TemporaryDirectory(prefix="fractionate-ray-", ignore_cleanup_errors=True)
    with own as notes, beside_driver(Coordinator) as coordinator:
        trainer = Trainer(
            _train_here,
            train_loop_config={"task": ray.put(task), "coordinator": coordinator},
            scaling_config=ScalingConfig(
                num_workers=task.settings.workers, use_gpu=each["GPU"] > 0, resources_per_worker=each
            ),
            run_config=RunConfig(
                name="training", storage_path=notes, failure_config=FailureConfig(max_failures=RESTARTS)
            ),
        )
        failed = _Fit(trainer.fit, coordinator, on_step, say).wait()
        result, failure = ray.get(coordinator.ending.remote())
    if failure is not None:
        raise as_error(failure)
    if result is None:
        raise FractionateError(
            f"training with train.workers = {task.settings.workers} was given up after {RESTARTS} restarts "
            f"({failed}): run the same command again to go on from the last checkpoint"
        )
    return result  # type: ignore[no-any-return]  # Ray is not followed


class _Fit:
    """Ray Train at work in a thread, and the driver that waits for it."""

    def __init__(self, fit: Any, coordinator: Any, on_step: OnStep | None, say: Callable[[str], None]) -> None:
        self._fit = fit
        self._coordinator = coordinator
        self._on_step = on_step
        self._say = say
        self._begun = 0
        self._last = 0
        self._failed = ""
        self._thread = threading.Thread(target=self._work, name="ray-train", daemon=True)

    def wait(self) -> str:
        """Pass on every step until all is done. Returns the last line of why Ray Train failed, "" where it did not.

        What `on_step` raises, and Ctrl-C, stops the processes after their step; a second Ctrl-C ends the wait for that.
        Ray Train's own end is waited for too: Ray ends a process that uses it from a thread after it has been left.
        """
        import ray

        self._thread.start()
        try:
            while self._pass_on():
                time.sleep(_LOOK_S)
        except BaseException:
            with suppress(ray.exceptions.RayError):
                self._coordinator.stop.remote()
                given_up = time.monotonic() + STOP_S
                while self._news()[2] and time.monotonic() < given_up:
                    time.sleep(_LOOK_S)
                self._thread.join(max(0.0, given_up - time.monotonic()))
            raise
        self._thread.join(STOP_S)
        return self._failed

    def _work(self) -> None:
        try:
            self._fit()
        except Exception as error:  # of many classes, none of which tells more than its words
            self._failed = why(error)

    def _news(self) -> tuple[list[Any], int, bool]:
        """Return what the coordinator has, and whether more is to come."""
        import ray

        alive = self._thread.is_alive()  # asked first: what comes in before it ends is not missed
        steps, begun, over = ray.get(self._coordinator.news.remote())
        return steps, begun, alive and not over

    def _pass_on(self) -> bool:
        steps, begun, more = self._news()
        for step in steps:
            self._last = step[0]
            if self._on_step is not None:
                self._on_step(*step)
        if begun > max(1, self._begun) and more:
            self._say(f"  a process was lost after step {self._last}: all go on from the last checkpoint")
        self._begun = begun
        return more


# ---------------------------------------------------------------- in every process


def _train_here(given: dict[str, Any]) -> None:
    """Train in one of the processes that Ray Train has joined."""
    import ray
    import torch

    from fractionate.students.group import Group

    task: _Task = ray.get(given["task"])
    coordinator, group = given["coordinator"], Group.here()
    if not group.broadcast(asked(coordinator.start) if group.first else None):
        return  # they were started again after what no second try would fix
    torch.set_num_threads(task.threads)

    def on_step(*step: Any) -> None:
        if group.broadcast(asked(coordinator.step, *step) if group.first else None) is not False:
            raise StoppedError

    out = output_path(task.shared, task.out)
    try:
        report = train_student(
            task.base, task.examples, out, task.settings, task.seed, on_step, task.trust, task.dev, group
        )
    except StoppedError:
        asked(coordinator.leave)
        return
    except FractionateError as error:
        asked(coordinator.leave, None, (type(error).__name__, str(error)))
        if isinstance(error, UsageError | TrainingDivergedError):
            return  # which all processes come to
        raise
    if group.first:
        asked(coordinator.leave, (report, packed_from(out, task.out)))


def asked(method: Any, *given: Any) -> Any:
    """Return what an actor of the driver's says; None where it is gone, and the driver with it."""
    import ray

    try:
        return ray.get(method.remote(*given))
    except ray.exceptions.RayActorError:
        return None
