"""Local weights as Ray actors: one per GPU of the cluster, or one per machine where it has none.

Batches are planned in the run's process, over all requests, as they are without a cluster, and each goes to an actor
that is free. So a batch is the same batch wherever it runs. Ray restarts an actor that dies and runs its batch again.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fractionate.cluster.sent import NamedModel, named, open_named
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import BatchModel
from fractionate.types import Completion, Problem, Request, Role, Usage

TRIES = 3
"""Times that a batch is begun: an actor may die over it."""
PING_S, SILENT_S = 30.0, 120.0
"""Seconds between two times that an actor is asked whether it is there, and those that it has for the answer: it may
just have been started on a busy machine."""
_LOOK_S = 0.2
Files = dict[str, bytes]


class WeightPool:
    """The actors that hold weights, started when the first batch comes. `connect` joins the cluster before."""

    def __init__(self, connect: Callable[[], object], base: Path, *, same_machine: bool) -> None:
        self._connect = connect
        self._base = base
        self._same_machine = same_machine
        self._starting = threading.Lock()
        self._actors: list[Any] = []
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._files: dict[str, Any] = {}

    @property
    def count(self) -> int:
        """How many actors there are; they are started now if they were not."""
        self._start()
        return len(self._actors)

    @property
    def started(self) -> int:
        """How many actors have been started, at least 1."""
        return max(1, len(self._actors))

    def complete(self, model: BatchModel, requests: Sequence[Request], stopped: Callable[[], bool]) -> list[Completion]:
        """Have a batch worked through by the next free actor. Raises FractionateError, as the model itself does."""
        from ray.exceptions import RayActorError, RayTaskError

        self._start()
        bare = [replace(request, origin=None) for request in requests]
        actor = self._next_free(stopped)
        try:
            return _await_batch(actor, actor.complete.remote(named(model), self._files_of(model), bare))
        except RayActorError:
            raise FractionateError(
                f"{TRIES} processes died over one batch of {len(requests)} of {model.name}: is their memory enough? "
                f'Lower models.options."{model.name}".batch_size'
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, FractionateError):
                raise error.cause from None
            raise
        finally:
            self._free.put(actor)

    def interrupt(self) -> None:
        """Ask all running batches to stop at their next token."""
        for actor in self._actors:
            actor.interrupt.remote()

    def end(self) -> None:
        """End the actors; the next batch starts others."""
        import ray

        for actor in self._actors:
            with suppress(Exception):  # it may be gone already
                ray.kill(actor)
        self._actors, self._free = [], queue.SimpleQueue()

    def _start(self) -> None:
        with self._starting:
            if self._actors:
                return
            self._connect()
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            alive = [node for node in ray.nodes() if node["Alive"]]
            with_gpus = [node for node in alive for _ in range(int(node["Resources"].get("GPU", 0)))]
            for node in with_gpus or alive:
                options: dict[str, Any] = {
                    "num_cpus": 0.001,
                    "num_gpus": 1 if with_gpus else 0,
                    "max_concurrency": 2,  # a batch, and the pings or the interrupt beside it
                    "max_restarts": -1,
                    "max_task_retries": TRIES - 1,
                    # Soft: where the machine is gone, the actor is restarted on another.
                    "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True),
                }
                actor = ray.remote(Weights).options(**options).remote(self._base, self._threads(node))
                self._actors.append(actor)
                self._free.put(actor)

    def _threads(self, node: dict[str, Any]) -> int:
        """Return the threads that torch is to use: on this machine as many as here, so that sums come out the same."""
        if self._same_machine:
            import torch

            return int(torch.get_num_threads())
        return max(1, int(node["Resources"].get("CPU", 1)))

    def _next_free(self, stopped: Callable[[], bool]) -> Any:
        while not stopped():
            with suppress(queue.Empty):
                return self._free.get(timeout=_LOOK_S)
        raise FractionateError("interrupted")

    def _files_of(self, model: BatchModel) -> Any:
        """Return a student's files, for machines that do not share this one's disk: put into Ray's store once."""
        import ray

        if self._same_machine:
            return None
        with self._starting:
            if model.identity not in self._files:
                self._files[model.identity] = ray.put(_student_files(model))
            return self._files[model.identity]


