"""The OpenAI chat protocol: request bodies, replies, usage, errors, headers. No I/O, no keys.

Source: https://platform.openai.com/docs/api-reference/chat, and what compatible servers do differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from fractionate.errors import UsageError, printable
from fractionate.models.faults import FatalFault, Fault, PermanentFault, RateHeaders, TransientFault
from fractionate.models.tokens import count_tokens, estimate_messages, input_bound
from fractionate.types import Completion, Message, Request, Usage

TRANSPORT_FIELDS = ("stream", "stream_options")
"""Fields that change how a reply travels, not its content."""
PASSED_ON = frozenset(
    {
        *("max_tokens", "stop", "temperature", "seed", "top_p", "presence_penalty", "frequency_penalty"),
        *("response_format", "reasoning_effort", "verbosity"),
    }
)
"""Sampling fields of a served request that are passed on to the server."""
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_ONE = ("n", "best_of")
_OWN = {
    "model": "the model's name says it",
    "messages": "the strategy writes them",
    **dict.fromkeys(_BOUNDS, "set max_tokens of the model's options instead, which the budget knows"),
    **dict.fromkeys(_ONE, "one reply is read, and all are paid for"),
}
"""Fields that fractionate sends itself, and fields that multiply what a call costs."""
_UNBOUNDED = (
    *("web_search_options", "search_parameters", "enable_search", "plugins", "mcp_servers"),
    *("models", "route", "prediction", "audio", "modalities"),
)
"""Fields by which a call may cost more than its own tokens: searches, other models, drafts, other media."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FATAL = {
    401: ("refused key", "the server refuses the key"),
    402: ("no credit", "the account has no credit left"),
    403: ("refused key", "the server refuses the key"),
    404: ("not found", "the server does not know this model or path"),
}
_BUSY = {429: "too many requests", 503: "overloaded", 529: "overloaded", 408: "timed out", 504: "timed out"}
_FINISHES = {"length": "length", "max_tokens": "length", "content_filter": "content_filter", "refusal": "refusal"}
_ABSURD_INPUT = 100_000
"""Input tokens over the prompt's own bound that no template explains."""
_ABSURD_OUTPUT = 1_000_000
"""Output tokens over `max_tokens` that no thoughts explain: models write a few hundred thousand at most."""
_LONGEST_TOKEN = 32
"""Characters per token, runs of one character aside, that no text reaches on average: prose has 3.5 to 4.7."""
_DISPENSABLE = ("response_format", "temperature", "stream_options", "stop")
"""Fields that a request can do without. The bound on output tokens is not among them: it is renamed, never left out."""
_UNSUPPORTED = re.compile(
    r"\b(?:unsupported|unknown|unrecogni[sz]ed|unexpected|deprecated|not (?:supported|allowed|permitted|recogni[sz]ed)"
    r"|does(?:n't| not) support)\b",
    re.IGNORECASE,
)
_UNSUPPORTED_CODES = ("unsupported_parameter", "unsupported_value", "unknown_parameter")


def check_extra(model: str, extra: Mapping[str, Any]) -> None:
    """Raise UsageError for a field that is not the user's to set."""
    for field, value in extra.items():
        if field in _OWN and not (field in _ONE and value == 1):
            raise UsageError(f'models.options."{model}".extra_body.{field} cannot be set: {_OWN[field]}')


def check_known_cost(model: str, extra: Mapping[str, Any]) -> None:
    """Raise UsageError for a field that makes the cost of a call unknowable, so that no budget could be kept."""
    for field, value in extra.items():
        hosted = field in ("tools", "functions") and not _only_described(value)
        dearer = field == "service_tier" and value == "priority"
        if field in _UNBOUNDED or hosted or dearer:
            raise UsageError(
                f'what a call costs with models.options."{model}".extra_body.{field} cannot be known beforehand, so no '
                "budget can be kept: take the field out, or the caps under [budget]"
            )


def _only_described(tools: object) -> bool:
    """Whether tools are descriptions to read, not services that the provider runs and bills."""
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type", "function") == "function" for tool in tools
    )


def body_of(request: Request, model: str, dropped: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's JSON body. `dropped` names the fields that this server does not support."""
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in request.messages]}
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


