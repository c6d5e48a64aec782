"""Everything that one server holds: its run's pairs, their models, its bounds, ledger and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fractionate.analysis.pricing import Pricing
from fractionate.datasets import OWN_ROWS
from fractionate.datasets.base import Dataset
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import BatchModel, CompositeModel, Model, SingleModel
from fractionate.models.faults import Fault
from fractionate.run.data import RunData
from fractionate.run.folder import RunFolder
from fractionate.run.models import ModelPool
from fractionate.run.records import read_throughput
from fractionate.serve.admission import Admission, Keys
from fractionate.serve.answer import Answered, Answerer, OnEvent
from fractionate.serve.catalog import Catalog, folder_of_config
from fractionate.serve.errors import Refusal
from fractionate.serve.ledger import Ledger
from fractionate.serve.metrics import Metrics
from fractionate.serve.plan import Plan, make_plan
from fractionate.serve.record import Finished
from fractionate.serve.requests import ClientRequest, Feedback
from fractionate.serve.upstream import Upstream
from fractionate.strategies.base import Sampler
from fractionate.tools import parts_of
from fractionate.types import AnswerForm, Component, Message, Request

LEDGER = "serving.sqlite"


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


class Recorder(Protocol):
    """Keeps a record of a gateway's answers and takes feedback on them (`traffic.py`)."""

    def answered(self, finished: Finished) -> None:
        """Record an answered request. Returns at once, and never fails an answer."""

    async def feedback(self, feedback: Feedback, account: str) -> Mapping[str, Any]:
        """Record feedback and return the reply to it. Raises Refusal."""

    async def close(self) -> None:
        """Write what waits."""


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
        self._data = RunData(config, base, _measured_form(self.catalog))
        self._datasets = {one: self._data.dataset(name) for one, name in self.catalog.test_sets.items()}
        self._pool = ModelPool(config, self.catalog.folder, base, run="", say=lambda line: None)
        self._live: dict[int, SingleModel] = {}
        self.on_news: list[Callable[[str], None]] = []
        """Called with a line when a server is left out, or is back, where others answer for the same model."""
        self._samplers: dict[Component, Sampler] = {}
        # Served calls are sent one by one, at the full price, though the run may have used a batch endpoint.
        self.pricing = pricing = Pricing(
            config.prices,
            throughput=read_throughput(self.catalog.folder),
            tools={name: tool.usd_per_call for name, tool in config.tools.items()},
        )
        bounded = self.bounds
        self.ledger = Ledger(folder / LEDGER, pricing, bounded.budget_usd, bounded.budget_usd_per_key)
        self._upstream = Upstream(config.limits, pricing, self.ledger, self.metrics, self._report)
        self._answerer = Answerer(self._upstream, self.metrics)
        self.admission = Admission(bounded.concurrency, bounded.queue)
        self.on_arrival: list[Callable[[], None]] = []
        """Called when a request comes in."""
        self.traffic: Recorder | None = None
        for pair in self.catalog.pairs.values():
            for component in (pair.decomposer, pair.solver):
                if component.kind != "none":
                    for part in parts_of(self.sampler(component).model):
                        self._upstream.check_priced(part)
        gauges = self.metrics.gauges
        gauges["fractionate_requests_in_flight"] = ("Requests in flight.", lambda: self.admission.inside)
        gauges["fractionate_requests_waiting"] = ("Requests waiting for a slot.", lambda: self.admission.waiting)
        if self.ledger.active:
            gauges["fractionate_budget_spent_usd"] = ("Dollars spent or reserved, ever.", self.ledger.spent)

    def sampler(self, component: Component) -> Sampler:
        """Return the model behind a component, as serving uses it. Raises UsageError where it cannot be opened."""
        found = self._samplers.get(component)
        if found is None:
            sampler = self._pool.sampler(component)
            temperature = sampler.temperature or self.catalog.config.run.temperature
            found = replace(sampler, model=self._served(sampler.model), temperature=temperature)
            self._samplers[component] = found
        return found

    def plan(self, request: ClientRequest) -> Plan:
        """Return the plan of a request. Raises Refusal where its model or a parameter cannot be served."""
        pair = self.catalog.find(request.model)
        try:
            solver = self.sampler(pair.solver)
            decomposer = self.sampler(pair.decomposer) if pair.decomposer.kind != "none" else None
            for part in parts_of(solver.model):
                self._upstream.check_priced(part)
            settings, test_sets = self._data.settings, self.catalog.test_sets
            return make_plan(request, pair, self._datasets.__getitem__, settings, solver, decomposer, test_sets)
        except FractionateError as error:  # of a pair that was not measured, and so not opened at the start
            raise Refusal(501, str(error), code="model_not_usable", param="model") from None

    async def answer(self, plan: Plan, account: str, until: float, on_event: OnEvent | None = None) -> Answered:
        """Answer a planned request by `until` (loop time), once a slot is free. Raises Refusal."""
        self.ledger.check_left(account)
        for listener in self.on_arrival:
            listener()
        async with self.admission:
            started = asyncio.get_running_loop().time()
            answered = await self._answerer.answer(plan, account, until, on_event)
            self.admission.finished(asyncio.get_running_loop().time() - started)
            return answered

    async def check_models(self) -> None:
        """Check that every solver's server is reachable. Raises FractionateError naming the first that is not.

        Of a model on several servers, one has to be reachable; the others are reported.
        """
        from fractionate.models.openai.api import OpenAIModel, health_check, unlisted

        looked_at: dict[tuple[str, ...], tuple[Model, list[OpenAIModel]]] = {}
        for model in (part for sampler in self._samplers.values() for part in parts_of(sampler.model)):
            assert isinstance(model, SingleModel), "every served model accepts single requests"
            servers = [one for one in model.servers if isinstance(one, OpenAIModel)]
            looked_at[tuple(one.base_url for one in servers)] = model, servers
        for model, servers in looked_at.values():
            faults = []
            for server in servers:
                try:
                    wrong = unlisted(server, await health_check(server))
                except Fault as fault:
                    wrong = fault.message
                    faults.append(fault.message)
                if wrong and len(servers) > 1:
                    self._report(1, wrong)
            if servers and len(faults) == len(servers):
                raise _not_there(model, "; ".join(faults))

    def _report(self, count: int, line: str) -> None:
        for listener in self.on_news:
            listener(line)

    async def load_models(self) -> None:
        """Load local weights, so that loading counts against no client's deadline; the verdict's pair comes last."""
        best = next(iter(self.catalog.aliases.values())).pair
        last = [
            part
            for one in (best.decomposer, best.solver)
            if one.kind != "none"
            for part in parts_of(self.sampler(one).model)
        ]
        for model in sorted(self._live.values(), key=lambda one: any(one is each for each in last)):
            await model.complete(Request((Message("user", "?"),), "solver", max_tokens=1))

    async def close(self) -> None:
        """Write the record, and close connections and the ledger."""
        if self.traffic is not None:
            await self.traffic.close()
        for model in self._live.values():
            await model.close()
        await self._pool.close()
        self.ledger.close()

    def _served(self, model: Model) -> Model:
        """Return a model that accepts single requests. Pairs with the same weights share it, so calls are batched."""
        if isinstance(model, CompositeModel):
            return model.with_parts([self._served(part) for part in model.parts])
        if isinstance(model, SingleModel):
            return model
        if id(model) not in self._live:
            from fractionate.models.local.live import LiveModel
            from fractionate.models.local.model import LocalModel

            if not (isinstance(model, BatchModel) and isinstance(model, LocalModel)):
                raise Refusal(501, f"{model.name} answers only batches: it cannot be served", code="model_not_usable")
            self._live[id(model)] = LiveModel(model)
        return self._live[id(model)]

    def dataset_named(self, name: str) -> Dataset:
        """Return a data set with this run's scorer. Raises UsageError for an unknown one."""
        return self._data.dataset(name)


def _measured_form(catalog: Catalog) -> AnswerForm:
    """Return the form of answer that a run's own rows were measured with; its data may be gone, so none is inferred.

    Raises UsageError where the form decides how a request is answered, and the run does not say it.
    """
    form, data = catalog.folder.answer_form(), catalog.config.data
    if form == "" and OWN_ROWS in catalog.test_sets.values() and not (data.answer or data.scorer or data.scorers):
        raise UsageError(
            f"{catalog.folder.about} does not say which form of answer was measured: run fractionate evaluate again, "
            f"or set data.answer in {catalog.folder.config}"
        )
    return form or "text"


def _not_there(model: Model, why: str) -> FractionateError:
    shown = why.removeprefix(f"{model.name}: ")
    return FractionateError(f"{model.name} cannot be reached: {shown}; start it or fix that, or serve with --no-check")
