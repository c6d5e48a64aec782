"""Tools of a real MCP server, made with the official SDK: over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tool_runs import Opened, results_of

from fractionate.config import ToolConfig
from fractionate.errors import FractionateError
from fractionate.models.faults import FatalFault, TransientFault
from fractionate.run.forecast import forecast_run
from fractionate.tools import open_tool
from fractionate.tools.base import LISTING, ToolModel, call_request
from fractionate.types import Completion, Message
from servers.threaded import in_thread
from servers.tool_calling_server import ToolCallingServer

pytest.importorskip("mcp", reason="the 'mcp' extra is not installed")
SERVER = str(Path(__file__).parents[1] / "servers/mcp_facts.py")
PATIENT = 120.0
CAPITAL = Message("user", "What is the capital of Kenya?")


def tool(*how: str, **config: Any) -> ToolModel:
    command = [sys.executable, SERVER, *how]
    settings = {"kind": "mcp", "command": command, "timeout_s": PATIENT, **config}
    return open_tool("facts", ToolConfig(**settings), Path())


def ask(model: ToolModel, *messages: Message) -> list[Completion]:
    async def work() -> list[Completion]:
        try:
            return [await model.complete(call_request(message, "solver")) for message in messages]
        finally:
            await model.close()

    return asyncio.run(work())


def test_a_server_on_stdio_is_asked_by_questions_and_by_arguments() -> None:
    added = Message("arguments", '{"name":"add","arguments":{"a":1,"b":2}}')
    unknown = Message("arguments", '{"name":"subtract","arguments":{}}')
    replies = ask(tool(), CAPITAL, Message("user", "Who?"), added, unknown, LISTING)
    assert (replies[0].text, replies[2].text) == ("Nairobi", "3")
    assert replies[1].error == "Error executing tool lookup", "what the server marks as an error is one"
    assert replies[3].error == "there is no 'subtract' (there are: lookup, add)"
    assert replies[4].usage.calls == 0, "being asked for its functions is no call of a tool"


def test_one_tool_of_a_server_is_chosen() -> None:
    (reply,) = ask(tool(tool="lookup"), CAPITAL)
    assert reply.text == "Nairobi"
    with pytest.raises(FatalFault, match=r"has no tool 'look' \(it has: lookup, add\)"):
        ask(tool(tool="look"), CAPITAL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The URL of a server over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, "http", str(port)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until, "the server does not come up"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def test_a_server_over_http(address: str) -> None:
    (reply,) = ask(tool(command=[], url=address), CAPITAL)
    assert reply.text == "Nairobi"


@pytest.mark.parametrize(
    ("how", "config", "said"),
    [
        (["dies"], {}, "ended before it answered the MCP handshake: the database is locked"),
        (["hangs"], {"timeout_s": 2.0}, r"did not answer the MCP handshake within 1\.8 s \(timeout_s\)"),
        ([], {"command": ["no-such-command"]}, "no-such-command cannot be started: no such command"),
        ([], {"command": [], "url": "http://127.0.0.1:9/mcp"}, "http://127.0.0.1:9/mcp cannot be reached"),
    ],
)
def test_a_server_that_is_not_there_gets_its_line(how: list[str], config: dict[str, Any], said: str) -> None:
    with pytest.raises(FatalFault, match=said) as fault:
        ask(tool(*how, **config), CAPITAL)
    assert str(fault.value).startswith("tool:facts: ")
    assert "\n" not in str(fault.value)


def test_a_server_that_dies_is_started_again_for_the_next_call() -> None:
    added = Message("arguments", '{"name":"add","arguments":{"a":1,"b":2}}')

    async def work() -> None:
        model = tool("dies-later")
        with pytest.raises(TransientFault, match="ended before it replied"):
            await model.complete(call_request(CAPITAL, "solver"))
        assert (await model.complete(call_request(added, "solver"))).text == "3"
        await model.close()

    asyncio.run(work())


def test_a_run_stores_what_a_server_offers_and_replies(folder: Path, opened: Opened) -> None:
    """A second run needs no server: its functions are stored like its replies."""
    facts = {"kind": "mcp", "command": [sys.executable, SERVER], "timeout_s": PATIENT}
    with in_thread(ToolCallingServer()) as server:
        prices = {server.name: {"input_per_million": 1.0, "output_per_million": 1.0}}
        name = f"{server.name}[facts]"
        with opened([name, "tool:facts"], {"facts": facts}, prices=prices) as run:
            cells = results_of(run)["by"]
            assert cells["stepwise", name]["value"] == cells["stepwise", "tool:facts"]["value"] == 1.0
            assert cells["stepwise", name]["tools"][0]["calls"] == 5
        with opened([name], {"facts": facts}, out="forecast", prices=prices, data={"test": "jsonl:more.jsonl"}) as run:
            (folder / "more.jsonl").write_text('{"question": "Another one?", "answer": "yes", "subquestions": ["a?"]}')
            assert forecast_run(run).calls > 0, "what is stored of the tool stands for its replies, not for its list"
        names = [one["function"]["name"] for one in server.bodies[0]["tools"]]
        assert names == ["facts_lookup", "facts_add"]
        with opened([name, "tool:facts"], {"facts": facts}, out="again", prices=prices) as run:
            results_of(run)
            assert run.engine.counters.sent == 0


def test_a_run_whose_server_dies_stops_with_one_line(opened: Opened) -> None:
    facts = {"kind": "mcp", "command": [sys.executable, SERVER, "dies"], "timeout_s": PATIENT}
    with opened(["tool:facts"], {"facts": facts}) as run, pytest.raises(FractionateError, match="is locked") as error:
        results_of(run)
    assert "\n" not in str(error.value)
