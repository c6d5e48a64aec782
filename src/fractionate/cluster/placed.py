"""Local weights on other processes: one per GPU of the cluster, or one per machine where it has none.

Batches are planned here, over all requests, as they are without a cluster, and each is worked through by whichever
process is free. So a batch is the same batch wherever it runs, and as many run beside each other as there are
processes.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from fractionate.cluster.programs import NamedModel, named
from fractionate.config import ModelOptions
from fractionate.errors import FractionateError, UsageError
from fractionate.models import open_model
from fractionate.models.base import BatchModel
from fractionate.types import Completion, Problem, Request, Role, Usage

TRIES = 3
"""Processes that may die over one batch."""
PING_S, SILENT_S = 30.0, 120.0
"""Seconds between two times that a process is asked whether it is there, and those it has for the answer: it may just
have been begun on a busy machine."""
_LOOK_S = 0.2
Files = dict[str, bytes]


class PlacedModel(BatchModel):
    """Local weights whose batches run on the cluster. To the store it is the model that it stands for."""

    def __init__(self, model: BatchModel, machines: Machines) -> None:
        self._model = model
        self._machines = machines
        self.name, self.identity, self.style = model.name, model.identity, model.style
        self.made_with, self.takes = model.made_with, model.takes
        self._stop = threading.Event()

    @property
    def beside(self) -> int:
        """How many batches run at once."""
        return self._machines.count

    def at_once(self, limit: int) -> int:
        """Return how many batches run at once, 1 before the cluster is joined."""
        return self._machines.begun

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Cut requests into the batches that one process would make of them."""
        return self._model.plan(requests)

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Have a batch worked through; may be called from several threads."""
        return self._machines.complete(self._model, requests, self._stop.is_set)

    def interrupt(self) -> None:
        """Ask all running batches to stop."""
        self._stop.set()
        self._machines.interrupt()

    async def close(self) -> None:
        """Be ready for the next stage."""
        self._stop.clear()
        await self._model.close()

    def expected_seconds(self, output_tokens: float) -> float:
        """Return what one process takes."""
        return self._model.expected_seconds(output_tokens)

    def most_usage(self, request: Request) -> Usage:
        """Return the most that one call can use."""
        return self._model.most_usage(request)

    def samples(self, problem: Problem, role: Role = "decomposer") -> int | None:
        """Return how many samples there are."""
        return self._model.samples(problem, role)


class Machines:
    """The processes that hold weights, begun when the first batch comes. `connect` joins the cluster before."""

    def __init__(self, connect: Callable[[], object], base: Path, *, same_machine: bool) -> None:
        self._connect = connect
        self._base = base
        self._same_machine = same_machine
        self._begun = threading.Lock()
        self._actors: list[Any] = []
        self._nodes: dict[Any, dict[str, Any]] = {}
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._shipped: dict[str, Any] = {}

    @property
    def count(self) -> int:
        """How many processes there are."""
        self._begin()
        return len(self._actors)

    @property
    def begun(self) -> int:
        """How many processes have been begun, at least 1."""
        return max(1, len(self._actors))

    def complete(self, model: BatchModel, requests: Sequence[Request], stopped: Callable[[], bool]) -> list[Completion]:
        """Have a batch worked through by the next free process. Raises FractionateError, as the model itself does."""
        from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError

        self._begin()
        bare = [replace(request, origin=None) for request in requests]
        for _ in range(TRIES):
            actor = self._next_free(stopped)
            try:
                return _awaited(actor, actor.complete.remote(named(model), self._files(model), bare))
            except (RayActorError, ActorUnschedulableError):
                actor = self._another(actor)
            except RayTaskError as error:
                if isinstance(error.cause, FractionateError):
                    raise error.cause from None
                raise
            finally:
                if actor is not None:
                    self._free.put(actor)
        raise FractionateError(
            f"{TRIES} processes died over one batch of {len(requests)} of {model.name}: is their memory enough? Lower "
            f'models.options."{model.name}".batch_size'
        )

    def interrupt(self) -> None:
        """Ask all running batches to stop at their next token."""
        for actor in self._actors:
            actor.interrupt.remote()

    def end(self) -> None:
        """End the processes; the next batch begins others."""
        if not self._actors:
            return
        import ray

        for actor in self._actors:
            with suppress(Exception):  # it may be gone already
                ray.kill(actor)
        self._actors, self._free = [], queue.SimpleQueue()
        self._nodes.clear()

    def _begin(self) -> None:
        with self._begun:
            if self._actors:
                return
            self._connect()
            for node in _places():
                actor = self._start(node)
                self._actors.append(actor)
                self._free.put(actor)

    def _start(self, node: dict[str, Any]) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpu = node["Resources"].get("GPU", 0) > 0
        options: dict[str, Any] = {
            "num_cpus": 0,
            "num_gpus": 1 if gpu else 0,
            "max_concurrency": 2,  # a batch, and the words that ask for it or stop it
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        }
        actor = ray.remote(Machine).options(**options).remote(self._base, self._threads(node))
        self._nodes[actor] = node
        return actor

    def _threads(self, node: dict[str, Any]) -> int:
        """Return the threads that torch is to use: on this machine as many as here, so that sums come out the same."""
        if self._same_machine:
            import torch

            return int(torch.get_num_threads())
        return max(1, int(node["Resources"].get("CPU", 1)))

    def _another(self, dead: Any) -> Any:
        """Return a process in the place of a dead one; None where its GPU is gone with its machine."""
        with self._begun:
            node, alive = self._nodes.pop(dead), _places()
            if node["NodeID"] not in {one["NodeID"] for one in alive}:
                if not alive or node["Resources"].get("GPU", 0) > 0:
                    self._actors.remove(dead)
                    if not self._actors:
                        raise FractionateError("no machine is left for local weights: run the same command to resume")
                    return None
                node = alive[0]
            fresh = self._start(node)
            self._actors = [fresh if one is dead else one for one in self._actors]
            return fresh

    def _next_free(self, stopped: Callable[[], bool]) -> Any:
        while not stopped():
            with suppress(queue.Empty):
                return self._free.get(timeout=_LOOK_S)
        raise FractionateError("interrupted")

    def _files(self, model: BatchModel) -> Any:
        """Return a student's files, for machines that do not share this one's disk: put into Ray's store once."""
        import ray

        if self._same_machine:
            return None
        with self._begun:
            if model.identity not in self._shipped:
                self._shipped[model.identity] = ray.put(_student_files(model))
            return self._shipped[model.identity]


