"""The plan of a request, before any call: its pair, its sampling, and its deviations from the measured kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fractionate.datasets.base import Dataset
from fractionate.models.base import Call
from fractionate.serve.catalog import Record, Served
from fractionate.serve.errors import bad
from fractionate.serve.requests import ClientRequest
from fractionate.strategies.base import Sampler, Settings
from fractionate.types import Problem, Request

_OWN_WORDS = ("stop", "response_format")
"""Parameters that cannot apply where the answer may be the decomposer's own text."""


@dataclass
class Plan:
    """One request, ready to be worked through.

    `changes` are the sampling fields that differ from the measured final call; `deviations` says, a word each, why
    each why the answer is not one of the measured kind.
    """

    client_request: ClientRequest
    pair: Served
    fact: Record | None
    dataset: Dataset
    settings: Settings
    solver: Sampler
    decomposer: Sampler | None
    changes: Mapping[str, Any]
    deviations: list[str] = field(default_factory=list)

    @property
    def problem(self) -> Problem:
        """The client's question, within its conversation."""
        asked = self.client_request
        history = (
            *([("system", asked.system)] if asked.system else []),
            *((turn.role, turn.content) for turn in asked.history),
        )
        return Problem("", asked.question, (), asked.context, self.dataset.name, index=-1, history=history)

    @property
    def streams_text(self) -> bool:
        """Whether the final call's text is the answer as it stands (a structured reply is rewritten first)."""
        return not self.solver.structured or "response_format" in self.changes

    def request(self, call: Call) -> Request:
        """Return the request of a call: with the client's sampling if the call is final."""
        if call.final and self.client_request.given and call.model.style != "tool":
            return self._sampled(call.request)
        return call.request

    def _sampled(self, request: Request) -> Request:
        changes = self.changes
        most = changes.get("max_tokens", request.max_tokens)
        if most < request.max_tokens and "max_tokens" not in self.deviations:
            self.deviations.append("max_tokens")
        further = {name: value for name, value in changes.items() if name != "max_tokens"}
        own_format = changes.get("response_format")
        return replace(
            request,
            max_tokens=min(most, request.max_tokens),
            temperature=changes.get("temperature", request.temperature),
            stop=tuple(changes.get("stop", request.stop)),
            # Replies in this process differ by the sample's number; a server is sent the seed itself.
            sample=request.sample if self.solver.model.paid else request.sample + changes.get("seed", 0),
            response_format=_canonical(own_format) if own_format else request.response_format,
            further=_canonical(json.loads(request.further or "{}") | further)
            if further and self.solver.model.paid
            else request.further,
        )


def make_plan(
    request: ClientRequest,
    pair: Served,
    dataset_of: Callable[[str], Dataset],
    settings_of: Callable[[Dataset, str], Settings],
    solver: Sampler,
    decomposer: Sampler | None,
    test_sets: Mapping[str, str],
) -> Plan:
    """Return the plan of a request. Raises Refusal (400) naming a parameter that the pair's solver does not support."""
    if request.test_set and request.test_set not in test_sets:
        known = ", ".join(test_sets)
        raise bad(f"fractionate.test_set is not one of this run's: {known}", "fractionate.test_set")
    fact = pair.fact(request.test_set)
    dataset = dataset_of(request.test_set or (fact["test_set"] if fact else next(iter(test_sets))))
    changes = {
        name: value for name, value in request.given.items() if name != "temperature" or value != solver.temperature
    }
    for name in changes:
        if name not in solver.model.takes:
            raise bad(
                f"{name} is not supported by {pair.solver.name} ({solver.model.name})", name, "unsupported_parameter"
            )
        if name in _OWN_WORDS and pair.strategy.stages == "dynamic":
            raise bad(
                f"{name} is not supported: by {pair.strategy.name} the answer may be the decomposer's own text",
                name,
                "unsupported_parameter",
            )
    deviations = [name for name, there in (("history", request.history), ("system", request.system)) if there]
    deviations += [name for name in changes if name != "max_tokens"]
    if fact is None:
        deviations.append("pair")
    settings = settings_of(dataset, pair.decomposer.name)
    return Plan(request, pair, fact, dataset, settings, solver, decomposer, changes, deviations)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
