"""Pairs with tools, served: look-ups are live, shown as steps, counted and paid for; a shadow uses none that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from serving import Measured, through
from test_official_client import client
from tool_runs import LOOK, ROWS, asked

from fractionate.cli import main
from fractionate.errors import UsageError
from fractionate.serve.gateway import Gateway
from fractionate.serve.shadow import Shadow
from servers.threaded import in_thread
from servers.tool_calling_server import ToolCallingServer

CONFIG = """
data.test = "jsonl:test.jsonl"
data.answer = "text"
run = {{strategies = ["single"], variants = []}}
models.teacher = "echo:"
models.solvers = ["{url}#test[facts]", "tool:facts", "tool:notes"]
models.decomposers = ["none"]
tools.facts = {{kind = "python", function = "look:look", usd_per_call = 0.01}}
tools.notes = {{kind = "python", function = "look:look", writes = true}}
prices."{url}#test" = {{input_per_million = 1, output_per_million = 1}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    base = tmp_path_factory.mktemp("tools")
    with in_thread(ToolCallingServer()) as server:
        (base / "look.py").write_text(LOOK)
        (base / "fractionate.toml").write_text(CONFIG.format(url=server.base_url))
        (base / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        assert main(["run", str(base / "fractionate.toml"), "--out", str(base / "run"), "--quiet"]) == 0
        server.bodies.clear()
        yield Measured(base / "run", server, [])  # type: ignore[arg-type]  # its own server, which calls tools


def test_look_ups_stream_as_reasoning(run: Measured) -> None:
    model = f"fractionate/single:none+{run.solver}[facts]"

    async def work(url: str, gateway: Gateway) -> list[dict[str, object]]:
        stream = await client(url).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is the capital of Kenya?"}],
            stream=True,
        )
        return [chunk.model_dump() async for chunk in stream]

    before = len(asked(run.folder.parent))
    chunks = through(run, work)
    assert len(asked(run.folder.parent)) == before + 1, "a served answer looks up anew"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    reasoning = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert reasoning == "facts: What is the capital of Kenya?\nNairobi\n"
    assert "".join(delta.get("content") or "" for delta in deltas) == "The answer is: Nairobi"
    (step,) = [chunk["fractionate"]["tool_call"] for chunk in chunks if "tool_call" in (chunk.get("fractionate") or {})]
    assert (step["tool"], step["reply"], step["failed"]) == ("facts", "Nairobi", False)


def test_a_served_answer_says_what_its_tools_cost(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> list[dict[str, object]]:
        answers = []
        for solver in (f"{run.solver}[facts]", "tool:facts"):
            reply = await client(url).chat.completions.create(
                model=f"fractionate/single:none+{solver}",
                messages=[{"role": "user", "content": "What is the capital of Kenya?"}],
            )
            answers.append(reply.model_dump())
        return answers

    by_model, alone = through(run, work)
    for reply in (by_model, alone):
        assert reply["fractionate"]["answer"] == "Nairobi"
        (used,) = reply["fractionate"]["tools"]
        assert (used["role"], used["tool"], used["calls"], used["usd"]) == ("solver", "facts", 1, 0.01)
    assert alone["fractionate"]["usd"]["total"] == pytest.approx(0.01)
    assert by_model["fractionate"]["usd"]["total"] > 0.01
    assert alone["choices"][0]["message"]["content"] == "Nairobi"


def test_a_shadow_never_uses_a_tool_that_writes(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        with pytest.raises(UsageError, match="its tool notes writes"):
            Shadow(gateway, "fractionate/single:none+tool:notes", 1.0, None)
        shadow = Shadow(gateway, "fractionate/single:none+tool:facts", 1.0, 1.0)
        await shadow.close()

    through(run, work)
