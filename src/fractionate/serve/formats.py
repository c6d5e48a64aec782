"""Answers in the shapes of OpenAI's two APIs, whole or as the events of a stream, with what was measured.

Sources: https://platform.openai.com/docs/api-reference/chat/object and …/responses/object.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from pydantic_core import to_json

from fractionate.serve.answer import Answered, Choice, Event
from fractionate.serve.errors import Refusal
from fractionate.serve.plan import Plan
from fractionate.serve.requests import ClientRequest
from fractionate.types import Role, ToolUse, Usage

_DONE = b"data: [DONE]\n\n"


def encoded(body: object) -> bytes:
    """Return JSON as bytes."""
    try:
        return to_json(body)  # ten times as fast as json.dumps
    except ValueError:  # half of a surrogate pair, in what a model wrote
        return json.dumps(body, separators=(",", ":")).encode()


def _event(body: object) -> bytes:
    """Return one server-sent event."""
    return b"data: %b\n\n" % encoded(body)


class Formatter(Protocol):
    """Writes one answer as an API has it: whole, or as the events of a stream. `id` is the answer's."""

    id: str

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return the whole answer."""

    def opening(self) -> bytes:
        """Return the first events of a stream."""

    def piece(self, event: Event) -> bytes:
        """Return the events of one piece of the answer."""

    def ending(self, answered: Answered) -> bytes:
        """Return the last events of a stream."""

    def failed(self, refusal: Refusal) -> bytes:
        """Return the last event of a stream that breaks off."""


class ChatFormatter:
    """Writes an answer as a chat completion."""

    def __init__(self, request: ClientRequest) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = request.model
        self._include_usage = request.include_usage
        self._begun: set[int] = set()

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return a chat completion."""
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [_choice(choice, several=len(answered.choices) > 1) for choice in answered.choices],
            "usage": _usage_of(answered),
            "fractionate": facts_of(answered),
        }

    def opening(self) -> bytes:
        """Return nothing: a stream of chunks begins with its first piece."""
        return b""

    def piece(self, event: Event) -> bytes:
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
        return _event(chunk)

    def ending(self, answered: Answered) -> bytes:
        """Return the last chunks of a stream: how each choice ended, and what the whole took."""
        return b"".join([*map(_event, self._last_chunks(answered)), _DONE])

    def failed(self, refusal: Refusal) -> bytes:
        """Return the event of an answer that breaks off."""
        return _event(refusal.body())

    def _last_chunks(self, answered: Answered) -> Iterator[dict[str, Any]]:
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
        if self._include_usage:
            yield {**self._chunk([]), "usage": _usage_of(answered), "fractionate": facts}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }


class ResponseFormatter:
    """Writes one answer as a response."""

    def __init__(self, request: ClientRequest) -> None:
        self._request = request
        self.id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._items: list[dict[str, Any]] = []
        self._open = False
        self._number = -1

    def whole(self, answered: Answered) -> dict[str, Any]:
        """Return the response."""
        choice = answered.choices[0]
        if choice.reasoning:
            self._items.append(_item("reasoning", choice.reasoning))
        self._items.append(_item("refusal", choice.refusal) if choice.refusal else _item("message", choice.content))
        return self._response(answered)

    def opening(self) -> bytes:
        """Return the first events."""
        begun = self._response(None)
        return self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)

    def piece(self, event: Event) -> bytes:
        """Return the events of one piece."""
        said = b""
        for kind, text in (("reasoning", event.reasoning), ("message", event.content)):
            if text:
                said += self._turn_to(kind)
                part = self._items[-1]["content"][0]
                part["text"] += text
                name = "response.reasoning_text.delta" if kind == "reasoning" else "response.output_text.delta"
                said += self._event(name, **self._place(), delta=text, **_logprobs(kind))
        return said

    def ending(self, answered: Answered) -> bytes:
        """Return the last events."""
        choice = answered.choices[0]
        said = self._close()
        if choice.refusal or not any(item["type"] == "message" for item in self._items):
            said += self._turn_to("refusal" if choice.refusal else "message")
            if choice.refusal:
                self._items[-1]["content"][0]["refusal"] = choice.refusal
                said += self._event("response.refusal.delta", **self._place(), delta=choice.refusal)
            said += self._close()
        response = self._response(answered)
        return said + self._event(f"response.{response['status']}", response=response)

    def failed(self, refusal: Refusal) -> bytes:
        """Return the event of an answer that breaks off."""
        return self._event("error", message=refusal.message, code=refusal.code or None, param=refusal.param)

    def _turn_to(self, kind: str) -> bytes:
        """Open an item of a kind, unless it is open; close another one first."""
        if self._open and self._items[-1]["type"] == ("reasoning" if kind == "reasoning" else "message"):
            return b""
        said = self._close()
        item = _item(kind, "", status="in_progress")
        self._items.append(item)
        self._open = True
        said += self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item={**item, "content": []}
        )
        return said + self._event("response.content_part.added", **self._place(), part=item["content"][0])

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        item = self._items[-1]
        item["status"] = "completed"
        part = item["content"][0]
        if part["type"] == "refusal":
            said = self._event("response.refusal.done", **self._place(), refusal=part["refusal"])
        else:
            kind = item["type"]
            name = "response.reasoning_text.done" if kind == "reasoning" else "response.output_text.done"
            said = self._event(name, **self._place(), text=part["text"], **_logprobs(kind))
        said += self._event("response.content_part.done", **self._place(), part=part)
        return said + self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return b"event: %b\n" % kind.encode() + _event({"type": kind, "sequence_number": self._number, **fields})

    def _response(self, answered: Answered | None) -> dict[str, Any]:
        finish = answered.choices[0].finish_reason if answered else ""
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish)
        status = "in_progress" if answered is None else "incomplete" if reason else "completed"
        response: dict[str, Any] = {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": self._request.system or None,
            "model": self._request.model,
            "output": list(self._items),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }
        if answered is not None:
            total = answered.usage["decomposer"] + answered.usage["solver"]
            response["usage"] = {
                "input_tokens": total.input_tokens,
                "input_tokens_details": {"cached_tokens": total.cached_input_tokens},
                "output_tokens": total.output_tokens,
                "output_tokens_details": {"reasoning_tokens": total.reasoning_tokens},
                "total_tokens": total.input_tokens + total.output_tokens,
            }
            response["fractionate"] = facts_of(answered)
        return response


def _item(kind: str, text: str, status: str = "completed") -> dict[str, Any]:
    if kind == "reasoning":
        content = [{"type": "reasoning_text", "text": text}]
        return {"id": f"rs_{secrets.token_hex(12)}", "type": kind, "summary": [], "content": content, "status": status}
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if kind == "refusal":
        part = {"type": "refusal", "refusal": text}
    item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "status": status}
    return {**item, "content": [part]}


def _logprobs(kind: str) -> dict[str, Any]:
    return {} if kind == "reasoning" else {"logprobs": []}


def headers_of(plan: Plan, deviations: Iterable[str], *, degraded: bool) -> dict[str, str]:
    """Return the headers that name the pair and say whether the answer is of the measured kind."""
    reasons = ", ".join(deviations)
    headers = {
        "x-fractionate-pair": _header(plan.pair.id),
        "x-fractionate-measured": f"false; {reasons}" if reasons else "true",
    }
    if degraded:
        headers["x-fractionate-degraded"] = "decomposer"
    return headers


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


def _usage_of(answered: Answered) -> dict[str, Any]:
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
    deviations = answered.deviations
    return {
        **_steps(answered.choices[0]),
        "usage": {role: _usage(usage) for role, usage in answered.usage.items()},
        "usd": {**usd, "total": total},
        "seconds": {role: round(seconds, 4) for role, seconds in answered.seconds.items()},
        **({"tools": [_tool(role, *used) for role, used in answered.tools]} if answered.tools else {}),
        "pair": plan.pair.id,
        "measured": not deviations,
        "deviations": deviations,
        "unlike": deviations,  # its name in 0.1: sent for one more release
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


def _tool(role: Role, use: ToolUse, usd: float | None) -> dict[str, Any]:
    return {"role": role, **use._asdict(), "seconds": round(use.seconds, 4), "usd": usd}


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
