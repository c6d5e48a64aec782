"""Several students trained side by side, each by one process of the cluster, just as one after another would be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fractionate.cluster.disk import Proof, brought_from, proof, settle
from fractionate.cluster.room import machines, memory_of_one, room_of_one
from fractionate.cluster.training import (
    RESTARTS,
    STOP_S,
    StoppedError,
    as_error,
    asked,
    beside_driver,
    threads,
    why,
)
from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import unpack
from fractionate.students.train import estimate_each, train_student
from fractionate.students.trainer import TrainingReport
from fractionate.types import Example

_LOOK_S = 0.2
Outcome = TrainingReport | FractionateError
"""What became of a training."""


@dataclass(frozen=True)
class Order:
    """One training that is wanted: what `train_student` is given."""

    base: str
    examples: Sequence[Example]
    out: Path
    settings: TrainConfig
    seed: int
    dev: Sequence[Example] = ()


def train_side_by_side(
    orders: Sequence[Order],
    on_step: Callable[[Order, int, int, float], None],
    on_end: Callable[[Order, Outcome], None],
    count: int = 0,
) -> None:
    """Train students on the cluster that this process has joined, as many at once as it has GPUs, or memory, for.

    `on_step` is called for steps of all of them, `on_end` once for each, with its report or why it failed: the others
    go on. Cores are shared out among `count` trainings (as many as there are orders, if that is more), so that a
    student is the same to the byte when only some are left to train; OMP_NUM_THREADS, if set, is heeded instead. A
    process that dies is started again, from its checkpoint where its disk is the same. Students of processes that do
    not share the disk of `out` come back through Ray, and their checkpoints stay where they were trained.

    Ctrl-C, and what a callback raises, stops each training after its step: from its checkpoint it goes on another time.
    """
    import ray

    with beside_driver(_Board) as board, proof(orders[0].out) as shown:
        begun = _begin(orders, max(count, len(orders)), shown, board)
        waiting = {one: at for at, one in enumerate(begun)}
        try:
            while waiting:
                _take_in(orders, waiting, board, on_step, on_end)
        except BaseException:
            with suppress(ray.exceptions.RayError):
                board.stop.remote()
                given_up = time.monotonic() + STOP_S
                while waiting and time.monotonic() < given_up:
                    _take_in(orders, waiting, board, lambda *_: None, on_end)  # what is done by now is kept
            raise


class _Board:
    """Where trainings say how far they are, and read whether to stop; an actor."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, float]] = []
        self._stopped = False

    def step(self, *step: Any) -> bool:
        """Take a step in: of which training, then as usual. Returns whether it was to be the last."""
        self._steps.append(step)
        return self._stopped

    def stop(self) -> None:
        """Have all stop after their step."""
        self._stopped = True

    def is_stopped(self) -> bool:
        """Return whether nothing more is to be begun."""
        return self._stopped

    def news(self) -> list[tuple[int, int, int, float]]:
        """Return the steps that came in since."""
        steps, self._steps = self._steps, []
        return steps


def _begin(orders: Sequence[Order], count: int, shown: Proof, board: Any) -> list[Any]:
    """Have each training begun when there is room for it. Returns what Ray knows them by."""
    import ray

    there = machines()
    each = room_of_one(there, count, together=False)
    begun = []
    for at, (order, memory) in enumerate(zip(orders, _memory(orders), strict=True)):
        work = ray.remote(_train_one).options(
            num_cpus=each["CPU"],
            num_gpus=each["GPU"],
            memory=0 if each["GPU"] else memory_of_one(there, memory),  # a GPU to itself is all that it needs
            max_retries=RESTARTS,
            retry_exceptions=False,
        )
        begun.append(work.remote(replace(order, out=order.out.resolve()), shown, threads(each), board, at))
    return begun


def _memory(orders: Sequence[Order]) -> list[int]:
    """Return the bytes that each training takes; examples that several learn from are read once."""
    alike: dict[tuple[str, int], list[int]] = {}
    for at, order in enumerate(orders):
        alike.setdefault((order.base, id(order.examples)), []).append(at)
    told = [0] * len(orders)
    for (base, _), members in alike.items():
        needs = estimate_each(base, orders[members[0]].examples, [orders[at].settings for at in members])
        for at, need in zip(members, needs, strict=True):
            told[at] = need["memory_bytes"]
    return told


def _take_in(
    orders: Sequence[Order],
    waiting: dict[Any, int],
    board: Any,
    on_step: Callable[[Order, int, int, float], None],
    on_end: Callable[[Order, Outcome], None],
) -> None:
    """Wait a moment and pass on what came in: steps, then ends, each taken off `waiting` before it is passed on."""
    import ray

    done, _ = ray.wait(list(waiting), timeout=_LOOK_S)
    for at, *step in ray.get(board.news.remote()):
        on_step(orders[at], *step)
    for one in done:
        order = orders[waiting.pop(one)]
        outcome = _outcome(one, order)
        if outcome is not None:
            on_end(order, outcome)


def _outcome(one: Any, order: Order) -> Outcome | None:
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
            unpack(student, order.out)
        return report  # type: ignore[no-any-return]  # Ray is not followed
    except FractionateError as error:
        return error
    except ray.exceptions.RayError as error:
        fix = "run the same command again to go on"
        return FractionateError(f"training into {order.out} was given up ({why(error)}): {fix}")


# ---------------------------------------------------------------- on the cluster


def _train_one(
    order: Order, shown: Proof, threads: int, board: Any, at: int
) -> tuple[tuple[TrainingReport, bytes] | None, tuple[str, str] | None]:
    """Train one student in this process. Returns the result, and why there is none; neither where it was stopped."""
    import torch

    if asked(board.is_stopped) is not False:
        return None, None
    torch.set_num_threads(threads)

    def on_step(*step: Any) -> None:
        if asked(board.step, at, *step) is not False:
            raise StoppedError

    out = settle(shown, order.out)
    try:
        report = train_student(order.base, order.examples, out, order.settings, order.seed, on_step, dev=order.dev)
    except StoppedError:
        return None, None
    except FractionateError as error:
        return None, (type(error).__name__, str(error))
    return (report, brought_from(out, order.out)), None
