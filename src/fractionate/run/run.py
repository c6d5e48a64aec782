"""One run: its config, its folder, its names, data and models, its store and engine. Rooms of their own; tied here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from fractionate.analysis.pricing import Pricing
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import Config
from fractionate.datasets import parse_reference
from fractionate.run.cells import Pair
from fractionate.run.data import RunData
from fractionate.run.folder import RunFolder
from fractionate.run.models import ModelPool
from fractionate.run.names import Names
from fractionate.run.notes import Notes
from fractionate.run.progress import Progress
from fractionate.run.workers import Workers, open_remote_copy
from fractionate.types import Component

STORE = "calls.sqlite"


class Run:
    """Everything the stages share. Opening a run checks names and makes its folder; it reads no data, calls no model.

    `folder` is the run's own; `base` the config's folder, beside which the store of all runs lies and in which relative
    paths are looked for first. `on` is where its calls are made: "" in this process, else as `--on` takes it.
    """

    def __init__(
        self, config: Config, folder: Path, base: Path, progress: Progress | None = None, *, on: str = ""
    ) -> None:
        self.config = config
        self.names = Names(config)
        self.folder = RunFolder(folder)
        self.progress = progress or Progress()
        self.pricing = Pricing.of(config)
        self.data = RunData(config, base)
        self.folder.refuse_inputs(_inputs(config, self.names, base))
        self.folder.create()
        self.notes = Notes(self.folder.notes)
        self.store = Store(store_path(config, base))
        identity = self.folder.identify(base, self.store.path)
        remote_copy = open_remote_copy(config, identity, self.store, self.progress) if on else None
        self.engine = Engine(
            self.store, config.limits, config.budget, self.pricing, run=identity, on_event=self.progress.stage
        )
        self.workers = Workers(self.engine, config, self.folder, base, self.progress, on, remote_copy)
        self.models = ModelPool(
            config, self.folder, self.store, base, run=identity, say=self.progress.stage, place=self.workers.place
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.close()
        self.engine.close()
        self.store.close()

    @property
    def name(self) -> str:
        """The run's name: given, or the folder's."""
        return self.config.run.name or self.folder.path.name

    def pairs(self) -> list[Pair]:
        """Return the cells to measure: the matrix's names and every student that could be trained, in order."""
        return self.names.pairs(self._takes_part)[0]

    def left_out(self) -> list[Component]:
        """Return the students that the matrix names and that take no part in it."""
        return self.names.pairs(self._takes_part)[1]

    def _takes_part(self, student: str) -> bool:
        trained_here = any(one.name == student for one in self.names.students)
        return self.folder.is_trained(student) or (trained_here and not self.folder.is_left_out(student))


def _inputs(config: Config, names: Names, base: Path) -> Iterator[Path]:
    """Yield the files and folders that a config names, wherever they are looked for: data and recorded outputs."""
    data = config.data
    references = [*data.train, *data.test, *(one for student in config.students.values() for one in student.train)]
    models = [config.models.teacher, *(component.model for component in (*names.decomposers, *names.solvers))]
    paths = [parse_reference(reference, data.columns).path for reference in references]
    paths += [model.removeprefix("recorded:") for model in models if model.startswith("recorded:")]
    for path in filter(None, paths):
        yield base / Path(path).expanduser()
        yield Path(path).expanduser()


def store_path(config: Config, base: Path) -> Path:
    """Return where a config's calls are stored: `run.store`, else one file for all configs of its folder."""
    return Path(config.run.store) if config.run.store else base / STORE


def config_digest(config: Config) -> str:
    """Return 12 hex digits of a config's content, but for where things are kept: that decides no figure."""
    text = json.dumps(
        config.model_dump(mode="json", exclude={"run": {"store", "out", "rows_at_most"}, "cluster": True}),
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]
