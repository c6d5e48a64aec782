"""The OpenAI chat protocol as bytes: request bodies, replies, errors, server-sent events. No I/O, no keys.

Source: https://platform.openai.com/docs/api-reference/chat, and what compatible servers do differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from fractionate.models.faults import FatalFault, Fault, PermanentFault, RateHeaders, TransientFault
from fractionate.models.tokens import count_tokens, estimate_messages, input_bound
from fractionate.types import Completion, Request, Usage

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FINISHES = {"length": "length", "max_tokens": "length", "content_filter": "content_filter", "refusal": "refusal"}
_ABSURD = 100_000
"""Input tokens over the prompt's own bound that no template or tool list explains."""


def body_of(request: Request, model: str, dropped: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's JSON body. `dropped` names fields this server has rejected before."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
    }
    body["max_completion_tokens" if "max_tokens" in dropped else "max_tokens"] = request.max_tokens
    if "temperature" not in dropped:
        body["temperature"] = request.temperature
    if request.stop and "stop" not in dropped:
        body["stop"] = list(request.stop)
    if request.response_format and "response_format" not in dropped:
        body["response_format"] = json.loads(request.response_format)
    body.update(extra)
    return body


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as UTF-8 JSON; lone surrogates are replaced."""
    return _ENCODE(body).encode("utf-8", "replace")


def rejected_field(message: str, param: str, body: Mapping[str, Any]) -> str:
    """Return the field of the body that a 400 complains about and that can be left out or renamed, else ""."""
    if "max_tokens" in body and (param == "max_tokens" or "max_completion_tokens" in message):
        return "max_tokens"
    for name in ("response_format", "temperature", "stop"):
        if name in body and (param == name or re.search(rf"\b{name}\b", message)):
            return name
    return ""


def completion_of(reply: object, request: Request, latency_s: float) -> Completion:
    """Read a chat completion. Raises TransientFault for a reply without what it must have."""
    if not isinstance(reply, dict):
        raise TransientFault("bad body", "the reply is no JSON object", maybe_paid=True)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        if reply.get("error"):
            raise fault_of(_status_of(reply["error"]), reply, {})
        raise TransientFault("empty choices", "the reply has no choices", maybe_paid=True)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise TransientFault("empty choices", "the reply's choice has no message", maybe_paid=True)
    finish = choices[0].get("finish_reason")
    if finish == "insufficient_system_resource":
        raise TransientFault("overloaded", "the server ran out of resources in mid-reply", congested=True)
    text, reasoning = split_thoughts(_text_of(message.get("content")))
    told = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(told, str):
        reasoning = told + reasoning
    refusal = message.get("refusal")
    finish_reason = _FINISHES.get(str(finish), "stop")
    error = ""
    if isinstance(refusal, str) and refusal:
        finish_reason, error, text = "refusal", clean(refusal), ""
    usage = usage_of(reply.get("usage"), request, text, reasoning)
    return Completion(clean(text), finish_reason, usage, latency_s, clean(reasoning), error)


def split_thoughts(text: str) -> tuple[str, str]:
    """Split `<think>…</think>` from a reply: (answer, thoughts). An unclosed block is all thoughts.

    Some chat templates open the block in the prompt, so that only `</think>` is in the reply.
    """
    if "think>" not in text:
        return text, ""
    stripped = text.lstrip()
    if stripped.startswith("<think>"):
        thoughts, closed, answer = stripped[len("<think>") :].partition("</think>")
        return (answer.lstrip() if closed else ""), thoughts.strip()
    before, closed, answer = text.partition("</think>")
    if closed and "<think>" not in before:
        return answer.lstrip(), before.strip()
    return text, ""


def usage_of(reported: object, request: Request, text: str, reasoning: str) -> Usage:
    """Return the usage as reported, or an estimate flagged `counted` where it is missing or impossible."""
    told = reported if isinstance(reported, dict) else {}
    inputs, outputs = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    cached = _count(_inner(told, "prompt_tokens_details", "cached_tokens")) or 0
    thought = _count(_inner(told, "completion_tokens_details", "reasoning_tokens")) or 0
    if inputs is None or inputs == 0 or (inputs > _ABSURD and inputs > input_bound(request) + _ABSURD):
        inputs, cached, counted = estimate_messages(request.messages), 0, 1
    else:
        counted = 0
    if outputs is None or (outputs == 0 and (text or reasoning)):
        outputs, counted = count_tokens(text) + count_tokens(reasoning), 1
        thought = count_tokens(reasoning)
    return Usage(1, inputs, min(cached, inputs), outputs, min(thought, outputs), 0.0, counted)


def fault_of(status: int, reply: object, headers: Mapping[str, str]) -> Fault:
    """Return what an HTTP error means."""
    message, kind, code, _ = error_of(reply)
    said = f": {message}" if message else ""
    lowered = f"{message} {kind} {code}".lower()
    after_s = retry_after(headers)
    if status in (401, 403):
        return FatalFault("refused key", f"the server refuses the key (HTTP {status}){said}")
    if status == 404:
        return FatalFault("not found", f"the server does not know this model or path (HTTP 404){said}")
    if status == 402 or "insufficient_quota" in lowered:
        return FatalFault("no credit", f"the account has no credit left (HTTP {status}){said}")
    if status == 429:
        return TransientFault("429", f"too many requests (HTTP 429){said}", after_s=after_s, congested=True)
    if status in (503, 529):
        return TransientFault(str(status), f"overloaded (HTTP {status}){said}", after_s=after_s, congested=True)
    if status in (408, 504):
        return TransientFault(
            str(status), f"timed out (HTTP {status}){said}", after_s=after_s, congested=True, maybe_paid=True
        )
    if status >= 500 or status in (409, 425):
        return TransientFault(str(status), f"server error (HTTP {status}){said}", after_s=after_s)
    if 300 <= status < 400:
        return TransientFault("redirect", f"the server redirects (HTTP {status}){said}", systematic=True)
    if "context_length" in lowered or re.search(
        r"context (length|window)|too (long|many tokens)|maximum.*tokens", lowered
    ):
        return PermanentFault("context too long", f"the request is too long for the model{said}", keep=True)
    if "content_filter" in lowered or "content management policy" in lowered:
        return PermanentFault("filtered", f"a content filter refused{said}", finish_reason="content_filter", keep=True)
    return PermanentFault(f"{status}", f"the server rejects the request (HTTP {status}){said}")


def error_of(reply: object) -> tuple[str, str, str, str]:
    """Return (message, type, code, param) of an error body in any of the usual forms, "" where absent."""
    if isinstance(reply, dict):
        error = reply.get("error", reply)
        if isinstance(error, dict):
            message = error.get("message") or error.get("detail") or ""
            fields = [message, error.get("type"), error.get("code"), error.get("param")]
            text, kind, code, param = (one_line(value) if value else "" for value in fields)
            return text, kind, code, param
        return one_line(error), "", "", ""
    return (one_line(reply) if isinstance(reply, str) else ""), "", "", ""


def one_line(value: object, length: int = 300) -> str:
    """Return a server's words as one line of bounded length."""
    text = " ".join(clean(str(value)).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def clean(text: str) -> str:
    """Replace lone surrogates (half an emoji in a reply's JSON), which neither UTF-8 nor SQLite can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After (seconds or a date) or retry-after-ms asks for, None if neither does."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is None and value:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (TypeError, ValueError):
            return None
    return None if seconds is None else max(0.0, seconds)


def rate_of(headers: Mapping[str, str]) -> RateHeaders | None:
    """Read the x-ratelimit headers, None if there are none."""
    requests, tokens = headers.get("x-ratelimit-remaining-requests"), headers.get("x-ratelimit-remaining-tokens")
    if requests is None and tokens is None:
        return None
    left_requests, left_tokens = _number(requests), _number(tokens)
    return RateHeaders(
        None if left_requests is None else int(left_requests),
        duration_s(headers.get("x-ratelimit-reset-requests", "")),
        None if left_tokens is None else int(left_tokens),
        duration_s(headers.get("x-ratelimit-reset-tokens", "")),
    )


def duration_s(text: str) -> float:
    """Return the seconds of "6m0s", "1.5s", "20ms" or a bare number of seconds; 0 for anything else."""
    bare = _number(text)
    if bare is not None:
        return max(0.0, bare)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text))


def join_events(data: bytes) -> dict[str, Any]:
    """Join server-sent chat chunks into one reply, repeated events once.

    Raises TransientFault if the stream stops before its end.
    """
    text, reasoning, refusal = [], [], []
    finish: object = None
    usage: object = None
    ended = False
    for event in _events(data):
        if event == b"[DONE]":
            ended = True
            continue
        chunk = _loads(event)
        if not isinstance(chunk, dict):
            raise TransientFault("bad body", "an event of the stream is no JSON object", maybe_paid=True)
        if chunk.get("error"):
            raise fault_of(_status_of(chunk["error"]), chunk, {})
        usage = chunk.get("usage") or usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if not isinstance(choice, dict):
                continue
            delta = choice.get("delta")
            if finish is None and isinstance(delta, dict):  # whatever follows the end is a repetition
                text.append(_text_of(delta.get("content")))
                reasoning.append(_text_of(delta.get("reasoning_content") or delta.get("reasoning")))
                refusal.append(_text_of(delta.get("refusal")))
            finish = choice.get("finish_reason") or finish
    if finish is None and not ended:
        raise TransientFault("cut short", "the stream ended before its last event", maybe_paid=True)
    message = {"content": "".join(text), "reasoning_content": "".join(reasoning), "refusal": "".join(refusal)}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def _events(data: bytes) -> list[bytes]:
    """Return the data of each event, repetitions left out.

    Two equal neighbours may be two equal tokens, so a repetition shows by its SSE id, or by every event (the first and
    the last too, which a reply has once) coming twice.
    """
    events: list[bytes] = []
    last = b""
    for block in re.split(rb"\r?\n\r?\n", data):
        lines = block.splitlines()
        event = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        marker = next((line for line in lines if line.startswith(b"id:")), b"")
        if event and not (marker and marker == last):
            events.append(event)
            last = marker
    return events[::2] if events[::2] == events[1::2] and len(events) > 2 else events


def _loads(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts: [{"type": "text", "text": …}, …]
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def _status_of(error: object) -> int:
    """Return the HTTP status that an error inside a 200 reply names; 500 if it names none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _inner(table: Mapping[str, Any], name: str, field: str) -> object:
    inner = table.get(name)
    return inner.get(field) if isinstance(inner, dict) else None


def _count(value: object) -> int | None:
    """Return a token count, None unless it is a whole number from 0 to what SQLite can hold."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**62 else None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else None
    except ValueError:
        return None
    return number if number is not None and number == number and abs(number) != float("inf") else None
