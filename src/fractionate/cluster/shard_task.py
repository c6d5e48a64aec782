"""One shard of a run's work as a Ray task: it works through its coroutines and ships back what it has committed.

A shard has an engine and a scratch store of its own, a quota of the run's limits and an allocation of its budget. The
task is a streaming generator: committed calls come out as SQLite tables, values beside them. Ray's back-pressure makes
each `yield` wait until the run has taken the shipment before; while nobody takes any, the engine is held, so that a
task which the run has given up or cannot reach stops making calls by itself.
"""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import platform
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fractionate import __version__
from fractionate.calls.budget import BudgetReached, Pricing, Reservation
from fractionate.calls.drive import stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.status import Counters
from fractionate.calls.store import Amount, Holds, Store, StoredCall
from fractionate.calls.store_file import BUSY_S
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions, ToolConfig
from fractionate.config.addresses import TOOL
from fractionate.errors import FractionateError, UsageError
from fractionate.models import open_model
from fractionate.models.base import CallCoroutine, CompositeModel, Model
from fractionate.tools import open_tool
from fractionate.tools.base import ToolModel
from fractionate.types import CALL_ROLES, CallRole, Completion, Message, Request

BATCH, BATCHES = 512, 8
"""Calls that a shard commits at most before it ships them, and per call in flight (32 at least): a dead worker loses
these, and its calls in flight."""
SHIP_S = 0.25
"""Seconds that a committed call waits at most until it is shipped, while the run takes shipments."""
PACKED = 256
"""Values that are packed together; fewer at the end of a shard."""
HOLD_S = 2.0
"""Seconds that a committed call may wait for the run before the shard makes no more calls."""
BEAT_S = 5.0
"""Seconds between two shipments at most: the run sees from them that the process is alive."""
_WINDOW = 4
"""Coroutines alive per call in flight: more would only hold memory, and finish later."""
_GIVEN = ""
"""The run that calls stand under in a scratch store which the run's own store has already."""
Make = Callable[[Any], CallCoroutine[Any]]
"""Makes the coroutine of one item."""
Pack = Callable[[Sequence[Any]], bytes]
"""Packs values where they were made, so that the run's process merges tables and unpacks nothing."""
_NO_REQUEST = Request((Message("user", ""),), "solver")


@dataclass(frozen=True)
class Setup:
    """The settings that all shards of a run share. `environment` has the variables with the models' keys."""

    run: str
    pricing: Pricing | None
    base: Path
    scratch: str = ""
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)
    version: str = __version__


class NamedModel(NamedTuple):
    """How another process opens a model. `options` is their JSON."""

    name: str
    options: str
    identity: str


class ShardOrder(NamedTuple):
    """One shard: its items and the completions that the run has for them, its quota and its allocation."""

    content: bytes
    limits: LimitsConfig
    allocation: BudgetConfig


class End(NamedTuple):
    """Why a shard has ended.

    `unconfirmed`: amounts that may have been billed beyond the calls shipped. `wanted`: the call that did not fit into
    the allocation. `error`: class and message of an error that ends the run. `stopped`: the run told it to end early.
    """

    unconfirmed: Mapping[CallRole, Amount]
    wanted: Reservation | None = None
    error: tuple[str, str] | None = None
    stopped: bool = False


class Shipment(NamedTuple):
    """The calls, values and counts of a shard since its last shipment.

    `calls` is an SQLite database with the table `calls` (b"" if there are none), `spent` what these were billed.
    `values` are those of the shard's next `ended` coroutines, or what they were packed into. `counters` count from the
    shard's start.
    """

    calls: bytes
    spent: Mapping[CallRole, Amount]
    ended: int
    values: Any
    counters: Counters
    in_flight: int
    said: Sequence[str]
    end: End | None = None


