"""Everything that one server holds: its run's pairs, their models, and what keeps it upright."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fractionate.analysis.pricing import Pricing
from fractionate.datasets.base import Dataset
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel, Model, SingleModel
from fractionate.models.faults import Fault
from fractionate.run.data import RunData
from fractionate.run.folder import RunFolder
from fractionate.run.models import ModelPool
from fractionate.run.speed import read_speed
from fractionate.serve.admission import Admission
from fractionate.serve.answer import Answered, Answerer, OnEvent
from fractionate.serve.catalog import Catalog, folder_of_config
from fractionate.serve.chat import Asked
from fractionate.serve.keys import Keys
from fractionate.serve.metrics import Metrics
from fractionate.serve.plan import Plan, make_plan
from fractionate.serve.refusals import Refusal
from fractionate.serve.spending import Spending
from fractionate.serve.traffic import Traffic
from fractionate.serve.upstream import Upstream
from fractionate.strategies.base import Sampler
from fractionate.types import Component, Message, Request

BOOK = "serving.sqlite"


@dataclass(frozen=True)
class Bounds:
    """How much a server takes on. Seconds, megabytes, tokens (estimated) and dollars; None bounds nothing."""

    concurrency: int = 64
    queue: int = 256
    deadline_s: float = 120.0
    drain_s: float = 30.0
    body_mb: float = 1.0
    max_context: int = 32_768
    budget_usd: float | None = None
    budget_usd_per_key: float | None = None


class Gateway:
    """Answers the requests of one server. Raises UsageError for a run, a model or a price that cannot be served."""

    def __init__(
        self, folder: Path, keys: Keys, bounds: Bounds | None = None, *, allow_unmeasured: bool = False
    ) -> None:
        self.bounds = bounds or Bounds()
        self.keys = keys
        self.metrics = Metrics()
        self.catalog = Catalog(RunFolder(folder), allow_unmeasured=allow_unmeasured)
        config, base = self.catalog.config, folder_of_config(self.catalog.folder)
        self._data = RunData(config, base)
        self._pool = ModelPool(config, self.catalog.folder, None, base, run="", say=lambda line: None)
        self._live: dict[int, SingleModel] = {}
        self.on_news: list[Callable[[str], None]] = []
        """Told a line about a server that is left out, or back, where others answer for the same model."""
        self._samplers: dict[Component, Sampler] = {}
        self._datasets: dict[str, Dataset] = {}
        # Served calls are sent one by one, at the full price, though the run may have used a batch endpoint.
        self.pricing = pricing = Pricing(config.prices, throughput=read_speed(self.catalog.folder))
        bounded = self.bounds
        self.spending = Spending(folder / BOOK, pricing, bounded.budget_usd, bounded.budget_usd_per_key)
        self._upstream = Upstream(config.limits, pricing, self.spending, self.metrics, self._tell)
        self._answerer = Answerer(self._upstream, self.metrics)
        self.admission = Admission(bounded.concurrency, bounded.queue)
        self.on_arrival: list[Callable[[], None]] = []
        """Told when a request comes in."""
        self.traffic: Traffic | None = None
        """What keeps a record of all that is answered, where one is kept."""
        for pair in self.catalog.pairs.values():
            for component in (pair.decomposer, pair.solver):
                if component.kind != "none":
                    self._upstream.check_priced(self.sampler(component).model)
        gauges = self.metrics.gauges
        gauges["fractionate_requests_in_flight"] = ("Requests worked on now.", lambda: self.admission.inside)
        gauges["fractionate_requests_waiting"] = ("Requests waiting for a place.", lambda: self.admission.waiting)
        if self.spending.active:
            gauges["fractionate_budget_spent_usd"] = ("Dollars spent or set aside, ever.", self.spending.spent)

    def sampler(self, component: Component) -> Sampler:
        """Return the model behind a component as it is asked when serving. Raises UsageError where it cannot be."""
        found = self._samplers.get(component)
        if found is None:
            sampler = self._pool.sampler(component)
            temperature = sampler.temperature or self.catalog.config.run.temperature
            found = replace(sampler, model=self._served(sampler.model), temperature=temperature)
            self._samplers[component] = found
        return found

    def plan(self, asked: Asked) -> Plan:
        """Return what a request comes to. Raises Refusal where its model or a field cannot be served."""
        pair = self.catalog.find(asked.model)
        try:
            solver = self.sampler(pair.solver)
            decomposer = self.sampler(pair.decomposer) if pair.decomposer.kind != "none" else None
            self._upstream.check_priced(solver.model)
        except FractionateError as error:  # of a pair that was not measured, and so not opened at the start
            raise Refusal(501, str(error), code="model_not_usable", param="model") from None
        return make_plan(asked, pair, self._dataset, self._data.settings, solver, decomposer, self.catalog.test_sets)

    async def answer(self, plan: Plan, account: str, until: float, on_event: OnEvent | None = None) -> Answered:
        """Answer a planned request by `until` (loop time), when there is a place. Raises Refusal."""
        self.spending.check_left(account)
        for arrived in self.on_arrival:
            arrived()
        async with self.admission:
            started = asyncio.get_running_loop().time()
            answered = await self._answerer.answer(plan, account, until, on_event)
            self.admission.finished(asyncio.get_running_loop().time() - started)
            return answered

    async def check_models(self) -> None:
        """See that every server behind a pair is there. Raises FractionateError naming the first that is not.

        Of a model on several servers one has to be there; the others are told of.
        """
        from fractionate.models.openai.api import OpenAIModel, health_check, unlisted

        looked_at: dict[tuple[str, ...], tuple[Model, list[OpenAIModel]]] = {}
        for sampler in self._samplers.values():
            assert isinstance(sampler.model, SingleModel), "every served model takes requests as they come"
            servers = [one for one in sampler.model.servers if isinstance(one, OpenAIModel)]
            looked_at[tuple(one.base_url for one in servers)] = sampler.model, servers
        for model, servers in looked_at.values():
            faults = []
            for server in servers:
                try:
                    wrong = unlisted(server, await health_check(server))
                except Fault as fault:
                    wrong = fault.message
                    faults.append(fault.message)
                if wrong and len(servers) > 1:
                    self._tell(1, wrong)
            if servers and len(faults) == len(servers):
                raise _not_there(model, "; ".join(faults))

    def _tell(self, count: int, line: str) -> None:
        for told in self.on_news:
            told(line)

    async def load_models(self) -> None:
        """Load local weights, those of the verdict's pair last, so that no client's deadline pays for it."""
        best = next(iter(self.catalog.aliases.values())).pair
        last = [self.sampler(one).model for one in (best.decomposer, best.solver) if one.kind != "none"]
        for model in sorted(self._live.values(), key=lambda one: any(one is each for each in last)):
            await model.complete(Request((Message("user", "?"),), "solver", max_tokens=1))

    async def close(self) -> None:
        """Write the record, close connections and the book."""
        if self.traffic is not None:
            await self.traffic.close()
        for model in self._live.values():
            await model.close()
        await self._pool.close()
        self.spending.close()

    def _served(self, model: Model) -> SingleModel:
        """Return a model that takes requests as they come; one for all that share it, so that they batch together."""
        if isinstance(model, SingleModel):
            return model
        if id(model) not in self._live:
            from fractionate.models.local.live import LiveModel
            from fractionate.models.local.model import LocalModel

            if not (isinstance(model, BatchModel) and isinstance(model, LocalModel)):
                raise Refusal(501, f"{model.name} answers batches alone: it cannot be served", code="model_not_usable")
            self._live[id(model)] = LiveModel(model)
        return self._live[id(model)]

    def dataset_named(self, name: str) -> Dataset:
        """Return how answers of a data set are read and scored in this run. Raises UsageError for an unknown one."""
        return self._data.dataset(name)

    def _dataset(self, test_set: str) -> Dataset:
        if test_set not in self._datasets:
            self._datasets[test_set] = self._data.dataset(self.catalog.test_sets[test_set])
        return self._datasets[test_set]


def _not_there(model: Model, why: str) -> FractionateError:
    shown = why.removeprefix(f"{model.name}: ")
    return FractionateError(f"{model.name} cannot be asked: {shown}; start it or fix that, or serve with --no-check")
