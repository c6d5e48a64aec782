"""A chat request, read strictly: what is taken is heeded, and what cannot be heeded is refused by its name.

Source: https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from fractionate.models.tokens import estimate_messages
from fractionate.serve.refusals import Refusal, bad
from fractionate.types import Message

MOST_CHOICES = 16
MOST_STOPS = 4
LEAST_DEADLINE_S = 1.0
"""Seconds that a client may give a request at least."""
_CONTEXT, _QUESTION = "Context: ", "Question: "
"""How the instructions of this project set out a passage and a question (`strategies/prompting.py`)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One chat request. `given` are the sampling fields that the client set, as it set them."""

    model: str
    question: str
    context: str = ""
    system: str = ""
    history: tuple[Message, ...] = ()
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    test_set: str = ""
    store: bool = True
    """Whether the answer may be recorded, where a record is kept."""
    given: Mapping[str, Any] = field(default_factory=dict)


def read_chat(body: bytes, most_tokens: int) -> Asked:
    """Read a request's body. Raises Refusal (400) naming the field that cannot be heeded.

    `most_tokens` bounds the estimated tokens of all messages together.
    """
    return read_table(read_json(body), most_tokens)


def read_table(table: Mapping[str, Any], most_tokens: int) -> Asked:
    """Read a request's fields. Raises Refusal (400) naming the field that cannot be heeded."""
    for name, value in table.items():
        if value is None:
            continue
        check = _FIELDS.get(name)
        if check is None:
            nearest = get_close_matches(name, _FIELDS, n=1)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            raise bad(f"unknown parameter {_shown(name)}{hint}", _shown(name)[1:-1], "unknown_parameter")
        check(name, value)
    model = table.get("model")
    if model is None:
        raise bad("model is missing: GET /v1/models lists them", "model", "missing_required_parameter")
    own = table.get("fractionate") or {}
    question, context, system, history = _conversation(table.get("messages"), own.get("context"))
    _check_length([*history, Message("user", question), Message("system", system + context)], most_tokens)
    return Asked(
        model=model,
        question=question,
        context=context,
        system=system,
        history=history,
        n=table.get("n") or 1,
        stream=bool(table.get("stream")),
        include_usage=bool((table.get("stream_options") or {}).get("include_usage")),
        test_set=own.get("test_set") or "",
        store=table.get("store") is not False,
        given=_sampling(table),
    )


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises Refusal (400) for anything else."""
    try:
        table = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise bad("the body is no JSON that can be read", code="invalid_json") from None
    if not isinstance(table, dict):
        raise bad("the body must be a JSON object", code="invalid_json")
    return table


def _no_number(name: str) -> None:
    raise ValueError(name)


def _sampling(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling fields that were set, `max_completion_tokens` under its older name."""
    given = {name: table[name] for name in _SAMPLING if table.get(name) is not None}
    limits = [table[name] for name in ("max_tokens", "max_completion_tokens") if table.get(name) is not None]
    if limits:
        given["max_tokens"] = min(limits)
    if "stop" in given:
        given["stop"] = [given["stop"]] if isinstance(given["stop"], str) else given["stop"]
    if given.get("response_format") == {"type": "text"}:
        del given["response_format"]
    return {name: value for name, value in given.items() if value != []}


def _conversation(messages: object, context: str | None) -> tuple[str, str, str, tuple[Message, ...]]:
    """Return (question, context, system text, earlier turns)."""
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list with at least one message", "messages", "missing_required_parameter")
    read = [_message(number, one) for number, one in enumerate(messages)]
    if read[-1][0] != "user":
        where = f"messages[{len(read) - 1}].role"
        raise bad(f"{where} must be user: the last message is the question", where)
    first = next(at for at, (role, _) in enumerate(read) if role != "system")
    system = "\n\n".join(parts[0] for _, parts in read[:first])
    history = tuple(Message(role, "\n\n".join(parts)) for role, parts in read[first:-1])
    question, found = _question(read[-1][1])
    if context is not None and found:
        raise bad("the context is given twice: in the last message and in fractionate.context", "fractionate.context")
    if not question.strip():
        where = f"messages[{len(read) - 1}].content"
        raise bad(f"{where} holds no question", where)
    return question, found or context or "", system, history


def _question(parts: Sequence[str]) -> tuple[str, str]:
    """Return the question and the passage it is about, as the last message sets them out."""
    if len(parts) > 1:
        return parts[-1], "\n\n".join(parts[:-1])
    (text,) = parts
    if text.startswith(_CONTEXT):
        context, cut, question = text[len(_CONTEXT) :].rpartition(f"\n\n{_QUESTION}")
        if cut:
            return question, context
    return text.removeprefix(_QUESTION), ""


def _message(number: int, one: object) -> tuple[str, list[str]]:
    where = f"messages[{number}]"
    if not isinstance(one, dict):
        raise bad(f"{where} must be an object", where)
    role = one.get("role")
    if role not in _ROLES:
        known = "system, developer, user and assistant"
        raise bad(f"{where}.role must be one of {known}: tools are not taken", f"{where}.role")
    for name, value in one.items():
        # Clients send back an assistant's message as they got it, with its thoughts.
        idle = role == "assistant" and name in ("reasoning", "reasoning_content", "annotations", "fractionate")
        if name not in ("role", "content") and value not in (None, [], "") and not idle:
            raise bad(
                f"{where}.{_shown(name)[1:-1]} is not taken", f"{where}.{_shown(name)[1:-1]}", "unknown_parameter"
            )
    parts = _parts(f"{where}.content", one.get("content"))
    role = "system" if role == "developer" else str(role)
    return role, (["\n\n".join(parts)] if role == "system" else parts)