class StopSignal:
    """The actor that shards ask whether to stop. It lives on the run's machine and dies with the run."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._patient = False

    async def wait(self) -> bool:
        """Return once shards are to stop: whether calls in flight are to be waited for beyond a short grace."""
        await self._told.wait()
        return self._patient

    async def tell(self, patient: bool) -> None:
        """Tell all shards to stop."""
        self._patient = patient
        self._told.set()


def run_shard(setup: Setup, common: bytes, order: ShardOrder, stop: Any) -> Iterator[Shipment]:
    """Work through a shard; the body of a Ray task.

    `common` is what all shards of the work share: what makes a coroutine of an item, and packs values (`Make`, `Pack`).
    `stop` is the actor that tells shards to stop.
    """
    os.environ.update(setup.environment)
    try:
        scratch = Path(setup.scratch).expanduser() if setup.scratch else None
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = tempfile.mkdtemp(prefix="fractionate-shard-", dir=scratch)
    except OSError as error:
        line = f"no scratch folder can be made on {platform.node()} ({error.strerror}): name one with cluster.scratch"
        yield Shipment(b"", {}, 0, (), Counters(), 0, (), End({}, error=("UsageError", line)))
        return
    try:
        yield from _ShardRun(setup, common, order, stop, Path(folder) / "calls.sqlite").shipments()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _ScratchStore(Store):
    """The store of one shard. `on_commit` is told how many calls each transaction has committed."""

    on_commit: Callable[[int], None]

    def put_many(
        self, calls: Sequence[StoredCall], *, holds: tuple[str, Holds] | None = None, patience_s: float = BUSY_S
    ) -> dict[str, Completion]:
        others = super().put_many(calls, holds=holds, patience_s=patience_s)
        if calls:
            self.on_commit(len(calls))
        return others


class _ShardRun:
    """A shard at work: its event loop runs in a thread, while the generator's own thread waits for the run."""

    def __init__(self, setup: Setup, common: bytes, order: ShardOrder, stop: Any, path: Path) -> None:
        self._setup = setup
        self._common = common
        self._order = order
        self._stop = stop
        self._said: list[str] = []
        self._store = _ScratchStore(path)
        self._store.on_commit = lambda count: None
        self._engine = Engine(
            self._store, order.limits, order.allocation, setup.pricing, self._said.append, run=setup.run
        )
        self._engine.change_limits(order.limits)  # rate limiters start with nothing saved up: the shard before used it
        self._models: dict[NamedModel, Model] = {}
        self._loop = asyncio.new_event_loop()
        self._shipped_up_to = 0
        self._unshipped = 0
        self._values: list[Any] = []
        self._pack: Pack | None = None
        self._end: End | None = None
        self._news = threading.Event()
        self._gathered = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []

    def shipments(self) -> Iterator[Shipment]:
        """Yield what has been done, from an empty first shipment to the end."""
        thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._work()), daemon=True)
        yield Shipment(b"", {}, 0, (), Counters(), 0, ())
        thread.start()
        while True:
            self._news.wait(BEAT_S)
            self._news.clear()
            # In the loop's own thread: it holds and frees the engine. The loop goes on until the end is gathered.
            shipment = asyncio.run_coroutine_threadsafe(self._gather(), self._loop).result()
            yield shipment
            if shipment.end is not None:
                self._store.close()
                return

    async def _gather(self) -> Shipment:
        end = self._end
        if end is not None:
            self._gathered.set()
        self._shipped_up_to, calls, spent = self._store.export(self._shipped_up_to, self._setup.run)
        ready = len(self._values) if self._pack is None or end is not None else len(self._values) // PACKED * PACKED
        values, self._values = self._values[:ready], self._values[ready:]
        said, self._said[:] = tuple(self._said), []
        self._unshipped = 0
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._engine.hold(False)
        budget = self._engine.budget
        billed = {role: budget.price_all([one for one in spent if one.role == role]) for role in CALL_ROLES}
        packed = self._pack(values) if self._pack is not None and values else values
        counters, in_flight = deepcopy(self._engine.counters), self._engine.in_flight
        return Shipment(calls, billed, ready, packed, counters, in_flight, said, end)

    async def _work(self) -> None:
        """Run the shard to its end, or until it is told to stop."""
        self._store.on_commit = self._committed
        working = asyncio.ensure_future(self._run())
        stopping = asyncio.ensure_future(self._await_stop(working))
        error: BaseException | None = None
        try:
            await working
        except asyncio.CancelledError as cancelled:
            error = cancelled
        except Exception as raised:
            error = raised
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        for model in self._models.values():
            with suppress(Exception):
                await model.close()
        await self._engine.await_rates()  # the quota goes to another shard
        with suppress(FractionateError):
            self._engine.close()
        self._end = self._ended_with(error)
        self._news.set()
        await self._gathered.wait()

    async def _run(self) -> None:
        make, self._pack = unpickled(self._common, self._open)
        items, known = unpickled(self._order.content, self._open)
        self._keep(known)
        window = max(16, _WINDOW * self._order.limits.concurrency)
        async for value in stream_all((make(item) for item in items), self._engine, window):
            self._values.append(value)
            if not self._timers:
                self._timers.append(asyncio.get_running_loop().call_later(SHIP_S, self._news.set))

    async def _await_stop(self, working: asyncio.Future[None]) -> None:
        """Stop once the run says so, or cannot be asked any more: no new calls, those in flight may come back."""
        from ray.exceptions import RayError

        try:
            patient = await self._stop.wait.remote()
        except RayError:
            patient = False
        if patient:
            self._engine.stop(_StoppedError("stopped"))
        else:
            working.cancel()

    def _ended_with(self, error: BaseException | None) -> End:
        unconfirmed = self._engine.budget.unconfirmed
        if error is None:
            return End(unconfirmed)
        if isinstance(error, asyncio.CancelledError | _StoppedError):
            return End(unconfirmed, stopped=True)
        if isinstance(error, BudgetReached) and error.wanted is not None:
            return End(unconfirmed, wanted=error.wanted)
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FractionateError):
            return End(unconfirmed, error=(type(error).__name__, line))
        return End(unconfirmed, error=("Bug", f"a coroutine failed on a worker: {type(error).__name__}: {line}"))

    def _committed(self, count: int) -> None:
        """Note committed calls: they are to be shipped soon, and hold the shard if nobody takes them."""
        self._unshipped += count
        if self._unshipped >= min(BATCH, max(32, BATCHES * self._order.limits.concurrency)):
            self._engine.hold(True)
            self._news.set()
        if len(self._timers) < 2:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(SHIP_S, self._news.set))
            self._timers.append(loop.call_later(HOLD_S, self._engine.hold, True))

    def _keep(self, known: Mapping[str, Completion]) -> None:
        given = [
            StoredCall(key, "", "", _GIVEN, _NO_REQUEST, completion, paid=False) for key, completion in known.items()
        ]
        if given:
            Store.put_many(self._store, given)

    def _open(self, wanted: NamedModel) -> Model:
        if wanted not in self._models:
            if self._setup.version != __version__:
                raise UsageError(
                    f"{platform.node()} has fractionate {__version__}, the run {self._setup.version}: install the same"
                )
            self._models[wanted] = open_named(wanted, self._setup.base)
        return self._models[wanted]


