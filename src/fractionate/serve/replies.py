"""What a client is sent: answers, streamed chunks, lists of models; in OpenAI's shapes, with what was measured."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fractionate.serve.answer import Answered, Choice, Event
from fractionate.serve.catalog import OWNER, Catalog, Served
from fractionate.serve.plan import Plan
from fractionate.types import Usage

DONE = b"data: [DONE]\n\n"
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def encoded(body: object) -> bytes:
    """Return JSON as bytes."""
    return _ENCODE(body).encode()


def event(body: object) -> bytes:
    """Return one server-sent event."""
    return b"data: %b\n\n" % _ENCODE(body).encode()


class Envelope:
    """What all that is said in answer to one request has in common."""

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = model
        self._begun: set[int] = set()

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return a chat completion."""
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [_choice(choice, several=len(answered.choices) > 1) for choice in answered.choices],
            "usage": usage_of(answered),
            "fractionate": facts_of(answered),
        }

    def chunk(self, event: Event) -> dict[str, Any]:
        """Return one chunk of a stream."""
        delta: dict[str, Any] = {}
        if event.choice not in self._begun:
            self._begun.add(event.choice)
            delta["role"] = "assistant"
        if event.content:
            delta["content"] = event.content
        if event.reasoning:
            delta["reasoning"] = delta["reasoning_content"] = event.reasoning
        chunk = self._chunk([{"index": event.choice, "delta": delta, "logprobs": None, "finish_reason": None}])
        if event.facts:
            chunk["fractionate"] = event.facts
        return chunk

    def ending(self, answered: Answered, *, include_usage: bool) -> Iterator[dict[str, Any]]:
        """Yield the last chunks of a stream: how each choice ended, and what the whole took."""
        facts = facts_of(answered)
        for choice in answered.choices:
            delta: dict[str, Any] = {} if choice.index in self._begun else {"role": "assistant"}
            if choice.refusal:
                delta["refusal"] = choice.refusal
            end = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": choice.finish_reason}
            if len(answered.choices) > 1:
                end["fractionate"] = _steps(choice)
            chunk = self._chunk([end])
            if choice is answered.choices[-1]:
                chunk["fractionate"] = facts
            yield chunk
        if include_usage:
            yield {**self._chunk([]), "usage": usage_of(answered), "fractionate": facts}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def headers_of(plan: Plan, unlike: Iterable[str], *, degraded: bool) -> dict[str, str]:
    """Return the headers that say what an answer is worth."""
    reasons = ", ".join(unlike)
    told = {
        "x-fractionate-pair": _header(plan.pair.id),
        "x-fractionate-measured": f"false; {reasons}" if reasons else "true",
    }
    if degraded:
        told["x-fractionate-degraded"] = "decomposer"
    return told


def _header(text: str) -> str:
    """Return a text as a header can hold it."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _choice(choice: Choice, *, several: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.refusal else choice.content,
        "refusal": choice.refusal or None,
    }
    if choice.reasoning:
        message["reasoning"] = message["reasoning_content"] = choice.reasoning
    found = {"index": choice.index, "message": message, "logprobs": None, "finish_reason": choice.finish_reason}
    return {**found, "fractionate": _steps(choice)} if several else found


def usage_of(answered: Answered) -> dict[str, Any]:
    """Return the usage of all calls together, as OpenAI writes it."""
    total = answered.usage["decomposer"] + answered.usage["solver"]
    return {
        "prompt_tokens": total.input_tokens,
        "completion_tokens": total.output_tokens,
        "total_tokens": total.input_tokens + total.output_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning_tokens},
    }


def facts_of(answered: Answered) -> dict[str, Any]:
    """Return the field `fractionate` of an answer: its steps, usage and dollars by role, and what was measured."""
    plan, usd = answered.plan, answered.usd
    decomposer, solver = usd["decomposer"], usd["solver"]
    total = None if decomposer is None or solver is None else decomposer + solver
    unlike = answered.unlike
    return {
        **_steps(answered.choices[0]),
        "usage": {role: _usage(usage) for role, usage in answered.usage.items()},
        "usd": {**usd, "total": total},
        "pair": plan.pair.id,
        "measured": not unlike,
        "unlike": unlike,
        "outcome": plan.fact,
        "degraded": answered.degraded,
    }


def _steps(choice: Choice) -> dict[str, Any]:
    decomposition = choice.decomposition
    return {
        "answer": None if choice.answer is None else "; ".join(choice.answer),
        "subquestions": list(decomposition.subquestions) if decomposition else [],
        "sub_answers": list(choice.sub_answers),
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def models_of(catalog: Catalog) -> dict[str, Any]:
    """Return the list of models: the verdict's pair first, then shorter names, then every measured pair."""
    listed = [
        _model(catalog, alias.id, alias.pair, {"stands_for": alias.pair.id, "because": alias.because})
        for alias in catalog.aliases.values()
    ]
    listed += [_model(catalog, pair.id, pair, {}) for pair in catalog.pairs.values()]
    return {"object": "list", "data": listed}


def model_of(catalog: Catalog, name: str) -> dict[str, Any]:
    """Return one model. Raises Refusal (404) for one that is not served."""
    alias = catalog.aliases.get(name)
    more = {"stands_for": alias.pair.id, "because": alias.because} if alias else {}
    return _model(catalog, name, catalog.find(name), more)


def _model(catalog: Catalog, name: str, pair: Served, more: Mapping[str, Any]) -> dict[str, Any]:
    verdict = catalog.results["verdict"]
    return {
        "id": name,
        "object": "model",
        "created": catalog.created,
        "owned_by": OWNER,
        "fractionate": {
            **more,
            "strategy": pair.strategy.name,
            "strategy_label": pair.strategy.label,
            "decomposer": pair.decomposer.name,
            "decomposer_model": pair.decomposer.model,
            "solver": pair.solver.name,
            "solver_model": pair.solver.model,
            "answers_new_questions": pair.answers_anew,
            "outcomes": list(pair.facts),
            "verdict": {"distill": verdict["distill"], "because": verdict["because"]},
        },
    }