def _parts(where: str, content: object) -> list[str]:
    if isinstance(content, str):
        return [_whole(where, content)]
    if not isinstance(content, list) or not content:
        raise bad(f"{where} must be text or a list of text parts", where)
    texts = []
    for number, part in enumerate(content):
        place = f"{where}[{number}]"
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise bad(f"{place} must be a text part: images, audio and files are not taken", place)
        texts.append(_whole(place, part["text"]))
    return texts


def _whole(where: str, text: str) -> str:
    """Return a text as it is. Raises Refusal where it holds half a character, which no server can be sent."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise bad(f"{where} holds half of a surrogate pair", where) from None
    return text


def _check_length(messages: Sequence[Message], most: int) -> None:
    tokens = estimate_messages(messages)
    if tokens > most:
        said = f"the messages have about {tokens:,} tokens, and this server takes {most:,} (--max-context)"
        raise Refusal(400, said, code="context_length_exceeded", param="messages")


def _shown(name: str) -> str:
    return ascii(name[:60])


Check = Callable[[str, Any], None]


def _number(low: float, high: float, *, whole: bool = False) -> Check:
    kind = "a whole number" if whole else "a number"

    def check(name: str, value: object) -> None:
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not low <= value <= high:  # type: ignore[operator]  # a number, if it is right
            raise bad(f"{name} must be {kind} from {low:g} to {high:g}", name)

    return check


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise bad(f"{name} must be true or false", name)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise bad(f"{name} must be text of 1 to 1,000 characters", name)
    _whole(name, value)


def _object(name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise bad(f"{name} must be an object", name)


def _any(name: str, value: object) -> None:
    """Take whatever stands there: it is read elsewhere."""


def _stops(name: str, value: object) -> None:
    stops = [value] if isinstance(value, str) else value
    right = isinstance(stops, list) and len(stops) <= MOST_STOPS and all(isinstance(s, str) and s for s in stops)
    if not isinstance(stops, list) or not right:
        raise bad(f"{name} must be text, or a list of at most {MOST_STOPS} texts, none of them empty", name)
    for stop in stops:
        _whole(name, stop)


def _format(name: str, value: object) -> None:
    if not isinstance(value, dict) or value.get("type") not in ("text", "json_object", "json_schema"):
        raise bad(f"{name}.type must be text, json_object or json_schema", f"{name}.type")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise bad(f"{name} cannot be sent on: it holds half a character or is nested too deeply", name) from None


def _stream_options(name: str, value: object) -> None:
    _object(name, value)
    for option, setting in value.items():  # type: ignore[attr-defined]  # an object
        if option not in ("include_usage", "include_obfuscation"):
            raise bad(f"unknown parameter {name}.{_shown(option)[1:-1]}", name, "unknown_parameter")
        if setting is not None:
            _flag(f"{name}.{option}", setting)


def _own(name: str, value: object) -> None:
    _object(name, value)
    for key, setting in value.items():  # type: ignore[attr-defined]  # an object
        if key not in ("context", "test_set"):
            raise bad(f"unknown parameter {name}.{_shown(key)[1:-1]}: context or test_set", name, "unknown_parameter")
        if setting is not None and not isinstance(setting, str):
            raise bad(f"{name}.{key} must be text", f"{name}.{key}")
        _whole(f"{name}.{key}", setting or "")


def only(*harmless: object, because: str) -> Check:
    """Take nothing but what changes nothing."""

    def check(name: str, value: object) -> None:
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in harmless):
            raise bad(f"{name} cannot be heeded: {because}", name, "unsupported_parameter")

    return check


_TOOLS = "a pair answers questions, it calls no tools"
_WORDS = "a pair reads and writes text alone"
_ROLES = ("system", "developer", "user", "assistant")
_SAMPLING = (
    *("max_tokens", "temperature", "stop", "seed", "top_p", "presence_penalty", "frequency_penalty"),
    *("response_format", "reasoning_effort", "verbosity"),
)
_FIELDS: Mapping[str, Check] = {
    "model": _text,
    "messages": _any,
    "fractionate": _own,
    "n": _number(1, MOST_CHOICES, whole=True),
    "stream": _flag,
    "stream_options": _stream_options,
    "max_tokens": _number(1, 10**7, whole=True),
    "max_completion_tokens": _number(1, 10**7, whole=True),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _number(-(2**63), 2**63 - 1, whole=True),
    "stop": _stops,
    "response_format": _format,
    "reasoning_effort": _text,
    "verbosity": _text,
    # What changes nothing in the words is taken.
    "user": _text,
    "safety_identifier": _text,
    "prompt_cache_key": _text,
    "metadata": _object,
    "parallel_tool_calls": _flag,
    "store": only(False, because="no answer can be fetched later; false keeps it out of a record"),
    "service_tier": only("auto", "default", because="there is one tier"),
    "modalities": only(["text"], because=_WORDS),
    "tools": only([], because=_TOOLS),
    "tool_choice": only("none", "auto", because=_TOOLS),
    "functions": only([], because=_TOOLS),
    "function_call": only("none", "auto", because=_TOOLS),
    "logprobs": only(False, because="an answer comes of several calls"),
    "top_logprobs": only(0, because="an answer comes of several calls"),
    "logit_bias": only({}, because="an answer comes of several calls, by models of several vocabularies"),
    "audio": only(because=_WORDS),
    "prediction": only(because="an answer comes of several calls"),
    "web_search_options": only(because=_TOOLS),
}
PARAMETERS = tuple(_FIELDS)
"""Every parameter that is read, taken or refused by name."""