class _StoppedError(FractionateError):
    """The run wants no further calls."""


# ---------------------------------------------------------------- coroutines and models on their way


def call(factory: Callable[[], CallCoroutine[Any]]) -> CallCoroutine[Any]:
    """Make the coroutine of an item that is its factory."""
    return factory()


def pickled(value: Any) -> tuple[bytes, list[Model]]:
    """Return a value as bytes, and the models in it, which cannot be sent: they hold connections, weights, keys.

    The other process opens them by their names and options, and checks by their identities that they are the same.
    """
    from ray import cloudpickle

    models: dict[int, Model] = {}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # Ray ships no types for it
        def persistent_id(self, value: Any) -> NamedModel | None:
            if not isinstance(value, Model) or isinstance(value, CompositeModel):
                return None  # a model with tools is sent as it is, and its parts by their names
            models[id(value)] = value
            return named(value)

    file = io.BytesIO()
    Pickler(file, protocol=5).dump(value)
    return file.getvalue(), list(models.values())


def unpickled(data: bytes, open_model: Callable[[NamedModel], Model]) -> Any:
    """Return what `pickled` was given. Raises FractionateError where the code that it needs is not installed here."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, model: NamedModel) -> Model:
            return open_model(model)

    try:
        return Unpickler(io.BytesIO(data)).load()
    except (ImportError, AttributeError) as error:
        raise FractionateError(
            f"a worker lacks code that the run has ({error}): install the same packages on every machine"
        ) from None


def named(model: Model) -> NamedModel:
    """Return how another process opens a model."""
    if isinstance(model, ToolModel):
        return NamedModel(model.name, model.config.model_dump_json(exclude_unset=True), model.identity)
    options = model.made_with or ModelOptions()
    return NamedModel(model.name, options.model_dump_json(), model.identity)


def open_named(wanted: NamedModel, base: Path, name: str = "") -> Model:
    """Open a model, under another `name` if one is given. Raises UsageError where it is another one on this machine."""
    if wanted.name.startswith(TOOL):
        tool = ToolConfig.model_validate_json(wanted.options)
        model: Model = open_tool(wanted.name.removeprefix(TOOL), tool, base)
    else:
        model = open_model(name or wanted.name, ModelOptions.model_validate_json(wanted.options), base)
    if model.identity != wanted.identity:
        raise UsageError(
            f"{wanted.name} is another model on {platform.node()}: copy the run's files there, at the same path"
        )
    return model
