"""Accepted parts of a chat request, and refused parts by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fractionate.serve.errors import Refusal
from fractionate.serve.parameters import ChatParameters
from fractionate.serve.requests import read_chat
from fractionate.types import Message

USER = {"role": "user", "content": "How far?"}


def read(**fields: Any) -> Any:
    return read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode(), 10_000)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"usage": True}}, "stream_options.usage"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"fractionate": {"passage": "x"}}, "fractionate.passage"),
        ({"fractionate": {"context": 1}}, "fractionate.context"),
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{**USER, "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}, USER]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "half \ud83d"}]}, "messages[0].content"),
    ],
)
def test_what_cannot_be_heeded_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param.rpartition(".")[2].partition("[")[0] in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "someone", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"stream_options": {"include_usage": True}, "stream": True, "parallel_tool_calls": True},
        {"tools": [], "tool_choice": "none", "logprobs": False, "logit_bias": {}, "modalities": ["text"]},
        {name: None for name in ChatParameters.model_fields if name not in ("model", "messages")},
    ],
)
def test_what_changes_nothing_is_taken(fields: dict[str, Any]) -> None:
    asked = read(**fields)
    assert (asked.question, asked.given) == ("How far?", {})


def test_a_misspelt_parameter_names_the_right_one() -> None:
    with pytest.raises(Refusal, match="did you mean 'temperature'"):
        read(temprature=1)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff{}", b'{"n": NaN}', b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read_chat(body, 1000)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_an_assistants_message_is_taken_back_as_it_was_given() -> None:
    empty = {"refusal": None, "annotations": [], "audio": None, "tool_calls": None, "function_call": None}
    thoughts = {"reasoning": "1. …", "reasoning_content": "1. …"}
    given = {"role": "assistant", "content": "The answer is: 7", **empty, **thoughts}
    asked = read(messages=[USER, given, USER])
    assert asked.history == (Message("user", "How far?"), Message("assistant", "The answer is: 7"))


def test_system_texts_at_the_beginning_are_one_and_later_ones_stay() -> None:
    system, developer = {"role": "system", "content": "A"}, {"role": "developer", "content": "B"}
    asked = read(messages=[system, developer, USER, {"role": "system", "content": "C"}, USER])
    assert asked.system == "A\n\nB"
    assert asked.history == (Message("user", "How far?"), Message("system", "C"))


@pytest.mark.parametrize(
    ("content", "question", "context"),
    [
        ("How far?", "How far?", ""),
        ("Question: How far?", "How far?", ""),
        ("Context: A.\n\nB.\n\nQuestion: How far?", "How far?", "A.\n\nB."),
        ("Context: A. How far?", "Context: A. How far?", ""),
        ("Say: Context: A.\n\nQuestion: How far?", "Say: Context: A.\n\nQuestion: How far?", ""),
        (" How far? ", " How far? ", ""),
    ],
)
def test_the_passage_is_told_from_the_question(content: str, question: str, context: str) -> None:
    asked = read(messages=[{"role": "user", "content": content}])
    assert (asked.question, asked.context) == (question, context)


def test_two_passages_are_one_too_many() -> None:
    with pytest.raises(Refusal, match="given twice"):
        read(messages=[{"role": "user", "content": "Context: A\n\nQuestion: B?"}], fractionate={"context": "C"})


def test_limits_and_stops_have_one_form() -> None:
    asked = read(max_tokens=9, max_completion_tokens=7, stop="x", response_format={"type": "text"})
    assert asked.given == {"max_tokens": 7, "stop": ["x"]}


LONG = "long " * 2_000
"""About 2,500 tokens."""


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": LONG}, USER]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "text", "text": "Who?"}]}]},
        {"messages": [USER, {"role": "assistant", "content": "x", "reasoning": LONG}, USER]},
        {"fractionate": {"context": LONG}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"description": LONG}}}},
        {"metadata": {"a": LONG}},
        {"metadata": {LONG: "a"}},
        {"metadata": {"numbers": [1] * 5_000}},
        {"stop": [LONG]},
    ],
)
def test_every_field_counts_against_the_context(fields: dict[str, Any]) -> None:
    table = {"model": "m", "messages": [USER], **fields}
    body = json.dumps(table).encode()
    with pytest.raises(Refusal, match="--max-context") as caught:
        read_chat(body, 2_000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert read_chat(body, 10_000).model == "m"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"metadata": {"a": ["half \ud83d"]}}, "metadata.a[0]"), ({"\ud83d": 1}, None), ({"user": "\udc00"}, "user")],
)
def test_half_a_character_is_refused_wherever_it_stands(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(Refusal, match="half of a surrogate pair") as caught:
        read(**fields)
    assert caught.value.param == param
