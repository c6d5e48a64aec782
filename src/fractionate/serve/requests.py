"""Request bodies, read: from JSON to a `ClientRequest` or `Feedback`, or to a refusal that names the field at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from fractionate.datasets.jsonl import read_answers
from fractionate.models.tokens import count_tokens
from fractionate.serve.errors import Refusal, bad
from fractionate.serve.parameters import (
    ChatParameters,
    CommonParameters,
    Extension,
    FeedbackParameters,
    InputMessage,
    Parameters,
    ReasoningOptions,
    ResponseFormat,
    ResponseParameters,
    TextOptions,
    TextPart,
)
from fractionate.types import Answer, Message

MOST_ANSWERS = 100
MOST_ANSWER_CHARACTERS = 10_000
_CONTEXT, _QUESTION = "Context: ", "Question: "
"""The labels of a passage and a question in this project's own prompts (`strategies/prompting.py`)."""
_SAMPLING = (
    *("max_tokens", "temperature", "stop", "seed", "top_p", "presence_penalty", "frequency_penalty"),
    *("response_format", "reasoning_effort", "verbosity"),
)
_Model = TypeVar("_Model", bound=Parameters)


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request of a client, in either API. `given` holds the sampling fields that the client set."""

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


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback on an answer: right or wrong, or (`right` is None) the accepted answers."""

    id: str
    right: bool | None
    answers: tuple[Answer, ...] = ()


def read_chat(body: bytes, most_tokens: int) -> ClientRequest:
    """Read a chat request. Raises Refusal (400) naming the parameter at fault.

    `most_tokens` bounds the estimated tokens of the whole request, all fields together.
    """
    given = _read(ChatParameters, body, most_tokens, "messages")
    sampling = {name: value for name in _SAMPLING if (value := getattr(given, name)) is not None}
    if given.max_completion_tokens is not None:
        sampling["max_tokens"] = min(given.max_completion_tokens, given.max_tokens or given.max_completion_tokens)
    if isinstance(given.stop, str):
        sampling["stop"] = [given.stop]
    turns = [_Turn(one.role, _texts(one.content), f"messages[{at}]") for at, one in enumerate(given.messages)]
    return _request(
        given,
        turns,
        sampling,
        given.response_format,
        n=given.n or 1,
        include_usage=bool(given.stream_options and given.stream_options.include_usage),
    )


def read_response(body: bytes, most_tokens: int) -> ClientRequest:
    """Read a request of the Responses API, in the terms of `read_chat`."""
    given = _read(ResponseParameters, body, most_tokens, "input")
    reasoning, text = given.reasoning or ReasoningOptions(), given.text or TextOptions()
    sampling = {
        "max_tokens": given.max_output_tokens,
        "temperature": given.temperature,
        "top_p": given.top_p,
        "reasoning_effort": reasoning.effort,
        "verbosity": text.verbosity,
    }
    turns = [_Turn("system", (given.instructions,), "instructions")] if given.instructions else []
    if isinstance(given.input, str):
        turns.append(_Turn("user", (given.input,), "input"))
    else:
        turns += [
            _Turn(one.role, _texts(one.content), f"input[{at}]")
            for at, one in enumerate(given.input)
            if isinstance(one, InputMessage)
        ]
    set_by_client = {name: value for name, value in sampling.items() if value is not None}
    return _request(given, turns, set_by_client, text.format, nested=True)


