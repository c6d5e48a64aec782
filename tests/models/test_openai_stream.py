"""Streamed replies: pieces, reasoning, and keys at any cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from fractionate.config import ModelOptions
from fractionate.models.base import request_key
from fractionate.models.faults import PermanentFault, TransientFault
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.keys import KeyHider
from fractionate.models.openai.streams import TextStream
from fractionate.types import Completion, Message, Request
from servers.chat_server import ChatServer

KEY = "sk-very-secret-0123456789"


class Speaking(ChatServer):
    """Streams the given pieces, each an event; `before` is sent ahead of them as reasoning_content."""

    notices_who_leaves = True

    def __init__(
        self, pieces: list[str], *, reasoning: str = "", refuse: tuple[str, ...] = (), hang: bool = False
    ) -> None:
        super().__init__()
        self.pieces, self.reasoning, self.refuse, self.hang = pieces, reasoning, refuse, hang
        self.left = 0

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        for name in self.refuse:
            if name in body:
                return web.json_response({"error": {"message": f"unknown {name}", "param": name}}, status=400)
        assert body["stream"] is True
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas = [{"reasoning_content": self.reasoning}] if self.reasoning else []
        for delta in [*deltas, *({"content": piece} for piece in self.pieces)]:
            chunk = {"choices": [{"index": 0, "delta": delta}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        try:
            while self.hang:
                await asyncio.sleep(0.01)
                await response.write(b": waiting\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        end = {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7},
        }
        await response.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
        return response


def streamed(server: ChatServer, request: Request | None = None) -> tuple[list[str], Completion]:
    """Return the pieces that were handed over and the completion."""
    pieces: list[str] = []

    async def run() -> Completion:
        async with server:
            model = OpenAIModel(server.name, ModelOptions(api_key_env="TEST_STREAM_KEY"))
            try:
                return await model.stream(request or Request((Message("user", "Hi"),), "solver"), pieces.append)
            finally:
                await model.close()

    return pieces, asyncio.run(run())


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_STREAM_KEY", KEY)


def test_pieces_are_handed_over_as_they_come() -> None:
    server = Speaking(["The ", "answer", " holds: me"])
    pieces, completion = streamed(server)
    assert pieces == ["The ", "answer", " holds: me"]
    assert completion.text == "The answer holds: me"
    assert completion.finish_reason == "length"
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (5, 7)
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


def test_equal_pieces_are_all_taken() -> None:
    pieces, completion = streamed(Speaking(["na ", "na ", "na ", "na "]))
    assert completion.text == "".join(pieces) == "na na na na "


@pytest.mark.parametrize("size", [1, 3, 100])
def test_thoughts_are_kept_apart_however_they_are_cut(size: int) -> None:
    text = "  <think>Let me <b>see</b>.</think>\n\nThe answer is: 7 < 8"
    pieces, completion = streamed(Speaking([text[at : at + size] for at in range(0, len(text), size)]))
    assert completion.text == "".join(pieces) == "The answer is: 7 < 8"
    assert completion.reasoning == "Let me <b>see</b>."


def test_thoughts_in_a_field_of_their_own_are_not_handed_over() -> None:
    pieces, completion = streamed(Speaking(["7"], reasoning="Let me see."))
    assert (pieces, completion.reasoning) == (["7"], "Let me see.")


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_the_key_is_never_handed_over_wherever_it_is_cut(size: int) -> None:
    text = f"You sent {KEY}, or {KEY.encode().hex()}; sk-very is no key."
    pieces, completion = streamed(Speaking([text[at : at + size] for at in range(0, len(text), size)]))
    assert completion.text == "".join(pieces) == "You sent [key], or [key]; sk-very is no key."


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("form", ["%{:02X}", "\\u{:04x}", "&#{};"])
def test_an_escaped_key_is_never_handed_over_wherever_it_is_cut(form: str, size: int) -> None:
    escaped = "".join(form.format(ord(letter)) for letter in KEY)
    text = f"You sent {escaped}. That is 100 % of it."
    pieces, completion = streamed(Speaking([text[at : at + size] for at in range(0, len(text), size)]))
    assert completion.text == "".join(pieces) == "You sent [key]. That is 100 % of it."


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_key_with_its_punctuation_escaped_is_never_handed_over(size: int) -> None:
    text = f"You sent {KEY.replace('-', chr(92) + '-')}, as Markdown writes it."
    pieces, completion = streamed(Speaking([text[at : at + size] for at in range(0, len(text), size)]))
    assert completion.text == "".join(pieces) == "You sent [key], as Markdown writes it."


def test_a_server_that_does_not_stream_hands_over_the_whole() -> None:
    pieces, completion = streamed(ChatServer())
    assert pieces == [completion.text]


def test_a_server_without_stream_options_is_asked_without_them() -> None:
    server = Speaking(["7"], refuse=("stream_options",))
    assert streamed(server)[1].text == "7"
    assert "stream_options" in server.bodies[0]
    assert "stream_options" not in server.bodies[1]


def test_a_field_that_is_insisted_on_is_not_left_out() -> None:
    further = json.dumps({"temperature": 0.5})
    with pytest.raises(PermanentFault, match="unknown temperature"):
        streamed(Speaking(["7"], refuse=("temperature",)), Request((Message("user", "Hi"),), "solver", further=further))
    assert streamed(Speaking(["7"], refuse=("temperature",)))[1].text == "7"


def test_a_stream_that_stops_is_a_fault_after_its_pieces() -> None:
    async def run() -> list[str]:
        pieces: list[str] = []
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            with pytest.raises(TransientFault, match="ended before its last event"):
                await model.stream(Request((Message("user", "[sse-cut] Hi"),), "solver"), pieces.append)
            await model.close()
        return pieces

    assert "".join(asyncio.run(run()))


WORD = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "events",
    [
        WORD + b'data: {"error": {"message": "it broke"}}\n\n' + DONE,
        WORD + b'data: {"object": "error", "message": "it broke", "code": 500}\n\n' + DONE,
        WORD + b'event: error\ndata: {"message": "it broke"}\n\n' + DONE,
        WORD + b'event: error\ndata: {"error": {"message": "it broke"}}\n\n' + DONE,
        WORD + b"event: error\ndata: it broke\n\n" + DONE,
        WORD
        + b'data: {"choices": [{"delta": {}, "error": {"message": "it broke"}, "finish_reason": "error"}]}\n\n'
        + DONE,
        WORD + b'data: {"choices": [{"delta": {}, "finish_reason": "error"}]}\n\n' + DONE,
        DONE,
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_an_error_in_any_form_is_no_end_of_a_reply(events: bytes, live: bool) -> None:
    fault = replied(events, live)
    assert isinstance(fault, TransientFault)
    assert fault.maybe_paid
    assert ("broke" in fault.message) == (events != DONE)


@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error": {"message": "it broke"}}\n\n',
        b'data: {"object": "error", "message": "it broke", "code": 500}\n\n',
        b"event: error\ndata: it broke\n\n",
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_an_error_after_a_whole_answer_does_not_pay_for_it_again(error: bytes, live: bool) -> None:
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
    whole = replied(WORD + end + usage + error + DONE, live)
    assert isinstance(whole, Completion)
    assert (whole.text, whole.usage.output_tokens) == ("Hi", 1)


def replied(events: bytes, live: bool) -> Completion | TransientFault:
    """Return what a model makes of a reply of these events."""

    class Raw(ChatServer):
        async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(events)
            return response

    async def run() -> Completion | TransientFault:
        async with Raw() as server:
            model = OpenAIModel(server.name)
            request = Request((Message("user", "Hi"),), "solver")
            try:
                return await (model.stream(request, lambda text: None) if live else model.complete(request))
            except TransientFault as fault:
                return fault
            finally:
                await model.close()

    return asyncio.run(run())


def test_cancelling_closes_the_connection() -> None:
    async def run() -> None:
        async with Speaking(["7"], hang=True) as server:
            model = OpenAIModel(server.name)
            came = asyncio.Event()
            request = Request((Message("user", "Hi"),), "solver")
            task = asyncio.ensure_future(model.stream(request, lambda words: came.set()))
            await came.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while not server.left:
                await asyncio.sleep(0.01)
            await model.close()

    asyncio.run(run())


def test_an_answer_that_only_looks_like_a_thought_is_handed_over() -> None:
    said: list[str] = []
    words = TextStream(said.append, KeyHider(""))
    for piece in ("<thi", "nker> 7", " </think> 8"):
        words.take(piece)
    words.end()
    assert "".join(said) == words.text == "<thinker> 7 </think> 8"


def test_a_thought_that_never_ends_is_no_answer() -> None:
    said: list[str] = []
    words = TextStream(said.append, KeyHider(""))
    words.take("<think>and so on </thi")
    words.end()
    assert (said, words.thoughts) == ([], "and so on </thi")


def test_further_fields_are_part_of_the_key_only_where_they_are_set() -> None:
    plain = Request((Message("user", "Hi"),), "solver")
    # The key of stores that were written before there were such fields.
    body = ["m", [["user", "Hi"]], 256, 0.0, [], None, 0]
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert request_key("m", plain) == hashlib.sha256(text.encode()).hexdigest()
    assert request_key("m", plain) != request_key("m", replace(plain, further='{"seed":1}'))
