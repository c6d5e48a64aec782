"""Where a run's calls are made: in this process, or on a Ray cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.calls.engine import Engine
from fractionate.calls.stages import Runner, run_here
from fractionate.calls.store import Store
from fractionate.config import Config
from fractionate.models.base import BatchModel, Model
from fractionate.run.progress import Progress

if TYPE_CHECKING:
    from fractionate.cluster.remote_copy import RemoteCopy
    from fractionate.cluster.shards import Shards
    from fractionate.cluster.weights import WeightPool


class Workers:
    """The cluster of a run, joined when its first calls are to be made; none where `on` is "".

    Raises UsageError for an address that is not one.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        base: Path,
        progress: Progress,
        on: str = "",
        remote_copy: RemoteCopy | None = None,
    ) -> None:
        self.on = on
        self.left_out: dict[str, frozenset[str]] = {}
        """Fields of requests that servers rejected, as workers say, by the identity of the model."""
        self._engine = engine
        self._config = config
        self._base = base
        self._progress = progress
        self._remote_copy = remote_copy
        self._connected = self._joined = False
        self._shards: Shards | None = None
        self._weights: WeightPool | None = None
        if on:
            from fractionate.cluster.connect import check_address

            check_address(on)

    def runner(self) -> Runner:
        """Return what runs coroutines of calls."""
        return self.shards().stream if self.on else run_here

    def shards(self) -> Shards:
        """Return what runs them on the cluster, which is joined, or started, now."""
        if self._shards is None:
            from fractionate.cluster.shard_worker import Setup
            from fractionate.cluster.shards import Shards

            self._connect()
            if self._config.cluster.scratch:
                self._progress.stage("cluster.scratch is no longer used: workers keep nothing on their disks")
            setup = Setup(self._engine.run, self._engine.budget.pricing, self._base.resolve(), _keys(self._config))
            workers, say = self._config.cluster.workers, self._progress.stage
            self._shards = Shards(self._engine, setup, workers, say, self._remote_copy, self._note_left_out)
        return self._shards

    def place(self, model: Model) -> Model:
        """Return what stands for a model on the cluster: local weights run there, in batches that are planned here."""
        if not (self.on and isinstance(model, BatchModel)):
            return model
        from fractionate.cluster.weights import PlacedModel, WeightPool

        if self._weights is None:
            self._weights = WeightPool(self._connect, self._base.resolve(), same_machine=self.on == "ray")
        return PlacedModel(model, self._weights)

    def free_weights(self) -> None:
        """End the actors that hold weights: trainings want their GPUs and memory. Others are started when needed."""
        if self._weights is not None:
            self._weights.end()

    def close(self) -> None:
        """Leave the cluster."""
        if not self._connected:
            return
        from fractionate.cluster.connect import disconnect

        self._connected = False
        self.free_weights()
        if self._joined:
            disconnect()

    def _note_left_out(self, identity: str, names: frozenset[str]) -> None:
        self.left_out[identity] = self.left_out.get(identity, frozenset()) | names

    def _connect(self) -> None:
        if self._connected:
            return
        from fractionate.cluster.connect import connect

        self._progress.stage(f"starting workers on {self.on}")
        self._joined = connect(self.on)
        self._connected = True


def open_remote_copy(config: Config, run: str, store: Store, progress: Progress) -> RemoteCopy | None:
    """Open `cluster.share`, where it is named, and restore what a run elsewhere has left there."""
    if not config.cluster.share:
        return None
    from fractionate.cluster.remote_copy import RemoteCopy

    copy = RemoteCopy(config.cluster.share, run)
    if not len(store) and (rows := copy.restore(store)):
        progress.stage(f"restored {rows:,} calls from {config.cluster.share}")
    return copy


def _keys(config: Config) -> dict[str, str]:
    """Return the variables that models read their keys from, as far as they are set here."""
    names = {"OPENAI_API_KEY", "OPENAI_BASE_URL", *(options.api_key_env for options in config.models.options.values())}
    return {name: os.environ[name] for name in names if name and name in os.environ}
