"""OpenAI-compatible models: names, keys, identities, and the bytes of the protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.faults import FatalFault, Fault, PermanentFault, TransientFault
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.streams import Stream
from fractionate.models.openai.wire import (
    completion_of,
    duration_s,
    encode,
    fault_of,
    rate_of,
    retry_after,
    split_thoughts,
    unsupported_field,
    usage_of,
)
from fractionate.models.tokens import count_tokens, estimate_messages, input_bound
from fractionate.types import Completion, Message, Request, Usage

KEY = "sk-test-secret"
FIELDS = [
    *("choices", "message", "content", "usage", "error", "finish_reason", "delta", "refusal", "text"),
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "code"),
]
ASK = Request((Message("user", "How many?"),), "solver", max_tokens=8)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_a_missing_key_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        OpenAIModel("openai:gpt-4o-mini")
    with pytest.raises(UsageError, match="set OTHER_KEY"):
        OpenAIModel("openai:gpt-4o-mini", ModelOptions(api_key_env="OTHER_KEY"))
    OpenAIModel("http://127.0.0.1:1/v1#m")  # a local server may need none


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="set it again") as caught:
        OpenAIModel("openai:m")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["openai:", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1#", "http://#m", "http://h:port/v1#m"]
)
def test_names_that_name_nothing_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        OpenAIModel(name)


def test_secrets_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="api_key_env") as caught:
        OpenAIModel("openai:m", ModelOptions(base_url="https://user:hunter2@example.org/v1"))
    assert "hunter2" not in str(caught.value)


def test_identity_tells_apart_what_replies_differently_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(name: str = "openai:m", **options: Any) -> str:
        return OpenAIModel(name, ModelOptions(**options)).identity

    assert identity() == "openai:m"
    assert identity(base_url="https://api.openai.com/v1/") == identity()
    assert identity(base_url="http://127.0.0.1:1/v1") != identity()
    assert identity(extra_body={"top_p": 0.5}) != identity(extra_body={"top_p": 0.6}) != identity()
    assert identity(extra_body={"stream": True}) == identity()
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert identity() == "openai:m"
    assert "secret" not in identity(extra_body={"guard": "secret"})


def test_a_field_of_ours_is_not_the_user_s_to_set_but_one_reply_may_be_asked_for() -> None:
    for field in ("n", "best_of"):
        OpenAIModel("openai:m", ModelOptions(extra_body={field: 1}))
        with pytest.raises(UsageError, match=rf"extra_body\.{field} cannot be set"):
            OpenAIModel("openai:m", ModelOptions(extra_body={field: 2}))
    with pytest.raises(UsageError, match=r"extra_body\.max_tokens cannot be set: set max_tokens of the model"):
        OpenAIModel("openai:m", ModelOptions(extra_body={"max_tokens": 1}))


def test_importing_and_constructing_stay_light() -> None:
    code = (
        "import sys; from fractionate.models.openai.api import OpenAIModel; OpenAIModel('http://127.0.0.1:1/v1#m'); "
        "assert not {'aiohttp', 'sqlite3', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("plain", "plain", ""),
        ("<think>hm</think>\n\n4", "4", "hm"),
        ("  <think>\nhm\n</think>4", "4", "hm"),
        ("hm</think>4", "4", "hm"),
        ("<think>cut off in mid-th", "", "cut off in mid-th"),
        ("the tag <think> opens thoughts", "the tag <think> opens thoughts", ""),
        ("use <think> and </think>", "use <think> and </think>", ""),
    ],
)
def test_thoughts_are_split_from_the_answer(text: str, answer: str, thoughts: str) -> None:
    assert split_thoughts(text) == (answer, thoughts)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "usage", "error", "finish_reason"]), inner
            )
        ),
    )
)
def test_any_json_is_a_completion_or_a_fault(reply: object) -> None:
    for body in (reply, {"choices": [{"message": reply}], "usage": reply}, {"choices": [reply]}):
        said = outcome(lambda body=body: completion_of(body, ASK, 0.1))
        assert isinstance(said, Fault) or said.text.encode() is not None
        streamed = outcome(
            lambda body=body: completion_of(join_events(events({"choices": [], "x": 1}, body)), ASK, 0.1)
        )
        assert isinstance(streamed, Fault | Completion)


def outcome(read: Callable[[], Completion]) -> Completion | Fault:
    try:
        return read()
    except Fault as fault:
        return fault


@given(st.integers(300, 599), st.text() | st.dictionaries(st.sampled_from(["error", "message", "detail"]), st.text()))
def test_any_error_is_a_fault_in_one_line(status: int, reply: object) -> None:
    fault = fault_of(status, reply, {})
    assert isinstance(fault, TransientFault | PermanentFault | FatalFault)
    assert len(fault.message.splitlines()) == 1
    assert len(fault.message) < 500


@pytest.mark.parametrize(
    ("status", "kind", "cause", "congested", "maybe_paid"),
    [(300, TransientFault, "redirect", False, False), (399, TransientFault, "redirect", False, False),
     (400, PermanentFault, "400", False, False), (401, FatalFault, "refused key", False, False),
     (402, FatalFault, "no credit", False, False), (403, FatalFault, "refused key", False, False),
     (404, FatalFault, "not found", False, False), (405, PermanentFault, "405", False, False),
     (408, TransientFault, "408", True, True), (409, TransientFault, "409", False, False),
     (410, PermanentFault, "410", False, False), (425, TransientFault, "425", False, False),
     (426, PermanentFault, "426", False, False), (429, TransientFault, "429", True, False),
     (499, PermanentFault, "499", False, False), (500, TransientFault, "500", False, True),
     (502, TransientFault, "502", False, True), (503, TransientFault, "503", True, False),
     (504, TransientFault, "504", True, True), (529, TransientFault, "529", True, False),
     (530, TransientFault, "530", False, True)],
)  # fmt: skip
def test_a_status_is_one_fault(status: int, kind: type[Fault], cause: str, congested: bool, maybe_paid: bool) -> None:
    fault = fault_of(status, {}, {"Retry-After": "3"})
    assert type(fault) is kind
    assert fault.cause == cause
    assert fault.maybe_paid == maybe_paid
    if isinstance(fault, TransientFault):
        assert fault.congested == congested
        assert fault.after_s == (None if cause == "redirect" else 3.0)


@pytest.mark.parametrize(
    ("message", "field"),
    [("Unsupported parameter: 'temperature'", "temperature"), ("`stop` is deprecated for this model", "stop"),
     ("unknown field stop", "stop"), ("temperature does not support 0", "temperature"),
     ("the temperature outside was mentioned", ""), ("invalid messages", ""), ("Unsupported parameter: 'stopped'", "")],
)  # fmt: skip
def test_a_field_is_left_out_only_where_the_error_names_it_as_unsupported(message: str, field: str) -> None:
    body = {"model": "m", "temperature": 0.0, "stop": ["x"], "max_tokens": 5}
    assert unsupported_field({"error": {"message": message}}, body) == field


@pytest.mark.parametrize(
    ("said", "cause", "kept"),
    [({"code": "context_length_exceeded"}, "context too long", True),
     ({"message": "too long"}, "context too long", True),
     ({"message": "maximum of 8 tokens"}, "context too long", True), ({"code": "content_filter"}, "filtered", True),
     ({"message": "no such field"}, "400", False)],
)  # fmt: skip
def test_a_rejection_that_a_resend_cannot_change_is_kept(said: dict[str, str], cause: str, kept: bool) -> None:
    fault = fault_of(400, {"error": said}, {})
    assert isinstance(fault, PermanentFault)
    assert (fault.cause, fault.keep) == (cause, kept)


def test_a_status_inside_a_reply_of_200_may_be_billed() -> None:
    for code, cause in ((400, "400"), (503, "503"), (599, "599"), (399, "500"), (600, "500"), ("503", "500")):
        fault = outcome(lambda code=code: completion_of({"error": {"code": code}}, ASK, 0.1))
        assert isinstance(fault, Fault)
        assert (fault.cause, fault.maybe_paid) == (cause, True)


def test_usage_is_taken_as_reported_unless_it_cannot_be() -> None:
    def read(text: str = "nine", reasoning: str = "", **fields: object) -> Usage:
        reported = {"prompt_tokens": 7, "completion_tokens": 3, **fields}
        return usage_of(reported, ASK, text, reasoning)

    assert read() == Usage(1, 7, 0, 3, 0, 0.0, 0)
    assert read(total_tokens=10) == Usage(1, 7, 0, 3, 0, 0.0, 0)
    assert read(prompt_tokens=7.0, completion_tokens=3.0) == Usage(1, 7, 0, 3, 0, 0.0, 0)
    details = {"prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 2}}
    assert read(**details) == Usage(1, 7, 5, 3, 2, 0.0, 0)
    assert read(**{**details, "prompt_tokens_details": {"cached_tokens": 9}}).cached_input_tokens == 7
    # Thoughts that are counted apart from the output are output too.
    assert read(total_tokens=15) == Usage(1, 7, 0, 8, 5)
    assert read(completion_tokens_details={"reasoning_tokens": 4}) == Usage(1, 7, 0, 7, 4)
    assert read(total_tokens=9) == Usage(1, 7, 0, 3, 0)
    estimate, words = estimate_messages(ASK.messages), count_tokens("nine")
    for wrong in (None, -1, 0, True, "7", 7.5, 10**9):
        assert read(prompt_tokens=wrong) == Usage(1, estimate, 0, 3, counted=1)
    for wrong in (None, -1, 0, True, 10**9):
        assert read(completion_tokens=wrong) == Usage(1, 7, 0, words, counted=1)
    assert read(text="", completion_tokens=0) == Usage(1, 7, 0, 0)
    assert read(text="a b c " * 300, completion_tokens=1).counted == 1
    assert read(text="-" * 1000, completion_tokens=1).counted == 0  # one token may hold a hundred dashes
    found = read(text="nine", reasoning="so nine", completion_tokens=None)
    assert (found.output_tokens, found.reasoning_tokens) == (words + count_tokens("so nine"), count_tokens("so nine"))


@given(st.text(alphabet=st.characters(codec=None)), st.integers(0, 4))
def test_every_request_can_be_sent(text: str, spare: int) -> None:
    request = Request((Message("user", text),), "solver", stop=("\n",) * spare)
    model = OpenAIModel("http://127.0.0.1:1/v1#m")
    assert json.loads(encode(model.body(request)))["model"] == "m"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_the_bound_is_never_under_the_estimate(texts: list[str]) -> None:
    messages = tuple(Message("user", text) for text in texts)
    assert input_bound(Request(messages, "solver")) >= estimate_messages(messages)
    assert all(count_tokens(text) <= len(text.encode()) for text in texts)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7", 7), ("soon", 0), ("", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


def test_retry_after_in_every_form() -> None:
    assert retry_after({}) is None
    assert retry_after({"Retry-After": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"Retry-After": "when I say so"}) is None
    assert retry_after({"Retry-After": "nan"}) is None


def test_rate_headers() -> None:
    assert rate_of({}) is None
    rate = rate_of({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m"})
    assert rate is not None
    assert (rate.remaining_requests, rate.reset_requests_s, rate.remaining_tokens) == (0, 60, None)


def join_events(data: bytes) -> dict[str, Any]:
    """Join a whole stream into one reply."""
    stream = Stream(len(data))
    stream.begin()
    stream.feed(data)
    return stream.reply()


def events(*chunks: object, end: bool = True) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if end else ""]).encode()


def delta(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {} if text is None else {"content": text}, "finish_reason": finish}]}


def test_equal_tokens_of_a_stream_are_kept() -> None:
    reply = join_events(events(delta("ha"), delta("ha"), delta("!"), delta(finish="stop")))
    assert reply["choices"][0]["message"]["content"] == "haha!"


def test_what_follows_the_end_of_a_stream_is_dropped() -> None:
    reply = join_events(events(delta("a"), delta(finish="stop"), delta("a"), delta(finish="stop")))
    assert reply["choices"][0]["message"]["content"] == "a"


def test_an_error_within_a_stream_is_a_fault() -> None:
    with pytest.raises(TransientFault):
        join_events(events(delta("a"), {"error": {"message": "overloaded", "code": 503}}))
    with pytest.raises(TransientFault, match="before its last event"):
        join_events(events(delta("a"), end=False))
