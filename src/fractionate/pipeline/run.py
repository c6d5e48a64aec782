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
from fractionate.analysis.pricing import Pricing
from fractionate.config import Config, DecomposerConfig, ModelOptions, StudentConfig
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.overlap import find_overlap
from fractionate.engine.engine import Engine
from fractionate.engine.store import Store
from fractionate.errors import UsageError
from fractionate.evaluate.matrix import Pair, TestSet
from fractionate.models import open_model
from fractionate.models.base import Model
from fractionate.pipeline.folder import RunFolder
from fractionate.pipeline.notes import Notes
from fractionate.pipeline.progress import Progress
from fractionate.pipeline.roster import ROLES, check_names, model_of, pairs_to_measure, students_to_train
from fractionate.reasoning.program import Asker, Settings
from fractionate.types import Problem


class Run:
    """Everything the stages share. Opening a run checks names, data and overlap; it calls no model."""

    def __init__(self, config: Config, folder: Path, base: Path, progress: Progress | None = None) -> None:
        self.config = config
        self.base = base
        self.folder = RunFolder(folder)
        self.progress = progress or Progress()
        self.pricing = Pricing.of(config)
        self._models: dict[str, Model] = {}
        self._loaded: dict[str, Sequence[Problem]] = {}
        check_names(config)
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
        """The training problems by id, over all references: data.train and what single students learn from."""
        problems: dict[str, Problem] = {}
        for reference in self.config.data.train:
            for problem in self._load(reference):
                if problem.id in problems:
                    raise UsageError(f"data.train: {problem.id} occurs twice (in {reference}): ids must be unique")
                problems[problem.id] = problem
        for student in self.config.students.values():
            for problem in self._problems(student.train):
                if problems.setdefault(problem.id, problem) != problem:
                    raise UsageError(f"two training problems have the id {problem.id}: ids must be unique")
        if not problems:
            raise UsageError(
                "data.train is empty: students are trained on its questions; name data or set run.variants=[]"
            )
        return problems

    def train_of(self, student: str) -> Mapping[str, Problem]:
        """Return the problems that a student learns from, by id: its own, else all of data.train."""
        named = self.config.students[student].train if student in self.config.students else []
        wanted = self._problems(named or self.config.data.train)
        return {problem.id: problem for problem in wanted}

    def _problems(self, references: Sequence[str]) -> list[Problem]:
        return [problem for reference in references for problem in self._load(reference)]

    @cached_property
    def tests(self) -> list[TestSet]:
        """The test sets, checked against the training questions."""
        if not self.config.data.test:
            raise UsageError("data.test is empty: name the data that the pairs are to be measured on")
        tests = _told_apart([self._test(reference) for reference in self.config.data.test])
        if self.config.data.train or any(student.train for student in self.config.students.values()):
            self._refuse_overlap(tests)
        return tests

    def dataset(self, name: str) -> Dataset:
        """Return how the rows of a data set are read and scored; the user's `data.scorer` stands in for jsonl rows."""
        chosen = datasets.get(self.config.data.scorer if name == "jsonl" and self.config.data.scorer else name)
        return replace(chosen, metric=self.config.data.metric) if self.config.data.metric else chosen

    def settings(self, dataset: Dataset, decomposer: str = "") -> Settings:
        """Return how calls on a data set are sampled, for a decomposer with a way of its own or for all others."""
        run, own = self.config.run, self.config.decomposers.get(decomposer, DecomposerConfig())
        cap = run.cap if own.cap is None else own.cap
        return Settings(
            cap=dataset.default_cap if cap == "default" else None if cap == "none" else cap,
            shots=run.shots if own.shots is None else own.shots,
            decomposer_context=run.decomposer_context if own.context is None else own.context,
            sample_temperature=run.sample_temperature,
        )

    def _load(self, reference: str) -> Sequence[Problem]:
        if reference not in self._loaded:
            self._loaded[reference] = self._read(reference)
        return self._loaded[reference]

    def _read(self, reference: str) -> Sequence[Problem]:
        parsed = self._parse(reference)
        # A relative path is looked for beside the config first, then in the working directory.
        beside = bool(parsed.path) and (self.base / parsed.path).exists()
        return datasets.load(parsed, base=self.base if beside else None)

    def _test(self, reference: str) -> TestSet:
        problems = self._load(reference)
        parsed = self._parse(reference)
        dataset = self.dataset(parsed.name)
        split = problems[0].split or Path(parsed.path).stem
        own = {name: self.settings(dataset, name) for name in self.config.decomposers}
        return TestSet(reference, parsed.name, split, problems, dataset, dataset.metric, self.settings(dataset), own)

    def _parse(self, reference: str) -> Reference:
        return datasets.parse_reference(reference, self.config.data.columns)

    def _refuse_overlap(self, tests: Sequence[TestSet]) -> None:
        for test in tests:
            shared = find_overlap(list(self.train.values()), test.problems)
            if not shared:
                continue
            said = f"{len(shared)} of {len(test.problems)} test questions of {test.reference} are training questions"
            if test.reference not in self.config.data.allow_overlap:
                raise UsageError(
                    f"{said} (first: {shared[0]}): take them out, or add {test.reference!r} to data.allow_overlap"
                )
            self.notes.add(f"Overlap allowed by name: {said}, so students may have learnt these answers.")

    # ------------------------------------------------------------------ models

    def asker(self, name: str) -> Asker:
        """Return the model behind a name of the matrix: a role, a student such as "D-R", or a model name."""
        name = self.config.decomposers[name].model if name in self.config.decomposers else name
        if name in ROLES:
            model = model_of(self.config, name)
            return self._asker(model, model)
        return self._student(name) if self.config.variant(name) else self._asker(name, name)

    def _asker(self, name: str, priced_as: str, options: ModelOptions | None = None) -> Asker:
        options = options or self.config.options(priced_as)
        if name not in self._models:
            self._models[name] = self._open(name, options)
        return Asker(priced_as, self._models[name], options.temperature, options.max_tokens, options.structured)

    def _open(self, name: str, options: ModelOptions) -> Model:
        model = open_model(name, options, self.base)
        if not options.batch:
            return model
        from fractionate.models.openai.api import OpenAIModel
        from fractionate.models.openai.batch import OpenAIBatchModel

        if not isinstance(model, OpenAIModel):
            raise UsageError(f'models.options."{name}".batch: only openai: and http: models have a batch endpoint')
        return OpenAIBatchModel(model, self.store, run=self.name, say=self.progress.stage)

    def student(self, name: str) -> StudentConfig:
        """Return how a student is made: its variant, base and seed, with the run's where it has none of its own."""
        own = self.config.students.get(name) or StudentConfig.model_validate({"variant": name})
        return own.model_copy(
            update={
                "base": own.base or self.config.models.student,
                "seed": self.config.run.seed if own.seed is None else own.seed,
                "max_examples": own.max_examples or self.config.train.max_examples,
            }
        )

    def _student(self, name: str) -> Asker:
        base, folder = self.student(name).base, self.folder.student(name)
        if not self.is_trained(name):
            raise UsageError(f"student {name} is not trained yet: run the train stage first (fractionate train CONFIG)")
        # An adapter rides on its base; a student of full training is a model of its own.
        is_adapter = (folder / "adapter_config.json").is_file()
        model = f"{base}@{folder}" if is_adapter else f"local:{folder}"
        return self._asker(model, base, self._student_options(name, base))

    def untrained(self, name: str) -> Asker:
        """Return a student's base, asked in the student's form: who will answer, but for the training."""
        base = self.student(name).base
        options = self._student_options(name, base)
        return Asker(base, open_model(base, options, self.base), options.temperature, options.max_tokens)

    def _student_options(self, name: str, base: str) -> ModelOptions:
        options = self.config.models.options.get(name, self.config.options(base))
        return options.model_copy(update={"style": options.style or "student"})

    @property
    def models(self) -> list[Model]:
        """The models that are open."""
        return list(self._models.values())

    # ------------------------------------------------------------------ the matrix

    @cached_property
    def students(self) -> list[str]:
        """The students to train, by name, in the order of the config."""
        return students_to_train(self.config)

    @property
    def variants(self) -> list[str]:
        """The variants of the students to train, each once."""
        return list(dict.fromkeys(self.config.variant(name) for name in self.students))

    @property
    def pairs(self) -> list[Pair]:
        """The cells to measure: the matrix's names and every trained student, in the order of the config."""
        pairs, left_out = pairs_to_measure(self.config, self.is_trained)
        for name in left_out:
            self.notes.add(f"{name} is named in the matrix but run.variants trains none: its cells are left out.")
        return pairs

    def is_trained(self, name: str) -> bool:
        """Return whether a student's training has come to its end."""
        return (self.folder.student(name) / "training.json").is_file()


def _told_apart(tests: list[TestSet]) -> list[TestSet]:
    """Give test sets of one data set and split (two slices, two files of one name) splits of their own."""
    seen = Counter((test.name, test.split) for test in tests)
    return [
        test
        if seen[test.name, test.split] == 1
        else replace(test, split=test.reference.removeprefix(test.name).lstrip(":#") or test.reference)
        for test in tests
    ]


def config_digest(config: Config) -> str:
    """Return 12 hex digits of a config's content."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
