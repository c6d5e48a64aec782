"""The OpenAI chat protocol as bytes: request bodies, replies, usage, errors, headers. No I/O, no keys.

Source: https://platform.openai.com/docs/api-reference/chat, and what compatible servers do differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from fractionate.errors import printable
from fractionate.models.faults import FatalFault, Fault, PermanentFault, RateHeaders, TransientFault
from fractionate.models.tokens import count_tokens, estimate_messages, input_bound
from fractionate.types import Completion, Request, Usage

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FINISHES = {"length": "length", "max_tokens": "length", "content_filter": "content_filter", "refusal": "refusal"}
_ABSURD_INPUT = 100_000
"""Input tokens over the prompt's own bound that no template explains."""
_ABSURD_OUTPUT = 1_000_000
"""Output tokens over `max_tokens` that no thoughts explain: models write a few hundred thousand at most."""


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
    if request.further:
        body.update(json.loads(request.further))
    return body


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as UTF-8 JSON; lone surrogates are replaced."""
    return _ENCODE(body).encode("utf-8", "replace")


def rejected_field(message: str, param: str, body: Mapping[str, Any]) -> str:
    """Return the field of the body that a 400 complains about and that can be left out or renamed, else ""."""
    if "max_tokens" in body and (param == "max_tokens" or "max_completion_tokens" in message):
        return "max_tokens"
    for name in ("response_format", "temperature", "stream_options", "stop"):
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
            raise fault_of(status_of(reply["error"]), reply, {})
        raise TransientFault("empty choices", "the reply has no choices", maybe_paid=True)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise TransientFault("empty choices", "the reply's choice has no message", maybe_paid=True)
    finish = choices[0].get("finish_reason")
    if finish == "insufficient_system_resource":
        raise TransientFault("overloaded", "the server ran out of resources in mid-reply", congested=True)
    text, reasoning = split_thoughts(text_of(message.get("content")))
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
    """Return the usage as reported, or an estimate flagged `counted` where it is missing or impossible.

    Thoughts that a server counts apart from `completion_tokens` are output all the same: they show in `total_tokens`,
    or as more thoughts than output.
    """
    told = reported if isinstance(reported, dict) else {}
    inputs, outputs = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    cached = _count(_inner(told, "prompt_tokens_details", "cached_tokens")) or 0
    thought = _count(_inner(told, "completion_tokens_details", "reasoning_tokens")) or 0
    if inputs is not None and outputs is not None:
        total = _count(told.get("total_tokens"))
        apart = total - inputs - outputs if total is not None else thought if thought > outputs else 0
        outputs, thought = outputs + max(0, apart), max(thought, apart)
    counted = 0
    if not inputs or inputs > input_bound(request) + _ABSURD_INPUT:
        inputs, cached, counted = estimate_messages(request.messages), 0, 1
    if outputs is None or (outputs == 0 and (text or reasoning)) or outputs > request.max_tokens + _ABSURD_OUTPUT:
        thought = count_tokens(reasoning)
        outputs, counted = count_tokens(text) + thought, 1
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
    """Return a server's words as one line of bounded length, which a terminal only shows."""
    text = printable(" ".join(clean(str(value)).split()))
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
        except (TypeError, ValueError, OverflowError, OSError):
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
    parts = re.findall(r"(\d{1,12}(?:\.\d{1,12})?)(ms|h|m|s)", text[:100])
    return sum(float(number) * units[unit] for number, unit in parts)


def text_of(content: object) -> str:
    """Return a message's text, whole or in parts; "" for anything else."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):  # parts: [{"type": "text", "text": …}, …]
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def status_of(error: object) -> int:
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
