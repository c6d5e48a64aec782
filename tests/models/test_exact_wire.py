"""The OpenAI protocol value by value: bodies, statuses, usage at the edge of what can be, waits in every unit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fractionate.errors import UsageError
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault
from fractionate.models.openai import wire
from fractionate.models.openai.wire import (
    body_of,
    check_extra,
    check_known_cost,
    completion_of,
    duration_s,
    encode,
    error_of,
    fault_in_reply,
    fault_of,
    one_line,
    rate_of,
    retry_after,
    split_thoughts,
    text_of,
    unsupported_field,
    usage_of,
)
from fractionate.models.tokens import estimate_messages, input_bound
from fractionate.types import Message, Request, Usage

ASKED = Request((Message("user", "How far is it to 7?"),), "solver", max_tokens=50)


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_one_reply_may_be_asked_for_and_no_other_number(field: str) -> None:
    check_extra("m", {field: 1})
    for number in (0, 2, None, "1"):
        with pytest.raises(UsageError, match=f"{field} cannot be set: one reply is read"):
            check_extra("m", {field: number})


@pytest.mark.parametrize(
    "field", ["model", "messages", "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"]
)
def test_a_field_of_ours_cannot_be_set_to_anything(field: str) -> None:
    for value in (1, "x"):
        with pytest.raises(UsageError, match=f"{field} cannot be set"):
            check_extra("m", {"top_k": 5, field: value})
    check_extra("m", {"top_k": 1, "stream": True})


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("extra", "known"),
    [({"top_k": 5}, True), ({"tools": [FUNCTION]}, True), ({"functions": [{"name": "f"}]}, True), ({"tools": []}, True),
     ({"service_tier": "flex"}, True), ({"service_tier": "priority"}, False), ({"tools": [{"type": "mcp"}]}, False),
     ({"tools": [FUNCTION, {"type": "web_search"}]}, False), ({"tools": ["x"]}, False), ({"tools": {}}, False),
     ({"functions": "x"}, False), ({"prediction": None}, False), ({"plugins": []}, False), ({"models": []}, False),
     ({"web_search_options": {}}, False), ({"search_parameters": {}}, False), ({"enable_search": False}, False),
     ({"mcp_servers": []}, False), ({"route": "x"}, False), ({"audio": {}}, False), ({"modalities": []}, False)],
)  # fmt: skip
def test_a_budget_needs_calls_whose_cost_can_be_known(extra: dict[str, Any], known: bool) -> None:
    if known:
        check_known_cost("m", extra)
        return
    with pytest.raises(UsageError, match="cannot be known beforehand"):
        check_known_cost("m", extra)


def test_a_body_holds_what_was_asked_and_drops_what_the_server_does_not_know() -> None:
    asked = Request((Message("user", "q"),), "solver", 9, 0.5, ("\n", "Q"), 3, '{"type": "json_object"}')
    whole = body_of(asked, "m", frozenset(), {})
    assert whole == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["\n", "Q"],
        "response_format": {"type": "json_object"},
    }
    for field in ("temperature", "stop", "response_format"):
        assert body_of(asked, "m", frozenset({field}), {}) == {k: v for k, v in whole.items() if k != field}
    renamed = body_of(asked, "m", frozenset({"max_tokens"}), {"top_k": 1})
    assert (renamed["max_completion_tokens"], "max_tokens" in renamed, renamed["top_k"]) == (9, False, 1)
    bare = body_of(ASKED, "m", frozenset(), {})
    assert set(bare) == {"model", "messages", "max_tokens", "temperature"}
    further = Request((Message("user", "q"),), "solver", 9, further='{"seed":5}')
    assert body_of(further, "m", frozenset(), {"seed": 4})["seed"] == 5, "what a client asked for wins"


def test_messages_of_tools_have_the_protocols_form() -> None:
    call = {"id": "c1", "name": "f", "arguments": "{}"}
    said = json.dumps({"content": "I look.", "tool_calls": [call]})
    result = json.dumps({"tool_call_id": "c1", "content": "7"})
    asked = Request((Message("tool_calls", said), Message("tool", result)), "solver", 9)
    assert body_of(asked, "m", frozenset(), {})["messages"] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    ]


def reply(message: dict[str, Any], finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": used(15, 5), **more}


def used(inputs: Any, outputs: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": inputs, "completion_tokens": outputs, **more}


TOOLS = Request(ASKED.messages, "solver", 50, further='{"tools":[]}')


def test_a_reply_that_calls_tools_is_read_only_where_tools_were_offered() -> None:
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "", "function": {"name": "g", "arguments": {"b": 2}}},
        {"id": 7, "function": {"name": "h", "arguments": None}},
    ]
    said = {"content": "I look.", "tool_calls": calls}
    found = completion_of(reply(said, "tool_calls"), TOOLS, 0.5)
    assert found.finish_reason == "tool_calls"
    assert json.loads(found.text) == {
        "content": "I look.",
        "tool_calls": [
            {"id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"id": "call_1", "name": "g", "arguments": '{"b":2}'},
            {"id": "call_2", "name": "h", "arguments": ""},
        ],
    }
    assert completion_of(reply(said), ASKED, 0.5).text == "I look."
    for none in ([], None, "x"):
        assert completion_of(reply({"content": "4", "tool_calls": none}), TOOLS, 0.5).finish_reason == "stop"
    for odd in ([5], [{}], [{"function": {"name": 5}}], [calls[0], {"function": None}]):
        with pytest.raises(TransientFault, match="without a name") as fault:
            completion_of(reply({"tool_calls": odd}), TOOLS, 0.5)
        assert (fault.value.cause, fault.value.maybe_paid) == ("bad body", True)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("length", "length"), ("max_tokens", "length"), ("content_filter", "content_filter"),
     ("refusal", "refusal"), (None, "stop"), ("eos", "stop"), (5, "stop")],
)  # fmt: skip
def test_a_reply_ends_for_one_of_our_reasons(finish: Any, reason: str) -> None:
    found = completion_of(reply({"content": "It is 7."}, finish), ASKED, 0.5)
    assert (found.text, found.finish_reason, found.latency_s, found.error) == ("It is 7.", reason, 0.5, "")
    assert found.usage == Usage(1, 15, 0, 5)


def test_a_refusal_is_no_text_and_thoughts_are_joined() -> None:
    refused = completion_of(reply({"content": "x", "refusal": "No."}), ASKED, 0.5)
    assert (refused.text, refused.finish_reason, refused.error) == ("", "refusal", "No.")
    assert completion_of(reply({"content": "x", "refusal": ""}), ASKED, 0.5).finish_reason == "stop"
    thought = completion_of(reply({"content": "<think>b</think>7", "reasoning_content": "a"}), ASKED, 0.5)
    assert (thought.text, thought.reasoning) == ("7", "ab")
    assert completion_of(reply({"content": "7", "reasoning": "a"}), ASKED, 0.5).reasoning == "a"
    assert completion_of(reply({"content": "7", "reasoning": ["a"]}), ASKED, 0.5).reasoning == ""


@pytest.mark.parametrize(
    ("said", "cause", "congested"),
    [(5, "bad body", False), ({}, "empty choices", False), ({"choices": []}, "empty choices", False),
     ({"choices": [5]}, "empty choices", False), ({"choices": [{}]}, "empty choices", False),
     ({"choices": "x"}, "empty choices", False), ({"choices": [], "error": {"code": 503}}, "503", True),
     (reply({"content": ""}, "insufficient_system_resource"), "overloaded", True),
     (reply({"content": "x"}, "error"), "500", False),
     ({"choices": [{"message": {"content": "x"}, "error": {"code": 429}}]}, "429", True)],
)  # fmt: skip
def test_a_reply_without_what_it_must_have_may_be_billed(said: Any, cause: str, congested: bool) -> None:
    with pytest.raises(TransientFault) as fault:
        completion_of(said, ASKED, 0.5)
    assert (fault.value.cause, fault.value.congested, fault.value.maybe_paid) == (cause, congested, True)


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [("7", "7", ""), ("<think>a</think> 7", "7", "a"), (" <think> a", "", "a"), ("a</think>\n7", "7", "a"),
     ("x <think>a</think>7", "x <think>a</think>7", ""), ("<think></think>7", "7", ""),
     ("I think> so", "I think> so", "")],
)  # fmt: skip
def test_thoughts_come_first_or_not_at_all(text: str, answer: str, thoughts: str) -> None:
    assert split_thoughts(text) == (answer, thoughts)


BOUND = input_bound(ASKED)
PROMPT = estimate_messages(ASKED.messages)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (used(15, 5), Usage(1, 15, 0, 5)),
        (used(15.0, 5.0), Usage(1, 15, 0, 5)),
        (used(15, 5, total_tokens=20), Usage(1, 15, 0, 5)),
        (used(15, 5, total_tokens=30), Usage(1, 15, 0, 15, 10)),
        (used(15, 5, total_tokens=19), Usage(1, 15, 0, 5)),
        (used(15, 5, completion_tokens_details={"reasoning_tokens": 3}), Usage(1, 15, 0, 5, 3)),
        (used(15, 5, completion_tokens_details={"reasoning_tokens": 5}), Usage(1, 15, 0, 5, 5)),
        (used(15, 5, completion_tokens_details={"reasoning_tokens": 6}), Usage(1, 15, 0, 11, 6)),
        (used(15, 5, total_tokens=26, completion_tokens_details={"reasoning_tokens": 6}), Usage(1, 15, 0, 11, 6)),
        (used(15, 5, prompt_tokens_details={"cached_tokens": 4}), Usage(1, 15, 4, 5)),
        (used(15, 5, prompt_tokens_details={"cached_tokens": 16}), Usage(1, 15, 15, 5)),
        (used(15, 5, prompt_tokens_details=[]), Usage(1, 15, 0, 5)),
        (used(BOUND + 100_000, 5), Usage(1, BOUND + 100_000, 0, 5)),
        (used(BOUND + 100_001, 5, prompt_tokens_details={"cached_tokens": 4}), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(0, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(None, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(True, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(-1, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(2**62, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(15.5, 5), Usage(1, PROMPT, 0, 5, counted=1)),
        (used(15, 50 + 1_000_000), Usage(1, 15, 0, 1_000_050)),
        (used(15, 50 + 1_000_001), Usage(1, 15, 0, 5, 3, 0.0, 1)),
        (used(15, 0), Usage(1, 15, 0, 5, 3, 0.0, 1)),
        (used(15, None), Usage(1, 15, 0, 5, 3, 0.0, 1)),
        (used(15, "5"), Usage(1, 15, 0, 5, 3, 0.0, 1)),
        (None, Usage(1, PROMPT, 0, 5, 3, 0.0, 1)),
    ],
)
def test_usage_is_what_was_reported_where_that_can_be(reported: Any, usage: Usage) -> None:
    assert usage_of(reported, ASKED, "It is 7.", "Let me see.") == usage


def test_a_reply_of_nothing_has_no_tokens() -> None:
    assert usage_of(used(15, 0), ASKED, "", "") == Usage(1, 15, 0, 0)


def test_a_token_has_at_most_32_characters_runs_aside() -> None:
    text = "abcd" * 80
    assert usage_of(used(15, 10), ASKED, text, "") == Usage(1, 15, 0, 10)
    assert usage_of(used(15, 10), ASKED, text + "e", "") == Usage(1, 15, 0, 81, counted=1)
    assert usage_of(used(15, 10), ASKED, text[:300], text[:21]).counted == 1
    assert usage_of(used(15, 1), ASKED, "-" * 500 + "\n" * 500, "") == Usage(1, 15, 0, 1)
    long = Request((Message("user", text),), "solver", 50)
    assert usage_of(used(10, 5), long, "x", "").counted == 0
    assert usage_of(used(9, 5), long, "x", "") == Usage(1, 88, 0, 5, counted=1)


@pytest.mark.parametrize(
    ("status", "kind", "cause", "congested", "paid", "systematic"),
    [(400, PermanentFault, "400", None, False, None), (401, FatalFault, "refused key", None, False, None),
     (402, FatalFault, "no credit", None, False, None), (403, FatalFault, "refused key", None, False, None),
     (404, FatalFault, "not found", None, False, None), (405, PermanentFault, "405", None, False, None),
     (408, TransientFault, "408", True, True, False), (409, TransientFault, "409", False, False, False),
     (422, PermanentFault, "422", None, False, None), (425, TransientFault, "425", False, False, False),
     (429, TransientFault, "429", True, False, False), (499, PermanentFault, "499", None, False, None),
     (500, TransientFault, "500", False, True, False), (502, TransientFault, "502", False, True, False),
     (503, TransientFault, "503", True, False, False), (504, TransientFault, "504", True, True, False),
     (520, TransientFault, "520", False, True, False), (529, TransientFault, "529", True, False, False),
     (300, TransientFault, "redirect", False, False, True), (399, TransientFault, "redirect", False, False, True),
     (299, PermanentFault, "299", None, False, None)],
)  # fmt: skip
def test_each_status_is_one_fault(
    status: int, kind: type[Fault], cause: str, congested: bool | None, paid: bool, systematic: bool | None
) -> None:
    fault = fault_of(status, {"error": {"message": "Sorry"}}, {"Retry-After": "7"})
    assert (type(fault), fault.cause, fault.maybe_paid) == (kind, cause, paid)
    assert str(fault).endswith(": Sorry")
    if isinstance(fault, TransientFault):
        assert (fault.congested, fault.systematic) == (congested, systematic)
        assert fault.after_s == (None if cause == "redirect" else 7.0)
    assert ":" not in str(fault_of(status, None, {}))


def test_an_exhausted_account_is_no_reason_to_wait() -> None:
    assert fault_of(429, {"error": {"code": "insufficient_quota"}}, {}).cause == "no credit"


@pytest.mark.parametrize(("code", "cause"), [(399, "500"), (400, "400"), (599, "599"), (600, "500"), ("429", "500")])
def test_an_error_in_a_reply_has_the_status_that_it_names(code: Any, cause: str) -> None:
    fault = fault_in_reply({"error": {"code": code}})
    assert (fault.cause, fault.maybe_paid) == (cause, True)


@pytest.mark.parametrize(
    ("said", "found"),
    [({"error": {"message": "m", "type": "t", "code": 5, "param": "p"}}, ("m", "t", "5", "p")),
     ({"error": "m"}, ("m", "", "", "")), ({"detail": "d"}, ("d", "", "", "")), ({"message": "m"}, ("m", "", "", "")),
     ("m\n n", ("m n", "", "", "")), (5, ("", "", "", "")), (None, ("", "", "", "")), ({}, ("", "", "", ""))],
)  # fmt: skip
def test_an_error_is_read_in_any_of_its_forms(said: Any, found: tuple[str, ...]) -> None:
    assert error_of(said) == found


def test_a_line_has_at_most_its_length() -> None:
    assert one_line("x" * 300) == "x" * 300
    assert one_line("x" * 301) == "x" * 299 + "…"
    assert one_line(" a\n b", 3) == "a b"
    assert one_line("abcd", 3) == "ab…"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"Retry-After": "7"}, 7.0), ({"Retry-After": "0"}, 0.0), ({"Retry-After": "-3"}, 0.0),
     ({"retry-after-ms": "1500"}, 1.5), ({"retry-after-ms": "-1"}, 0.0), ({"Retry-After": "nan"}, None),
     ({"retry-after-ms": "0", "Retry-After": "9"}, 0.0), ({"Retry-After": "soon"}, None),
     ({"Retry-After": "inf"}, None),
     ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0), ({"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0)],
)  # fmt: skip
def test_the_wait_asked_for_is_in_seconds(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], seconds: float | None
) -> None:
    monkeypatch.setattr(wire, "time", lambda: 60.0)
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600.0), ("2m", 120.0), ("3s", 3.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("6m0s", 360.0), ("1.5", 1.5),
     ("-2", 0.0), ("soon", 0.0), ("", 0.0), ("1m20ms", 60.02), ("1s" * 51, 50.0)],
)  # fmt: skip
def test_a_duration_adds_up_its_parts(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


def test_rate_headers_are_read_where_there_are_any() -> None:
    assert rate_of({}) is None
    assert rate_of({"x-ratelimit-reset-requests": "3s"}) is None
    requests = rate_of({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "3s"})
    assert requests is not None
    assert (requests.remaining_requests, requests.reset_requests_s, requests.remaining_tokens) == (5, 3.0, None)
    tokens = rate_of({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m"})
    assert tokens is not None
    assert (tokens.remaining_requests, tokens.remaining_tokens, tokens.reset_tokens_s) == (None, 0, 60.0)


def test_text_is_whole_or_in_parts() -> None:
    assert text_of("a") == "a"
    assert text_of([{"text": "a"}, {"text": 5}, 7, {"text": "b"}, {}]) == "ab"
    assert text_of(None) == text_of(5) == text_of({"text": "a"}) == ""


def test_a_body_is_compact_utf8_with_lone_surrogates_replaced() -> None:
    assert encode({"a": "é\ud83d", "b": [1, 2]}) == '{"a":"é?","b":[1,2]}'.encode()


BODY = {"max_tokens": 9, "temperature": 0.5, "stop": ["x"], "response_format": {}}


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ({"param": "temperature", "code": "unsupported_value", "message": "x"}, "temperature"),
        ({"param": "stop", "code": "unsupported_parameter", "message": "x"}, "stop"),
        ({"param": "stop", "code": "unknown_parameter", "message": "x"}, "stop"),
        ({"param": "stop", "code": "invalid_value", "message": "x"}, ""),
        ({"param": "stop", "message": "it is not supported"}, "stop"),
        ({"param": "top_p", "message": "stop is not supported"}, ""),
        ({"param": "top_p", "code": "unsupported_parameter", "message": "x"}, ""),
        ({"param": "max_tokens", "code": "unsupported_parameter", "message": "x"}, "max_tokens"),
        ({"param": "max_tokens", "message": "unsupported: use max_completion_tokens"}, "max_tokens"),
        ({"param": "max_tokens", "message": "it is not supported"}, ""),
        ({"message": "Unsupported parameter: 'max_tokens': use 'max_completion_tokens'"}, "max_tokens"),
        ({"message": "Unsupported parameter: 'max_tokens'"}, ""),
        ({"message": "Unknown field response_format"}, "response_format"),
        ({"message": "`stop` is deprecated"}, "stop"),
        ({"message": "temperature does not support 0.5"}, "temperature"),
        ({"message": "temperature must be at most 2"}, ""),
        ({"message": "stop_words is not supported"}, ""),
        ({"message": "my_stop is not supported"}, ""),
        ({"message": "stream_options is not supported"}, ""),
    ],
)
def test_a_field_is_dropped_only_where_it_is_named_as_unsupported(error: dict[str, str], field: str) -> None:
    assert unsupported_field({"error": error}, BODY) == field
    assert unsupported_field({"error": error}, {}) == ""


@pytest.mark.parametrize(
    ("detail", "field"),
    [([{"type": "extra_forbidden", "loc": ["body", "stop"]}], "stop"), ([{"type": "missing", "loc": ["stop"]}], ""),
     ([5, {"type": "extra_forbidden", "loc": ["temperature"]}], "temperature"), ("stop", ""),
     ([{"type": "extra_forbidden", "loc": []}], ""), ([{"type": "extra_forbidden", "loc": "stop"}], "")],
)  # fmt: skip
def test_a_server_that_forbids_extras_names_them(detail: Any, field: str) -> None:
    assert unsupported_field({"detail": detail}, BODY) == field
