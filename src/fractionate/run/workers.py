"""Who makes a run's calls: this process, or workers on a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.calls.engine import Engine
from fractionate.calls.stages import Runner, run_here
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, Config
from fractionate.models.base import BatchModel, Model
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress

if TYPE_CHECKING:
    from fractionate.cluster.cluster import Cluster
    from fractionate.cluster.placed import Machines
    from fractionate.cluster.share import Share
    from fractionate.cluster.worker import Setup


class Workers:
    """The workers of a run, begun when its first calls are to be made; none where the run goes on nowhere else.

    What workers of an earlier run on this machine have left is taken in at once, with or without a cluster. Raises
    UsageError for a place that there is not.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        folder: RunFolder,
        base: Path,
        progress: Progress,
        on: str = "",
        share: Share | None = None,
    ) -> None:
        self.on = on
        self._engine = engine
        self._config = config
        self._folder = folder
        self._base = base
        self._progress = progress
        self._share = share
        self._connected = self._joined = False
        self._cluster: Cluster | None = None
        self._machines: Machines | None = None
        if on:
            from fractionate.cluster.connect import check_place

            check_place(on)
        self._take_in_left()

    def runner(self) -> Runner:
        """Return what runs programs."""
        return self.cluster().stream if self.on else run_here

    def cluster(self) -> Cluster:
        """Return the cluster that the run goes on; it is joined, or started, at the first call."""
        if self._cluster is None:
            from fractionate.cluster.cluster import Cluster

            self._connect()
            said, workers = self._progress.stage, self._config.cluster.workers
            self._cluster = Cluster(self._engine, self._setup(), workers, said, share=self._share)
        return self._cluster

    def place(self, model: Model) -> Model:
        """Return what stands for a model on the cluster: local weights run there, in batches that are planned here."""
        if not (self.on and isinstance(model, BatchModel)):
            return model
        from fractionate.cluster.placed import Machines, PlacedModel

        if self._machines is None:
            self._machines = Machines(self._connect, self._base.resolve(), same_machine=self.on == "ray")
        return PlacedModel(model, self._machines)

    def make_room(self) -> None:
        """Let go of the processes that hold weights: trainings want their GPUs and memory. Others begin when needed."""
        if self._machines is not None:
            self._machines.end()

    def close(self) -> None:
        """End the workers."""
        if not self._connected:
            return
        from fractionate.cluster.connect import disconnect

        self._connected = False
        try:
            if self._cluster is not None:
                asyncio.run(self._cluster.end())
            if self._machines is not None:
                self._machines.end()
        finally:
            if self._joined:
                disconnect()

    def _connect(self) -> None:
        if self._connected:
            return
        from fractionate.cluster.connect import connect

        self._progress.stage(f"starting workers on {self.on}")
        self._joined = connect(self.on)
        self._connected = True

    def _setup(self) -> Setup:
        from fractionate.cluster.worker import Setup

        caps = self._engine.budget.caps
        # A worker begins with nothing and borrows; what is not capped needs no loan.
        borrowed = BudgetConfig(
            decomposer_usd=0.0 if self._engine.budget.needs_dollars else None,
            solver_usd=0.0 if self._engine.budget.needs_dollars else None,
            tokens=None if caps.tokens is None else 0,
        )
        return Setup(
            run=self._engine.run,
            limits=self._config.limits,
            caps=borrowed,
            pricing=self._engine.budget.pricing,
            base=self._base.resolve(),
            scratch=self._scratch(),
            environment=_keys(self._config),
        )

    def _scratch(self) -> Path:
        if self._config.cluster.scratch:
            return Path(self._config.cluster.scratch).expanduser() / self._digest()
        if self.on == "ray":
            return self._folder.workers.resolve()
        return Path(tempfile.gettempdir()) / f"fractionate-{os.getuid()}" / self._digest()

    def _digest(self) -> str:
        """Return what tells this run's workers from those of others on one disk."""
        told = f"{self._engine.run}\n{self._engine.store.path.resolve()}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _take_in_left(self) -> None:
        """Take in the stores of workers that died with an earlier run of this folder."""
        if not self._folder.workers.is_dir():
            return
        from fractionate.cluster.scratch import ORPHAN_S, Scratch
        from fractionate.cluster.taking_in import take_in_left

        scratch = Scratch(self._folder.workers)
        end = time.monotonic() + ORPHAN_S
        while scratch.living() and time.monotonic() < end:
            self._progress.step("waiting for workers of an earlier run to end")
            time.sleep(0.2)
        for left in scratch.dead(self._engine.run):
            take_in_left(self._engine, self._engine.run, left)
            scratch.remove(left.worker)
            self._progress.stage(f"took in {len(left.rows)} calls of a worker that had died ({left.worker})")


def open_share(config: Config, run: str, store: Store, progress: Progress) -> Share | None:
    """Open `cluster.share`, where it is named, and take in what a run elsewhere has left there."""
    if not config.cluster.share:
        return None
    from fractionate.cluster.share import Share

    share = Share(config.cluster.share, run)
    if not len(store) and (rows := share.take_in(store)):
        progress.stage(f"took in {rows:,} calls from {config.cluster.share}")
    return share


def _keys(config: Config) -> dict[str, str]:
    """Return the variables that models read their keys from, as far as they are set here."""
    names = {"OPENAI_API_KEY", "OPENAI_BASE_URL", *(options.api_key_env for options in config.models.options.values())}
    return {name: os.environ[name] for name in names if name and name in os.environ}
