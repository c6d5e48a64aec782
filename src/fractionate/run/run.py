"""One run: ties its config, folder, names, data, models, store and engine together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from fractionate.analysis.pricing import Pricing
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import Config, JudgeConfig
from fractionate.datasets import parse_reference
from fractionate.datasets.base import Dataset
from fractionate.errors import UsageError
from fractionate.run.cells import Pair, TestSet
from fractionate.run.data import RunData
from fractionate.run.folder import RunFolder
from fractionate.run.models import ModelPool
from fractionate.run.names import Names
from fractionate.run.progress import Progress
from fractionate.run.records import Notes
from fractionate.run.workers import Workers, open_remote_copy
from fractionate.scoring.scorers import ByFunction
from fractionate.strategies.judge import FunctionGrader, Grader, Judge
from fractionate.types import Component

STORE = "calls.sqlite"


@dataclass(frozen=True)
class _Begun:
    """What a run has once its work has begun."""

    store: Store
    engine: Engine
    workers: Workers


class Run:
    """Everything the stages share.

    Opening a run checks its names and writes nothing. `begin`, which every stage calls, makes its folder, locks it,
    opens the store and takes in what workers of an earlier run have left.

    `folder` is the run's own; `base` the config's folder, beside which the store of all runs lies and in which relative
    paths are looked for first. `on` is where its calls are made: "" in this process, else as `--on` takes it. With
    `keyless` its models can be named and counted, not called: a dry run needs no key. `source` is the config's file, as
    the report names it in the command that comes next.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        base: Path,
        progress: Progress | None = None,
        *,
        on: str = "",
        keyless: bool = False,
        source: Path | None = None,
    ) -> None:
        self.config = config
        self.names = Names(config)
        self.folder = RunFolder(folder)
        self.progress = progress or Progress()
        self.pricing = Pricing.of(config)
        self.data = RunData(config, base)
        self.on = on
        self.folder.refuse_inputs(_inputs(config, self.names, base))
        self.notes = Notes(self.folder.notes)
        self.identity = self.folder.identity(base)
        self.models = ModelPool(config, self.folder, base, run=self.identity, say=self.progress.stage, keyless=keyless)
        self._base = base
        self._source = source
        self._begun: _Begun | None = None
        self._reading: Store | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Make the folder and keep it for this process, open the store and the engine; the second time do nothing.

        Raises FractionateError where another process has the folder or spends the budget, and where the folder or the
        store cannot be written.
        """
        self._start()

    def close(self) -> None:
        """End the workers, commit what is left, and let others have the folder."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun.workers.close()
            begun.engine.close()
            begun.store.close()
            self.folder.unlock()

    @property
    def store(self) -> Store:
        """The store, open to be written; asking for it begins the run."""
        return self._start().store

    @property
    def engine(self) -> Engine:
        """The engine; asking for it begins the run."""
        return self._start().engine

    @property
    def workers(self) -> Workers:
        """Who makes the run's calls; asking for them begins the run."""
        return self._start().workers

    @property
    def stored(self) -> Store | None:
        """The store to read from, None where there is none yet. Asking for it writes nothing."""
        if self._begun is not None:
            return self._begun.store
        path = store_path(self.config, self._base)
        if self._reading is None and path.exists():
            self._reading = Store(path, read_only=True)
        return self._reading

    def _start(self) -> _Begun:
        if self._begun is None:
            self.folder.create()
            store = Store(store_path(self.config, self._base))
            try:
                self._begun = self._with(store)
            except BaseException:
                store.close()
                self.folder.unlock()
                raise
            self.models.begin(store, self._begun.workers.place)
        return self._begun

    def _with(self, store: Store) -> _Begun:
        config, said = self.config, self.progress.stage
        self.folder.record(self.identity, store.path)
        if self._source is not None:
            self.folder.record_source(self._source)
        copy = open_remote_copy(config, self.identity, store, self.progress) if self.on else None
        engine = Engine(store, config.limits, config.budget, self.pricing, run=self.identity, on_event=said)
        try:
            workers = Workers(engine, config, self._base, self.progress, self.on, copy)
        except BaseException:
            engine.close()
            raise
        return _Begun(store, engine, workers)

    @property
    def name(self) -> str:
        """The run's name: given, or the folder's."""
        return self.config.run.name or self.folder.path.name

    def spent(self) -> str:
        """Return what has been spent, for a person: "spent $0.0145 of $0.03"; "" where no call cost anything."""
        budget, cap = self.engine.budget, self.config.budget.usd
        if cap is not None:
            return f"spent ${budget.total_usd():.4f} of ${cap:g}"
        used = self.engine.counters.usage.items()
        dollars = [self.pricing.usd(model, usage) for (model, _), usage in used]
        known = [usd for usd in dollars if usd is not None]
        return f"spent ${sum(known):.4f}" if any(known) and len(known) == len(dollars) else ""

    def closing_line(self) -> str:
        """Return the last line of a run's progress: its calls, and what they cost."""
        return "; ".join(filter(None, [self.engine.counters.line(), self.spent()]))

    def pairs(self) -> list[Pair]:
        """Return the cells to measure: the matrix's names and every student that could be trained, in order."""
        return self.names.pairs(self._takes_part)[0]

    def grader(self, dataset: Dataset) -> Grader | None:
        """Return what scores the outputs of a data set by calls, None where none is needed."""
        if not dataset.by_calls:
            return None
        if isinstance(dataset.score, ByFunction):
            return FunctionGrader(self.models.function(dataset.score))
        if self.config.judge.scale == "preference":
            raise UsageError('judge.scale = "preference" compares two outputs: a run takes "yes-no" or "1-5"')
        return Judge(self.models.judge(), self.config.judge)

    def tests(self) -> list[TestSet]:
        """Return the test sets, with what scores their outputs where calls do."""
        return [replace(test, grader=self.grader(test.dataset)) for test in self.data.tests]

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
    table = config.model_dump(mode="json", exclude={"run": {"store", "out", "rows_at_most"}, "cluster": True})
    # Tables that are younger than the digest count only where they say something: older runs keep their digest.
    if config.judge == JudgeConfig():
        del table["judge"]
    if not config.data.scorers:
        del table["data"]["scorers"]
    text = json.dumps(table, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
