"""Every fault of a server is handled, counted and reported; none crashes a run."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import ask, asking

from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.errors import FractionateError
from fractionate.models.openai.api import OpenAIModel
from fractionate.types import Completion, Request
from servers.chat_server import ChatServer, answer

FAST = 0.001


def complete(
    store: Store,
    requests: Sequence[Request],
    *,
    limits: LimitsConfig | None = None,
    options: ModelOptions | None = None,
    url: str = "",
) -> tuple[list[Completion], Engine, ChatServer]:
    """Send requests one after another through a real server; return completions, engine and server."""

    async def main() -> tuple[list[Completion], Engine, ChatServer]:
        async with ChatServer() as server:
            model = OpenAIModel(url.format(port=server.port) or server.name, options)
            engine = Engine(store, limits or LimitsConfig(attempts=3), backoff_s=FAST)
            try:
                return [await engine.complete(model, request) for request in requests], engine, server
            finally:
                engine.close()
                await model.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("429", "429"),
        ("429-ms", "429"),
        ("500", "500"),
        ("502", "502"),
        ("503", "503"),
        ("408", "408"),
        ("reset", "connection lost"),
        ("cut", "cut short"),
        ("half", "bad body"),
        ("html", "bad body"),
        ("notdict", "bad body"),
        ("empty", "empty choices"),
        ("nomessage", "empty choices"),
        ("inner", "502"),
        ("redirect", "redirect"),
    ],
)
def test_a_passing_fault_is_retried_and_counted(store: Store, fault: str, cause: str) -> None:
    (completion,), engine, server = complete(store, [ask(f"[{fault}] why?")])
    assert completion.finish_reason == "stop"
    assert len(completion.text) == 12
    assert dict(engine.counters.retries) == {cause: 1}
    assert engine.counters.sent == 2
    assert len(store) == 1
    assert server.redirected == []


@pytest.mark.parametrize("fault", ["500", "reset", "half", "empty", "429"])
def test_a_lasting_fault_fails_one_call_and_is_not_stored(store: Store, fault: str) -> None:
    fine, broken = ask("fine"), ask(f"[{fault},always] why?")
    (first, second, third), engine, server = complete(store, [fine, broken, ask("fine too")])
    assert first.finish_reason == third.finish_reason == "stop"
    assert second.finish_reason == "error"
    assert second.text == ""
    assert "3 attempts" in second.error
    assert engine.counters.failures.total() == 1
    assert engine.counters.sent == 5
    assert len(store) == 2  # a rerun asks the broken one again
    assert server.asked[f"[{fault},always] why?"] == 3


def test_a_hanging_server_times_out_and_the_call_is_sent_again(store: Store) -> None:
    limits = LimitsConfig(attempts=3, timeout_s=0.3)
    (completion,), engine, _ = complete(store, [ask("[hang] why?")], limits=limits)
    assert completion.finish_reason == "stop"
    assert dict(engine.counters.retries) == {"timeout": 1}


@pytest.mark.parametrize(
    ("fault", "finish"), [("refusal", "refusal"), ("filter", "content_filter"), ("length", "length")]
)
def test_paid_endings_are_stored_and_counted(store: Store, fault: str, finish: str) -> None:
    request = ask(f"[{fault}] why?")
    (first, again), engine, server = complete(store, [request, request])
    assert first.finish_reason == finish
    assert again == first
    assert dict(engine.counters.endings) == {finish: 1}
    assert server.asked.total() == 1
    if fault == "refusal":
        assert first.error == "I cannot help with that."
        assert first.text == ""


@pytest.mark.parametrize(("fault", "finish"), [("context", "error"), ("policy", "content_filter")])
def test_rejections_that_depend_on_the_request_are_stored(store: Store, fault: str, finish: str) -> None:
    request = ask(f"[{fault},always] why?")
    (first, again), _, server = complete(store, [request, request])
    assert first.finish_reason == finish
    assert first.error
    assert again == first
    assert server.asked.total() == 1


def test_a_rejected_request_fails_alone_at_once(store: Store) -> None:
    (first, second), engine, server = complete(store, [ask("[400,always] why?"), ask("fine")])
    assert first.finish_reason == "error"
    assert "messages must be nicer" in first.error
    assert second.finish_reason == "stop"
    assert server.asked["[400,always] why?"] == 1
    assert engine.counters.failures["400"] == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [("401", "refuses the key"), ("404", "does not know this model"), ("quota", "no credit"), ("429-day", "86400 s")],
)
def test_what_no_call_can_survive_stops_the_run_at_once(store: Store, fault: str, words: str) -> None:
    with pytest.raises(FractionateError, match=words) as caught:
        complete(store, [ask(f"[{fault},always] why?")])
    assert "\n" not in str(caught.value)


def test_a_systematic_failure_stops_a_run_of_many(store: Store) -> None:
    """10,000 calls to a server that refuses the key: only those already in flight are sent."""

    async def main() -> ChatServer:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, LimitsConfig(concurrency=8), backoff_s=FAST)
            with pytest.raises(FractionateError, match="refuses the key"):
                await run_all((asking(model, f"[401,always] {number}") for number in range(10_000)), engine)
            await model.close()
            return server

    assert asyncio.run(main()).asked.total() <= 16


def test_a_streak_of_rejections_stops_the_run(store: Store) -> None:
    with pytest.raises(FractionateError, match=r"no call to .* has succeeded"):
        complete(store, [ask(f"[400,always] {number}") for number in range(100)])


def test_a_refused_connection_stops_the_run_once_attempts_are_used_up(store: Store) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(FractionateError, match=r"cannot connect.*3 attempts"):
        complete(store, [ask("why?")], url=f"http://127.0.0.1:{port}/v1#test")


def test_tls_to_a_plain_server_is_named(store: Store) -> None:
    with pytest.raises(FractionateError, match="TLS failure"):
        complete(store, [ask("why?")], url="https://127.0.0.1:{port}/v1#test")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_an_untrusted_certificate_is_refused(store: Store, tmp_path: Path) -> None:
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout"
    subprocess.run([*command.split(), str(private), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)

    async def main() -> ChatServer:
        async with ChatServer(tls=context) as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, LimitsConfig(attempts=2), backoff_s=FAST)
            with pytest.raises(FractionateError, match=r"TLS failure.*certificate"):
                await engine.complete(model, ask("why?"))
            await model.close()
            return server

    assert asyncio.run(main()).asked.total() == 0


def test_a_lasting_redirect_is_not_followed(store: Store) -> None:
    """The key must not travel to an address that the user did not name."""
    with pytest.raises(FractionateError, match=r"redirects.*base_url"):
        complete(store, [ask("[redirect,always] why?")])


def test_retry_after_is_waited_for(store: Store) -> None:
    async def main() -> float:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store, backoff_s=FAST)
            started = asyncio.get_running_loop().time()
            await engine.complete(model, ask("[429-after] why?"))
            await model.close()
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) >= 1.0


def test_a_spent_allowance_is_waited_for(store: Store) -> None:
    async def main() -> float:
        async with ChatServer() as server:
            model = OpenAIModel(server.name)
            engine = Engine(store)
            await engine.complete(model, ask("[limits] first"))
            started = asyncio.get_running_loop().time()
            await engine.complete(model, ask("second"))
            await model.close()
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) >= 0.25


@pytest.mark.parametrize("fault", ["usage-none", "usage-wrong"])
def test_missing_or_impossible_usage_is_estimated_and_flagged(store: Store, fault: str) -> None:
    (completion,), _, _ = complete(store, [ask(f"[{fault}] why?")])
    assert completion.usage.counted == 1
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens == 3  # 12 letters


def test_reported_usage_is_kept_whole(store: Store) -> None:
    (completion,), _, _ = complete(store, [ask("[reasoning] why is that so?")])
    assert completion.usage.counted == 0
    assert completion.usage.cached_input_tokens == 5
    assert completion.usage.reasoning_tokens in (1, 2, 3)  # never more than the output
    assert completion.reasoning == "Let me see."


def test_thoughts_are_kept_apart(store: Store) -> None:
    (completion,), _, _ = complete(store, [ask("[think] why?")])
    assert completion.reasoning == "Let me see."
    assert len(completion.text) == 12


def test_half_an_emoji_is_the_same_now_and_from_the_store(store: Store) -> None:
    request = ask("[surrogate] why?")
    (first, again), _, _ = complete(store, [request, request])
    assert first == again
    first.text.encode()


@pytest.mark.parametrize("fault", ["sse", "sse-twice", "sse-anonymous"])
def test_a_stream_gives_each_letter_once(store: Store, fault: str) -> None:
    request = ask(f"[{fault}] why?")
    options = ModelOptions(extra_body={"stream": True})
    (completion,), _, server = complete(store, [request], options=options)
    told = answer({"messages": [{"role": "user", "content": f"[{fault}] why?"}], "temperature": 0.0})
    assert completion.text == told["choices"][0]["message"]["content"]
    assert completion.usage.counted == 0
    assert server.bodies[0]["stream"] is True


def test_a_stream_cut_short_is_retried(store: Store) -> None:
    options = ModelOptions(extra_body={"stream": True})
    (completion,), engine, _ = complete(store, [ask("[sse-cut,sse] why?")], options=options)
    assert completion.finish_reason == "stop"
    assert dict(engine.counters.retries) == {"cut short": 1}


def test_a_rejected_response_format_is_left_out_from_then_on(store: Store) -> None:
    form = json.dumps({"type": "json_object"})
    requests = [ask(f"[no-format,no-format,no-format] {n}", response_format=form) for n in range(3)]
    completions, engine, server = complete(store, requests)
    assert [completion.finish_reason for completion in completions] == ["stop"] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    assert not engine.counters.retries


def test_fields_that_reasoning_models_reject_are_renamed_or_left_out(store: Store) -> None:
    (completion, _), _, server = complete(store, [ask("[no-limit,no-limit,no-limit] a"), ask("b")])
    assert completion.finish_reason == "stop"
    assert server.bodies[-1]["max_completion_tokens"] == 16
    assert "max_tokens" not in server.bodies[-1]
    assert "temperature" not in server.bodies[-1]
    assert len(server.bodies) == 4


def test_the_key_reaches_the_server_and_nothing_else(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from helpers import KEY

    seen: list[str] = []

    async def main() -> ChatServer:
        async with ChatServer() as server:
            model = OpenAIModel("openai:test", ModelOptions(base_url=server.base_url))
            engine = Engine(store, LimitsConfig(attempts=2), on_event=seen.append, backoff_s=FAST)
            asked = ["[echo-key] a", "[echo-key-error,always] b", "[redirect] c", "[reset] d"]
            seen.extend([repr(await engine.complete(model, ask(text))) for text in asked])
            with pytest.raises(FractionateError) as caught:
                await engine.complete(model, ask("[401,always] e"))
            seen.extend([str(caught.value), repr(caught.value.__cause__), repr(model), engine.counters.line()])
            await model.close()
            return server

    caplog.set_level("DEBUG")
    server = asyncio.run(main())
    assert set(server.authorizations) == {f"Bearer {KEY}"}
    store.close()
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()
    assert KEY not in "".join(seen) + caplog.text + "".join(capsys.readouterr())
    assert any("[key]" in line for line in seen)