def read_feedback(body: bytes) -> Feedback:
    """Read feedback. Raises Refusal (400) naming the field at fault."""
    given = _read(FeedbackParameters, body)
    if (given.right is None) == (given.answer is None):
        where = "right" if given.answer is None else "answer"
        raise bad("give either right (true or false) or answer (the right answer)", where)
    if given.answer is None:
        return Feedback(given.id, given.right)
    try:
        answers = read_answers(given.answer)
    except ValueError as error:
        raise bad(f"answer must be the right answer, or a list of accepted answers: {error}", "answer") from None
    characters = sum(len(span) for answer in answers for span in answer)
    if len(answers) > MOST_ANSWERS or characters > MOST_ANSWER_CHARACTERS:
        most = f"{MOST_ANSWERS} answers and {MOST_ANSWER_CHARACTERS:,} characters"
        raise bad(f"answer may hold at most {most}", "answer")
    return Feedback(given.id, None, answers)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One message: its role, its text parts, and where it stands in the request."""

    role: str
    texts: tuple[str, ...]
    where: str


def _texts(content: str | Iterable[TextPart]) -> tuple[str, ...]:
    return (content,) if isinstance(content, str) else tuple(part.text for part in content)


def _request(
    given: CommonParameters,
    turns: Sequence[_Turn],
    sampling: dict[str, Any],
    reply_format: ResponseFormat | None,
    *,
    nested: bool = False,
    n: int = 1,
    include_usage: bool = False,
) -> ClientRequest:
    """Return a request from what both APIs have in common. `nested` says that a JSON schema stands beside its type."""
    sampling.pop("response_format", None)
    if reply_format is not None and reply_format.type != "text":
        name = "text.format" if nested else "response_format"
        sampling["response_format"] = _sendable(name, reply_format, nested=nested)
    own = given.fractionate or Extension()
    question, context, system, history = _conversation(turns, own.context)
    return ClientRequest(
        model=given.model,
        question=question,
        context=context,
        system=system,
        history=history,
        n=n,
        stream=bool(given.stream),
        include_usage=include_usage,
        test_set=own.test_set or "",
        store=getattr(given, "store", None) is not False,
        given={name: value for name, value in sampling.items() if value != []},
    )


def _conversation(turns: Sequence[_Turn], context: str | None) -> tuple[str, str, str, tuple[Message, ...]]:
    """Return (question, context, system text, earlier turns)."""
    if not turns or turns[-1].role != "user":
        where = f"{turns[-1].where}.role" if turns else "input"
        raise bad(f"{where} must be user: the last message is the question", where)
    last = turns[-1]
    first = next(at for at, turn in enumerate(turns) if turn.role not in ("system", "developer"))
    system = "\n\n".join("\n\n".join(turn.texts) for turn in turns[:first])
    history = tuple(
        Message("system" if turn.role == "developer" else turn.role, "\n\n".join(turn.texts))
        for turn in turns[first:-1]
    )
    question, found = _question(last.texts)
    if context is not None and found:
        raise bad("the context is given twice: in the last message and in fractionate.context", "fractionate.context")
    if not question.strip():
        where = last.where if last.where == "input" else f"{last.where}.content"
        raise bad(f"{where} holds no question", where)
    return question, found or context or "", system, history


def _question(parts: Sequence[str]) -> tuple[str, str]:
    """Return the question and its passage, as the last message sets them out."""
    if len(parts) > 1:
        return parts[-1], "\n\n".join(parts[:-1])
    (text,) = parts
    if text.startswith(_CONTEXT):
        context, cut, question = text[len(_CONTEXT) :].rpartition(f"\n\n{_QUESTION}")
        if cut:
            return question, context
    return text.removeprefix(_QUESTION), ""


def _sendable(name: str, reply_format: ResponseFormat, *, nested: bool) -> dict[str, Any]:
    """Return a reply format as the chat API has it. Raises Refusal for a number that JSON cannot hold."""
    table = reply_format.model_dump()
    if nested and reply_format.type == "json_schema":
        table = {"type": table.pop("type"), "json_schema": table}
    try:
        json.dumps(table, allow_nan=False)
    except ValueError:
        raise bad(f"{name} cannot be passed on: it holds a number that is too large", name) from None
    return table


def _read(model: type[_Model], body: bytes, most_tokens: int | None = None, param: str = "") -> _Model:
    """Read a body. Raises Refusal (400)."""
    table = {name: value for name, value in _parsed(body).items() if value is not None}
    try:
        found = model.model_validate(table)
    except ValidationError as error:
        raise _refusal(error, model) from None
    # No text has more tokens than bytes, so most requests need no counting.
    if most_tokens is not None and len(body) > most_tokens and (tokens := _tokens(table)) > most_tokens:
        said = f"the request has about {tokens:,} tokens, and this server accepts {most_tokens:,} (--max-context)"
        raise Refusal(400, said, code="context_length_exceeded", param=param)
    return found


def _parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises Refusal (400) for anything else."""
    try:
        table = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise _invalid(body) from None
    if not isinstance(table, dict):
        raise bad("the body must be a JSON object", code="invalid_json")
    return table


def _invalid(body: bytes) -> Refusal:
    """Return the refusal of a body that the parser rejects.

    The parser rejects half of a surrogate pair without its place, so the field is found with the slower one.
    """
    try:
        if not re.search(rb"\\u[dD][89a-fA-F]", body):
            raise ValueError
        waiting: list[tuple[tuple[str | int, ...], Any]] = [((), json.loads(body, parse_constant=_no_number))]
    except (ValueError, RecursionError):
        return bad("the body is not valid JSON", code="invalid_json")
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [((*place, name), each) for name, each in value.items()]
            waiting += [(place, name) for name in value]
        elif isinstance(value, list):
            waiting += [((*place, number), each) for number, each in enumerate(value)]
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            return bad(f"{_param(place) or 'a name'} holds half of a surrogate pair", _param(place) or None)
    return bad("the body is not valid JSON", code="invalid_json")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _tokens(table: Mapping[str, Any]) -> int:
    """Return the estimated tokens of everything in a JSON object, keys and numbers included."""
    total, waiting = 0, [table]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        else:
            total += count_tokens(value) if isinstance(value, str) else 1
    return total


def _refusal(error: ValidationError, model: type[BaseModel]) -> Refusal:
    """Return the refusal of the first fault that validation found."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind, place = first["type"], first["loc"]
    param = _param(place)
    if kind == "extra_forbidden":
        near = get_close_matches(str(place[0]), model.model_fields, n=1) if len(place) == 1 else []
        hint = f": did you mean {near[0]!r}?" if near else ""
        return bad(f"unknown parameter {param!r}{hint}", param, "unknown_parameter")
    if kind == "missing":
        hint = ": GET /v1/models lists them" if param == "model" else ""
        return bad(f"{param} is missing{hint}", param, "missing_required_parameter")
    if kind == "unsupported_parameter":
        return bad(f"{param} is not supported: {first['msg']}", param, kind)
    return bad(f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}", param)


def _param(place: Sequence[str | int]) -> str:
    """Return the name of a field, such as messages[0].content; tags of unions are left out."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            shown = ascii(part[:60])[1:-1]
            path += f".{shown}" if path else shown
    return path
