"""The models behind a run's names: opened when they are first asked for, and closed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from fractionate.calls.store import Store
from fractionate.config import Config, ModelOptions
from fractionate.config.addresses import TOOL
from fractionate.errors import UsageError
from fractionate.models import open_model
from fractionate.models.base import CompositeModel, Model
from fractionate.models.openai.keys import keys_not_needed
from fractionate.prompts import Instructions
from fractionate.run.folder import RunFolder
from fractionate.run.names import judge_model
from fractionate.scoring.scorers import ByFunction
from fractionate.strategies.base import Sampler
from fractionate.strategies.judge import FunctionModel
from fractionate.tools import check_tools, has_tools, open_tool, parts_of, with_tools
from fractionate.types import Component


class ModelPool:
    """The open models of a run, one per name in the grammar."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        base: Path,
        *,
        run: str,
        say: Callable[[str], None],
        keyless: bool = False,
    ) -> None:
        """`base` is the config's folder, `run` what the store knows the run by, `say` is told how batches stand.

        Until `begin`, no calls are handed to a provider in batches: each is sent when it is made. With `keyless` the
        models are opened without keys, to be counted and not called.
        """
        self._config = config
        self._folder = folder
        self._instructions = Instructions.of(config.prompts)
        self._base = base
        self._run = run
        self._say = say
        self._keyless = keyless
        self._store: Store | None = None
        self._place: Callable[[Model], Model] = lambda model: model
        self._open: dict[str, Model] = {}

    def begin(self, store: Store, place: Callable[[Model], Model]) -> None:
        """Hand calls over in batches where the options say so, and let `place` stand in for models elsewhere."""
        self._store, self._place = store, place
        placed: dict[int, Model] = {}
        for model in self._open.values():
            if not isinstance(model, CompositeModel):
                placed[id(model)] = self._at_work(model)
        self._open = {name: _replaced(model, placed) for name, model in self._open.items()}

    @property
    def opened(self) -> list[Model]:
        """The models that are open: of one with tools its parts."""
        return list(dict.fromkeys(part for model in self._open.values() for part in parts_of(model)))

    async def close(self) -> None:
        """Close the models' connections, in the event loop that they were used in."""
        models, self._open = self.opened, {}
        for model in models:
            await model.close()

    def sampler(self, component: Component) -> Sampler:
        """Return the model behind a component, and how it is sampled. Raises UsageError for an untrained student."""
        if not component.is_student:
            return self._sampler(component.model, self._config.options(component.model))
        folder = self._folder.student(component.name)
        if not self._folder.is_trained(component.name):
            raise UsageError(
                f"student {component.name} is not trained yet: run the train stage first (fractionate train CONFIG)"
            )
        # An adapter rides on its base; a student of full training is a model of its own.
        is_adapter = (folder / "adapter_config.json").is_file()
        name = f"{component.model}@{folder}" if is_adapter else f"local:{folder}"
        return self._sampler(name, student_options(self._config, component))

    def judge(self) -> Sampler:
        """Return the judge. Raises UsageError where `judge.model` names none."""
        name = judge_model(self._config)
        if not name:
            raise UsageError('the scorer "judge" needs a model: set judge.model, such as "openai:gpt-4o-mini"')
        return self._sampler(name, self._config.options(name))

    def function(self, score: ByFunction) -> FunctionModel:
        """Return a user's async function as a model."""
        if score.name not in self._open:
            self._open[score.name] = FunctionModel(score)
        found = self._open[score.name]
        assert isinstance(found, FunctionModel)
        return found

    def stand_in(self, component: Component) -> Sampler:
        """Return what will answer as far as it is known: for a student to be trained its base, asked in its form."""
        if not component.is_student or self._folder.is_trained(component.name):
            return self.sampler(component)
        options = student_options(self._config, component)
        model = open_model(component.model, options, self._base)
        model.name = f"{model.name}@{component.name}"  # what two students are asked is two calls
        return Sampler(model, options.temperature, options.max_tokens, instructions=self._instructions)

    def _sampler(self, name: str, options: ModelOptions) -> Sampler:
        if name not in self._open:
            self._open[name] = self._opened(name, options)
        return Sampler(
            self._open[name], options.temperature, options.max_tokens, options.structured, self._instructions
        )

    def _opened(self, name: str, options: ModelOptions) -> Model:
        if has_tools(name):
            return self._with_tools(name, options)
        with keys_not_needed() if self._keyless else nullcontext():
            model = open_model(name, options, self._base)
        return self._at_work(model) if self._store is not None else model

    def _with_tools(self, name: str, options: ModelOptions) -> Model:
        """Open a model with tools. Its parts are opened once, whichever names they are parts of."""
        check_tools(name, self._config.all_tools())
        own = name in self._config.models.options

        def part(of: str) -> Model:
            known = f"{of} of {name}" if own and not of.startswith(TOOL) else f"part {of}"
            if known not in self._open:
                if of.startswith(TOOL):
                    tool = of.removeprefix(TOOL)
                    with keys_not_needed() if self._keyless else nullcontext():
                        self._open[known] = open_tool(tool, self._config.all_tools()[tool], self._base)
                elif own:
                    self._open[known] = self._opened(of, options)
                else:
                    return self._sampler(of, self._config.options(of)).model
            return self._open[known]

        return with_tools(name, options, part)

    def _at_work(self, model: Model) -> Model:
        """Return what makes a model's calls once the run has begun."""
        name, options = model.name, model.made_with
        model = self._place(model)
        if options is None or not options.batch or self._store is None:
            return model
        from fractionate.models.openai.api import OpenAIModel
        from fractionate.models.openai.batch import OpenAIBatchModel
        from fractionate.models.openai.replicas import Replicas

        if isinstance(model, Replicas):
            raise UsageError(f'models.options."{name}".batch: a batch lies at one server: name one address')
        if not isinstance(model, OpenAIModel):
            raise UsageError(f'models.options."{name}".batch: only openai: and http: models have a batch endpoint')
        return OpenAIBatchModel(model, self._store, run=self._run, say=self._say)


def _replaced(model: Model, placed: Mapping[int, Model]) -> Model:
    """Return what stands for a model in a run that has begun; of one with tools, for each of its parts."""
    if isinstance(model, CompositeModel):
        return model.with_parts([_replaced(part, placed) for part in model.parts])
    return placed[id(model)]


def student_options(config: Config, component: Component) -> ModelOptions:
    """Return how a student is asked: as its own options say, else those of its base, in the form it was trained in."""
    given = config.models.options
    whole = component.name.partition("@")[0]  # a student of a learning curve is asked as the whole one is
    options = given.get(component.name) or given.get(whole) or config.options(component.model)
    return options.model_copy(update={"style": options.style or "student"})