class Machine:
    """One process with weights. Its methods are called through Ray, in threads."""

    def __init__(self, base: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._base = base
        self._models: dict[NamedModel, BatchModel] = {}
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
        """Say that the process is there, also while a batch runs."""

    def interrupt(self) -> None:
        """Stop the running batch at its next token."""
        if self._running is not None:
            self._running.interrupt()

    def _open(self, wanted: NamedModel, files: Files | None) -> BatchModel:
        options = ModelOptions.model_validate_json(wanted.options)
        try:
            model = open_model(wanted.name, options, self._base)
        except UsageError:
            if not files:
                raise
            model = open_model(_unpacked(wanted, files), options, self._base)
        if model.identity != wanted.identity:
            import platform

            raise UsageError(f"{wanted.name} has other weights on {platform.node()}: copy the same files there")
        assert isinstance(model, BatchModel)
        return model


def _awaited(actor: Any, replies: Any) -> list[Completion]:
    """Return a batch's replies. Raises RayActorError for a process that died, or that has been silent for too long.

    Nobody else notices one that is stopped, or whose machine is suspended.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    while True:
        there = actor.ping.remote()
        if ray.wait([replies], timeout=PING_S)[0]:
            done: list[Completion] = ray.get(replies)
            return done
        try:
            ray.get(there, timeout=SILENT_S)
        except GetTimeoutError:
            ray.kill(actor)
            raise RayActorError from None


def _places() -> list[dict[str, Any]]:
    """Return the machine of every process: one per GPU, or one per machine where there is no GPU."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in alive for _ in range(int(node["Resources"].get("GPU", 0)))]
    return with_gpus or alive


def _student_files(model: BatchModel) -> Files:
    """Return the files of a student that was trained here; nothing for weights that a machine gets by itself."""
    weights = getattr(model, "weights", None)
    if weights is None:
        return {}
    folder: Path = weights.adapter or weights.source
    if not (folder / "training.json").is_file():
        return {}
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def _unpacked(wanted: NamedModel, files: Files) -> str:
    """Write a student's files to this machine's disk and return the student's name there."""
    folder = Path(tempfile.gettempdir()) / f"fractionate-student-{sha256(wanted.identity.encode()).hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    base, at, _ = wanted.name.partition("@")
    return f"{base}@{folder}" if at else f"local:{folder}"
