"""One run: its config, its folder, its data and its models, opened when they are needed and closed at the end."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

from fractionate import datasets
from fractionate.config import DECOMPOSER_VARIANTS, SOLVER_VARIANTS, Config, ModelOptions
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.overlap import find_overlap
from fractionate.engine.engine import Engine
from fractionate.engine.store import Store
from fractionate.errors import UsageError
from fractionate.evaluate.cost import Pricing
from fractionate.evaluate.matrix import Pair, TestSet, plan_pairs
from fractionate.models import check_name, is_model_name, open_model
from fractionate.models.base import Model
from fractionate.pipeline.folder import RunFolder
from fractionate.pipeline.notes import Notes
from fractionate.pipeline.progress import Progress
from fractionate.reasoning.program import Asker, Settings
from fractionate.types import Problem

STUDENTS = (*DECOMPOSER_VARIANTS, *SOLVER_VARIANTS)


class Run:
    """Everything the stages share. Opening a run checks names, data and overlap; it calls no model."""

    def __init__(self, config: Config, folder: Path, base: Path, progress: Progress | None = None) -> None:
        self.config = config
        self.base = base
        self.folder = RunFolder(folder)
        self.progress = progress or Progress()
        self.pricing = Pricing.of(config)
        self._models: dict[str, Model] = {}
        self._check_names()
        self.folder.create()
        self.notes = Notes(self.folder.notes)
        store = Path(config.run.store) if config.run.store else folder / "calls.sqlite"
        self.store = Store(store)
        self.engine = Engine(
            self.store, config.limits, config.budget, self.pricing, run=self.name, on_event=self.progress.stage
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()
        self.store.close()

    async def close_models(self) -> None:
        """Close the models' connections, in the event loop that they were used in."""
        models, self._models = list(self._models.values()), {}
        for model in models:
            await model.close()

    @property
    def name(self) -> str:
        """The run's name: given, or the folder's."""
        return self.config.run.name or self.folder.path.name

    # ------------------------------------------------------------------ data

    @cached_property
    def train(self) -> dict[str, Problem]:
        """The training problems by id, over all references."""
        problems: dict[str, Problem] = {}
        for reference in self.config.data.train:
            for problem in self._load(reference):
                if problem.id in problems:
                    raise UsageError(f"data.train: {problem.id} occurs twice (in {reference}): ids must be unique")
                problems[problem.id] = problem
        if not problems:
            raise UsageError(
                "data.train is empty: students are trained on its questions; name data or set run.variants=[]"
            )
        return problems

    @cached_property
    def tests(self) -> list[TestSet]:
        """The test sets, checked against the training questions."""
        if not self.config.data.test:
            raise UsageError("data.test is empty: name the data that the pairs are to be measured on")
        tests = _told_apart([self._test(reference) for reference in self.config.data.test])
        if self.config.data.train:
            self._refuse_overlap(tests)
        return tests

    def dataset(self, name: str) -> Dataset:
        """Return how the rows of a data set are read and scored; the user's `data.scorer` stands in for jsonl rows."""
        chosen = datasets.get(self.config.data.scorer if name == "jsonl" and self.config.data.scorer else name)
        return replace(chosen, metric=self.config.data.metric) if self.config.data.metric else chosen

    def settings(self, dataset: Dataset) -> Settings:
        """Return how calls on a data set are sampled."""
        cap = self.config.run.cap
        return Settings(
            cap=dataset.default_cap if cap == "default" else None if cap == "none" else cap,
            shots=self.config.run.shots,
            decomposer_context=self.config.run.decomposer_context,
            sample_temperature=self.config.run.sample_temperature,
        )

    def _load(self, reference: str) -> Sequence[Problem]:
        parsed = self._parse(reference)
        # A relative path is looked for beside the config first, then in the working directory.
        beside = bool(parsed.path) and (self.base / parsed.path).exists()
        return datasets.load(parsed, base=self.base if beside else None)

    def _test(self, reference: str) -> TestSet:
        problems = self._load(reference)
        parsed = self._parse(reference)
        dataset = self.dataset(parsed.name)
        split = problems[0].split or Path(parsed.path).stem
        return TestSet(reference, parsed.name, split, problems, dataset, dataset.metric, self.settings(dataset))

    def _parse(self, reference: str) -> Reference:
        return datasets.parse_reference(reference, self.config.data.columns)

    def _refuse_overlap(self, tests: Sequence[TestSet]) -> None:
        for test in tests:
            shared = find_overlap(list(self.train.values()), test.problems)
            if not shared:
                continue
            said = f"{len(shared)} of {len(test.problems)} test questions of {test.reference} are in data.train"
            if test.reference not in self.config.data.allow_overlap:
                raise UsageError(
                    f"{said} (first: {shared[0]}): take them out, or add {test.reference!r} to data.allow_overlap"
                )
            self.notes.add(f"Overlap allowed by name: {said}, so students may have learnt these answers.")

    # ------------------------------------------------------------------ models

    def asker(self, name: str) -> Asker:
        """Return the model behind a name of the matrix: "teacher", a student such as "D-R", or a model name."""
        if name == "teacher":
            return self._asker(self.teacher, self.teacher)
        if name in STUDENTS:
            return self._student(name)
        return self._asker(name, name)

    @property
    def teacher(self) -> str:
        """The teacher's model name."""
        if not self.config.models.teacher:
            raise UsageError(
                "models.teacher is missing: name the model that decomposes (openai:NAME, recorded:PATH, …)"
            )
        return self.config.models.teacher

    def _asker(self, name: str, priced_as: str, options: ModelOptions | None = None) -> Asker:
        options = options or self.config.options(priced_as)
        if name not in self._models:
            self._models[name] = self._open(name, options)
        return Asker(priced_as, self._models[name], options.temperature, options.max_tokens, options.structured)

    def _open(self, name: str, options: ModelOptions) -> Model:
        model = open_model(name, options, self.base)
        if not options.batch:
            return model
        from fractionate.engine.batch_api import OpenAIBatchModel
        from fractionate.models.openai_api import OpenAIModel

        if not isinstance(model, OpenAIModel):
            raise UsageError(f'models.options."{name}".batch: only openai: and http: models have a batch endpoint')
        return OpenAIBatchModel(model, self.store, run=self.name, say=self.progress.stage)

    def _student(self, variant: str) -> Asker:
        base = self.config.models.student
        folder = self.folder.student(variant)
        if not (folder / "training.json").is_file():
            raise UsageError(
                f"student {variant} is not trained yet: run the train stage first (fractionate train CONFIG)"
            )
        # An adapter rides on its base; a student of full training is a model of its own.
        is_adapter = (folder / "adapter_config.json").is_file()
        name = f"{base}@{folder}" if is_adapter else f"local:{folder}"
        options = self.config.models.options.get(variant, self.config.options(base))
        return self._asker(name, base, options.model_copy(update={"style": options.style or "student"}))

    def untrained(self, variant: str) -> Asker:
        """Return a student's base, asked in the student's form: who will answer, but for the training."""
        base = self.config.models.student
        options = self.config.models.options.get(variant, self.config.options(base))
        model = open_model(base, options.model_copy(update={"style": options.style or "student"}), self.base)
        return Asker(base, model, options.temperature, options.max_tokens)

    @property
    def models(self) -> list[Model]:
        """The models that are open."""
        return list(self._models.values())

    # ------------------------------------------------------------------ the matrix

    @property
    def variants(self) -> list[str]:
        """The students to train: `run.variants`, and those the matrix names. An empty `run.variants` trains none."""
        if not self.config.run.variants:
            return []
        named = [*self.config.run.variants, *self.config.models.decomposers, *self.config.models.solvers]
        return [variant for variant in dict.fromkeys(named) if variant in STUDENTS]

    @property
    def pairs(self) -> list[Pair]:
        """The cells to measure: the matrix's names and every trained student, in the order of the config."""
        return plan_pairs(
            self.config.run.strategies,
            self._players(self.config.models.decomposers, DECOMPOSER_VARIANTS),
            self._players(self.config.models.solvers, SOLVER_VARIANTS),
        )

    def _players(self, named: Sequence[str], role_variants: Sequence[str]) -> list[str]:
        trained = set(self.variants)
        players = []
        for name in [*named, *(variant for variant in self.variants if variant in role_variants)]:
            if name in STUDENTS and name not in trained and not (self.folder.student(name) / "training.json").is_file():
                self.notes.add(f"{name} is named in the matrix but run.variants trains none: its cells are left out.")
            elif name not in players:
                players.append(name)
        return players

    def _check_names(self) -> None:
        """Refuse names that mean nothing before anything is opened or paid for."""
        models = self.config.models
        allowed: Mapping[str, tuple[str, ...]] = {
            "models.decomposers": ("none", "teacher", "gold", *STUDENTS),
            "models.solvers": ("teacher", *STUDENTS),
        }
        for key, names in (("models.decomposers", models.decomposers), ("models.solvers", models.solvers)):
            if not names:
                raise UsageError(f"{key} is empty: name at least one")
            for name in names:
                if name in allowed[key]:
                    continue
                if not is_model_name(name):
                    raise UsageError(f"{key}: {name!r} is neither one of {', '.join(allowed[key])} nor a model name")
                check_name(name)
        for name in (models.teacher, models.student, models.screen_solver):
            if name:
                check_name(name)
        if self.variants and not models.student.startswith("local:"):
            raise UsageError(f"models.student is {models.student!r}: only local: models can be trained")
        if not self.config.run.strategies:
            raise UsageError("run.strategies is empty: name at least one, such as static")
        for name, _ in models.options.items():
            if name not in STUDENTS:
                check_name(name)


def _told_apart(tests: list[TestSet]) -> list[TestSet]:
    """Give test sets of one data set and split (two slices, two files of one name) splits of their own."""
    seen = Counter((test.name, test.split) for test in tests)
    return [
        test
        if seen[test.name, test.split] == 1
        else replace(test, split=test.reference.partition(":")[2] or test.reference)
        for test in tests
    ]


def config_digest(config: Config) -> str:
    """Return 12 hex digits of a config's content."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