class PlacedModel(BatchModel):
    """Local weights whose batches run in a pool of actors. To the store it is the model that it stands for."""

    def __init__(self, model: BatchModel, pool: WeightPool) -> None:
        self._model = model
        self._pool = pool
        self.name, self.identity, self.style = model.name, model.identity, model.style
        self.made_with, self.takes = model.made_with, model.takes
        self._stop = threading.Event()

    @property
    def beside(self) -> int:
        """How many batches run at once."""
        return self._pool.count

    def at_once(self, limit: int) -> int:
        """Return how many batches run at once, 1 before the cluster is joined."""
        return self._pool.started

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Cut requests into the batches that one process would make of them."""
        return self._model.plan(requests)

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Have a batch worked through; may be called from several threads."""
        return self._pool.complete(self._model, requests, self._stop.is_set)

    def interrupt(self) -> None:
        """Ask all running batches to stop."""
        self._stop.set()
        self._pool.interrupt()

    async def close(self) -> None:
        """Be ready for the next stage."""
        self._stop.clear()
        await self._model.close()

    def expected_seconds(self, output_tokens: float) -> float:
        """Return the seconds that one process takes."""
        return self._model.expected_seconds(output_tokens)

    def most_usage(self, request: Request) -> Usage:
        """Return the most that one call can use."""
        return self._model.most_usage(request)

    def samples(self, problem: Problem, role: Role = "decomposer") -> int | None:
        """Return how many samples there are."""
        return self._model.samples(problem, role)


class Weights:
    """One actor with weights. Its methods are called through Ray, in threads."""

    def __init__(self, base: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._base = base
        self._models: dict[NamedModel, BatchModel] = {}
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._running: BatchModel | None = None

    def complete(self, wanted: NamedModel, files: Files | None, requests: Sequence[Request]) -> list[Completion]:
        """Work through one batch."""
        if wanted not in self._models:
            self._models[wanted] = self._open(wanted, files)
        self._running = self._models[wanted]
        try:
            return self._running.complete_batch(requests)
        finally:
            self._running = None

    def ping(self) -> None:
        """Return at once, also while a batch runs."""

    def interrupt(self) -> None:
        """Stop the running batch at its next token."""
        if self._running is not None:
            self._running.interrupt()

    def _open(self, wanted: NamedModel, files: Files | None) -> BatchModel:
        try:
            model = open_named(wanted, self._base)
        except UsageError:
            if not files:
                raise
            model = open_named(wanted, self._base, self._unpacked(wanted, files))
        assert isinstance(model, BatchModel)
        return model

    def _unpacked(self, wanted: NamedModel, files: Files) -> str:
        """Write a student's files to a folder of this process alone, and return the student's name there."""
        folder = tempfile.TemporaryDirectory(prefix="fractionate-student-")
        self._folders.append(folder)
        for name, content in files.items():
            (Path(folder.name) / name).write_bytes(content)
        base, at, _ = wanted.name.partition("@")
        return f"{base}@{folder.name}" if at else f"local:{folder.name}"


def _await_batch(actor: Any, replies: Any) -> list[Completion]:
    """Return a batch's replies. Raises RayActorError where the actor has died too often.

    An actor that answers no ping for too long is restarted: it is stopped, or its machine is suspended, which Ray does
    not notice.
    """
    import ray
    from ray.exceptions import GetTimeoutError

    while True:
        there = actor.ping.remote()
        if ray.wait([replies], timeout=PING_S)[0]:
            done: list[Completion] = ray.get(replies)
            return done
        try:
            ray.get(there, timeout=SILENT_S)
        except GetTimeoutError:
            ray.kill(actor, no_restart=False)


def _student_files(model: BatchModel) -> Files:
    """Return the files of a student that was trained here; nothing for weights that a machine gets by itself."""
    weights = getattr(model, "weights", None)
    if weights is None:
        return {}
    folder: Path = weights.adapter or weights.source
    if not (folder / "training.json").is_file():
        return {}
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
