"""The Responses API, as far as one request alone goes: read into the same request, told in its own shapes.

Nothing is kept between requests, so what refers to an earlier one is refused by name.
Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.serve.answer import Answered, Event
from fractionate.serve.chat import Asked, Check, only, read_json, read_table
from fractionate.serve.refusals import Refusal, bad
from fractionate.serve.replies import facts_of

_AS_IN_CHAT = (
    *("model", "stream", "temperature", "top_p", "user", "metadata", "safety_identifier", "prompt_cache_key"),
    *("service_tier", "parallel_tool_calls", "tools", "tool_choice", "top_logprobs", "fractionate"),
)
_NAMES = {"messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text.format"}
"""Fields of a chat request by what they are called here."""
_KEPT = "this server keeps nothing between requests"
_OF_OTHERS: Mapping[str, Check] = {
    "store": only(True, False, because="it must be true or false"),  # false keeps an answer out of a record
    "background": only(False, because=_KEPT),
    "include": only([], because="an answer has all its fields"),
    "truncation": only("disabled", because="a conversation that is too long is refused"),
    "previous_response_id": only(because=f"{_KEPT}: send the conversation as input"),
    "conversation": only(because=f"{_KEPT}: send the conversation as input"),
    "prompt": only(because=_KEPT),
    "max_tool_calls": only(because="a pair answers questions, it calls no tools"),
}
PARAMETERS = (
    *_AS_IN_CHAT,
    *_OF_OTHERS,
    "input",
    "instructions",
    "max_output_tokens",
    "text",
    "reasoning",
    "stream_options",
)
"""Every parameter that is read, taken or refused by name."""


def read_response(body: bytes, most_tokens: int) -> Asked:
    """Read a request's body. Raises Refusal (400) naming the field that cannot be heeded."""
    given = {name: value for name, value in read_json(body).items() if value is not None}
    for name in given:
        if name not in PARAMETERS:
            raise bad(f"unknown parameter {name[:60]!a}", name[:60], "unknown_parameter")
    for name, check in _OF_OTHERS.items():
        if name in given:
            check(name, given[name])
    table = {name: given[name] for name in _AS_IN_CHAT if name in given}
    if given.get("store") is False:
        table["store"] = False
    table["messages"], places = _messages(given)
    if "max_output_tokens" in given:
        table["max_completion_tokens"] = given["max_output_tokens"]
    table |= _text(given.get("text", {})) | _reasoning(given.get("reasoning", {}))
    if not isinstance(given.get("stream_options", {}), dict):
        raise bad("stream_options must be an object", "stream_options")
    try:
        return read_table(table, most_tokens)
    except Refusal as refusal:
        raise _renamed(refusal, places) from None


def _renamed(refusal: Refusal, places: Sequence[str]) -> Refusal:
    """Return a refusal that names the field as this API calls it; `places` are those of the messages."""

    def place(found: re.Match[str]) -> str:
        return places[int(found[1])]

    for ours, theirs in _NAMES.items():
        if (refusal.param or "").startswith(ours):
            refusal.param, refusal.message = (
                re.sub(r"\bmessages\[(\d+)\]", place, text).replace(ours, theirs)
                for text in (refusal.param or "", refusal.message)
            )
    return refusal


def _messages(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the input as chat messages, and where each stands in the request."""
    asked = given.get("input")
    if asked is None:
        raise bad("input is missing", "input", "missing_required_parameter")
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(items, list) or not items:
        raise bad("input must be text or a list of messages", "input")
    instructions = given.get("instructions", "")
    if not isinstance(instructions, str):
        raise bad("instructions must be text", "instructions")
    read = [(_message(number, item), f"input[{number}]") for number, item in enumerate(items)]
    first = [({"role": "system", "content": instructions}, "instructions")] if instructions else []
    placed = [*first, *((message, place) for message, place in read if message is not None)]
    return [message for message, _ in placed], [place for _, place in placed]


def _message(number: int, item: object) -> dict[str, Any] | None:
    """Return an item of the input as a chat message; None for the reasoning of an earlier answer, sent back."""
    where = f"input[{number}]"
    if not isinstance(item, dict):
        raise bad(f"{where} must be an object", where)
    kind = item.get("type", "message")
    if kind == "reasoning":
        return None
    if kind != "message":
        raise bad(f"{where}.type must be message: tools, files and references are not taken", f"{where}.type")
    for name, value in item.items():
        if name not in ("type", "role", "content", "id", "status", "phase", "fractionate") and value not in (
            None,
            [],
            "",
        ):
            raise bad(f"{where}.{ascii(name[:60])[1:-1]} is not taken", where, "unknown_parameter")
    content = item.get("content")
    if isinstance(content, list):
        content = [_part(part) for part in content]
    return {"role": item.get("role"), "content": content}


def _part(part: object) -> object:
    if isinstance(part, dict) and part.get("type") in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    return part if not isinstance(part, dict) or part.get("type") != "text" else {}


def _text(text: object) -> dict[str, Any]:
    if not isinstance(text, dict) or not text.keys() <= {"format", "verbosity"}:
        raise bad("text must be an object with format or verbosity", "text")
    found = {name: text[name] for name in ("verbosity",) if text.get(name) is not None}
    wanted = text.get("format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        wanted = {"type": "json_schema", "json_schema": {key: wanted[key] for key in wanted if key != "type"}}
    return found | ({"response_format": wanted} if wanted is not None else {})


def _reasoning(reasoning: object) -> dict[str, Any]:
    if not isinstance(reasoning, dict) or not reasoning.keys() <= {"effort", "summary", "generate_summary"}:
        raise bad("reasoning must be an object with effort or summary", "reasoning")
    return {"reasoning_effort": reasoning["effort"]} if reasoning.get("effort") is not None else {}


class ResponseTeller:
    """Tells one answer as a response, whole or as its events."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
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
        for kind, words in (("reasoning", event.reasoning), ("message", event.content)):
            if words:
                said += self._turn_to(kind)
                part = self._items[-1]["content"][0]
                part["text"] += words
                name = "response.reasoning_text.delta" if kind == "reasoning" else "response.output_text.delta"
                said += self._event(name, **self._place(), delta=words, **_logprobs(kind))
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
        data = json.dumps({"type": kind, "sequence_number": self._number, **fields}, separators=(",", ":"))
        return f"event: {kind}\ndata: {data}\n\n".encode()

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
            "instructions": self._asked.system or None,
            "model": self._asked.model,
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