def _message(message: Message) -> dict[str, Any]:
    """Return a message as the protocol has it. Those of calls of tools are held as JSON (`types.Message`)."""
    if message.role == "tool_calls":
        said = json.loads(message.content)
        calls = [
            {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
            for one in said["tool_calls"]
        ]
        return {"role": "assistant", "content": said["content"], "tool_calls": calls}
    if message.role == "tool":
        return {"role": "tool", **json.loads(message.content)}
    return {"role": message.role, "content": message.content}


def _asked_tools(message: Mapping[str, Any], request: Request) -> str:
    """Return the calls of tools that a reply asks for, as the JSON that `types.Message` holds; "" where it has none."""
    listed = message.get("tool_calls")
    if not (isinstance(listed, list) and listed and '"tools":' in request.further):
        return ""
    calls = []
    for number, one in enumerate(listed):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise TransientFault("bad body", "the reply calls a tool without a name", maybe_paid=True)
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else "" if arguments is None else _ENCODE(arguments)
        known = one.get("id") if isinstance(one.get("id"), str) and one.get("id") else f"call_{number}"
        calls.append({"id": clean(known), "name": clean(function["name"]), "arguments": clean(text)})
    return _ENCODE({"content": clean(text_of(message.get("content"))), "tool_calls": calls})


def encode(body: Mapping[str, Any]) -> bytes:
    """Return a body as UTF-8 JSON; lone surrogates are replaced."""
    return _ENCODE(body).encode("utf-8", "replace")


def unsupported_field(reply: object, body: Mapping[str, Any]) -> str:
    """Return the field of a body that a 400 or 422 names as unsupported and that can be left out or renamed, else "".

    A mention is not enough: prompts and bounds are quoted in errors too. The error names the field as its `param` and
    says that it is unsupported, or joins both in one phrase ("Unsupported parameter: 'stop'", "`stop` is deprecated").
    """
    message, _, code, param = error_of(reply)
    renamed = "max_completion_tokens" in message or code == "unsupported_parameter"
    if "max_tokens" in body and renamed and _named_unsupported("max_tokens", message, code, param):
        return "max_tokens"
    for name in _DISPENSABLE:
        if name in body and (_named_unsupported(name, message, code, param) or name in _forbidden_extras(reply)):
            return name
    return ""


def _named_unsupported(name: str, message: str, code: str, param: str) -> bool:
    if param:
        return param == name and (code in _UNSUPPORTED_CODES or _UNSUPPORTED.search(message) is not None)
    field = rf"[\"'`]?{name}[\"'`]?(?!\w)"
    kind = r"(?:parameter|argument|field|property|option|key|value)"
    before = rf"(?:unsupported|unknown|unrecogni[sz]ed|unexpected) (?:\w+ )?{kind}s?(?: supplied)?:? {field}"
    verdict = r"(?:is (?:unsupported|deprecated|not (?:supported|allowed|permitted))|does not support)"
    after = rf"(?<!\w){field} (?:{kind} )?{verdict}"
    return re.search(rf"{before}|{after}", message, re.IGNORECASE) is not None


def _forbidden_extras(reply: object) -> set[str]:
    """Return the fields that a server which validates with pydantic forbids (`detail` of a 422)."""
    details = reply.get("detail") if isinstance(reply, dict) else None
    return {
        str(one["loc"][-1])
        for one in (details if isinstance(details, list) else [])
        if isinstance(one, dict)
        and one.get("type") == "extra_forbidden"
        and isinstance(one.get("loc"), list)
        and one["loc"]
    }


def completion_of(reply: object, request: Request, latency_s: float) -> Completion:
    """Read a chat completion. Raises TransientFault for a reply without what it must have."""
    if not isinstance(reply, dict):
        raise TransientFault("bad body", "the reply is no JSON object", maybe_paid=True)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        if reply.get("error"):
            raise fault_in_reply(reply)
        raise TransientFault("empty choices", "the reply has no choices", maybe_paid=True)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise TransientFault("empty choices", "the reply's choice has no message", maybe_paid=True)
    finish = choices[0].get("finish_reason")
    if finish == "insufficient_system_resource":
        raise TransientFault(
            "overloaded", "the server ran out of resources in mid-reply", congested=True, maybe_paid=True
        )
    if finish == "error" or choices[0].get("error"):
        raise fault_in_reply({"error": choices[0].get("error") or "the server broke off in mid-reply"})
    text, reasoning = split_thoughts(text_of(message.get("content")))
    separate = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(separate, str):
        reasoning = separate + reasoning
    refusal, finish_reason, error = message.get("refusal"), _FINISHES.get(str(finish), "stop"), ""
    if isinstance(refusal, str) and refusal:
        finish_reason, error, text = "refusal", clean(refusal), ""
    elif asked := _asked_tools(message, request):
        finish_reason, text = "tool_calls", asked
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

    Impossible are negative counts, more tokens than any prompt or reply explains, and too few for the text: one token
    for a kilobyte. Thoughts that a server counts apart from `completion_tokens` are output all the same: they show in
    `total_tokens`, or as more thoughts than output.
    """
    fields = reported if isinstance(reported, dict) else {}
    inputs, outputs = _count(fields.get("prompt_tokens")), _count(fields.get("completion_tokens"))
    cached = _count(_inner(fields, "prompt_tokens_details", "cached_tokens")) or 0
    thought = _count(_inner(fields, "completion_tokens_details", "reasoning_tokens")) or 0
    if inputs is not None and outputs is not None:
        total = _count(fields.get("total_tokens"))
        apart = total - inputs - outputs if total is not None else thought if thought > outputs else 0
        outputs, thought = outputs + max(0, apart), max(thought, apart)
    counted = 0
    prompt = "".join(message.content for message in request.messages)
    if not inputs or inputs > input_bound(request) + _ABSURD_INPUT or _too_few(inputs, prompt):
        inputs, cached, counted = estimate_messages(request.messages), 0, 1
    too_few = outputs is not None and (
        (outputs == 0 and bool(text or reasoning)) or _too_few(outputs, text + reasoning)
    )
    if outputs is None or too_few or outputs > request.max_tokens + _ABSURD_OUTPUT:
        thought = count_tokens(reasoning)
        outputs, counted = count_tokens(text) + thought, 1
    return Usage(1, inputs, min(cached, inputs), outputs, min(thought, outputs), 0.0, counted)


def _too_few(tokens: int, text: str) -> bool:
    """Return whether a text has too many characters for so few tokens under any vocabulary."""
    if len(text) <= tokens * _LONGEST_TOKEN:
        return False
    # Vocabularies have tokens of a hundred blanks or dashes, so a run counts as one character.
    return len(re.sub(r"(.)\1+", r"\1", text, flags=re.DOTALL)) > tokens * _LONGEST_TOKEN


def fault_of(status: int, reply: object, headers: Mapping[str, str]) -> Fault:
    """Return the fault that an HTTP error stands for.

    Errors of 500 and above but for overload may come after the provider has done its work (a gateway that lost its
    upstream answers 502), so the call may be billed. 503 and 529 turn a call away before any work is done, as 4xx do.
    """
    message, kind, code, _ = error_of(reply)
    said = f": {message}" if message else ""
    lowered = f"{message} {kind} {code}".lower()
    after_s = retry_after(headers)
    if status in _FATAL or "insufficient_quota" in lowered:
        cause, fact = _FATAL.get(status, _FATAL[402])
        return FatalFault(cause, f"{fact} (HTTP {status}){said}")
    if status in _BUSY:
        line, paid = f"{_BUSY[status]} (HTTP {status}){said}", status in (408, 504)
        return TransientFault(str(status), line, after_s=after_s, congested=True, maybe_paid=paid)
    if status >= 500 or status in (409, 425):
        said = f"server error (HTTP {status}){said}"
        return TransientFault(str(status), said, after_s=after_s, maybe_paid=status >= 500)
    if 300 <= status < 400:
        return TransientFault("redirect", f"the server redirects (HTTP {status}){said}", systematic=True)
    if re.search(r"context([ _]length| window)|too (long|many tokens)|maximum.*tokens", lowered):
        return PermanentFault("context too long", f"the request is too long for the model{said}", keep=True)
    if "content_filter" in lowered or "content management policy" in lowered:
        return PermanentFault("filtered", f"a content filter refused{said}", finish_reason="content_filter", keep=True)
    return PermanentFault(f"{status}", f"the server rejects the request (HTTP {status}){said}")


def fault_in_reply(reply: Mapping[str, Any]) -> Fault:
    """Return the fault of an error inside a reply that began with HTTP 200: work was begun and may be billed."""
    fault = fault_of(_status_of(reply["error"]), reply, {})
    fault.maybe_paid = True
    return fault


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
    """Return a server's message as one line of bounded length, safe to print to a terminal."""
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
    kinds = ("requests", "tokens")
    if not any(f"x-ratelimit-remaining-{kind}" in headers for kind in kinds):
        return None
    left = [_number(headers.get(f"x-ratelimit-remaining-{kind}")) for kind in kinds]
    requests, tokens = (None if number is None else int(number) for number in left)
    resets = [duration_s(headers.get(f"x-ratelimit-reset-{kind}", "")) for kind in kinds]
    return RateHeaders(requests, resets[0], tokens, resets[1])


def duration_s(text: str) -> float:
    """Return the seconds of "6m0s", "1.5s", "20ms" or a bare number of seconds; 0 for anything else."""
    if (bare := _number(text)) is not None:
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
