"""A solver's server that ignores `max_tokens`: a budget is exceeded at most by the calls in flight."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from serving import Measured, through

from fractionate.cli import main
from fractionate.serve.gateway import Gateway
from fractionate.serve.ledger import SERVER
from servers.solver_server import SolverServer, chunk
from servers.threaded import in_thread

CONFIG = """
[data]
test = ["jsonl:test.jsonl"]
[models]
teacher = "echo:"
solvers = ["{url}#test"]
decomposers = ["none"]
[models.options."{url}#test"]
max_tokens = 50
[run]
strategies = ["single"]
variants = []
[prices."{url}#test"]
input_per_million = 0.0
output_per_million = 1000.0
"""
LENGTH = 1_000
"""Tokens of every reply to a question that begins with "Ramble"; a call reserves 50 of them."""
WORDS = "word " * LENGTH


class RamblingServer(SolverServer):
    """Answers questions that begin with "Ramble" with as many tokens as it likes; a stream of them never ends."""

    written = 0
    says_usage = True

    def answered_by(self, body: dict[str, Any], bare: str) -> dict[str, Any]:
        reply = super().answered_by(body, bare)
        if bare.startswith("Ramble"):
            reply["choices"][0]["message"]["content"] = WORDS
            reply["usage"] = {"prompt_tokens": 10, "completion_tokens": LENGTH} if self.says_usage else None
        return reply

    async def spoken(self, request: web.Request, body: dict[str, Any], bare: str) -> web.StreamResponse:
        if not bare.startswith("Ramble"):
            return await super().spoken(request, body, bare)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            self.written += 100
            await response.write(chunk({"choices": [{"index": 0, "delta": {"content": WORDS[:100]}}]}))


@pytest.fixture
def rambling(tmp_path: Path) -> Iterator[tuple[Measured, RamblingServer]]:
    with in_thread(RamblingServer()) as server:
        (tmp_path / "test.jsonl").write_text('{"question": "How far is it to 7?", "answer": "7"}\n')
        (tmp_path / "fractionate.toml").write_text(CONFIG.format(url=server.base_url))
        assert main(["run", str(tmp_path / "fractionate.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
        yield Measured(tmp_path / "run", server, []), server


def asked(run: Measured, *, stream: bool = False) -> dict[str, Any]:
    question = {"role": "user", "content": "Ramble on about 7?"}
    return {"model": run.pair("single"), "messages": [question], "stream": stream}


async def status_of(session: aiohttp.ClientSession, url: str, body: Any) -> int:
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        await reply.read()
        return reply.status


@pytest.mark.parametrize("says_usage", [True, False])
def test_after_one_overrun_calls_reserve_the_dearest_one_seen(
    rambling: tuple[Measured, RamblingServer], says_usage: bool
) -> None:
    run, server = rambling
    server.says_usage = says_usage
    cap, dear = 4.5, LENGTH / 1000  # dollars: one call takes $1.00 where $0.05 is reserved

    async def work(url: str, gateway: Gateway) -> list[int]:
        async with aiohttp.ClientSession() as session:
            found = [await status_of(session, url, asked(run)) for _ in range(10)]
        assert gateway.ledger.spent(SERVER) <= cap
        return found

    found = through(run, work, budget_usd=cap)
    assert found[:1] == [200]
    assert found[4:] == [402] * 6, "without usage, tokens are counted from the text: a few more than a word each"

    async def again(url: str, gateway: Gateway) -> list[int]:
        async with aiohttp.ClientSession() as session:
            return [await status_of(session, url, asked(run)) for _ in range(3)]

    assert through(run, again, budget_usd=cap + dear).count(200) == 1, "another server remembers it"


def test_calls_in_flight_at_the_first_overrun_are_the_most_that_passes(
    rambling: tuple[Measured, RamblingServer],
) -> None:
    run, _ = rambling

    async def work(url: str, gateway: Gateway) -> list[int]:
        async with aiohttp.ClientSession() as session:
            found = await asyncio.gather(*(status_of(session, url, asked(run)) for _ in range(40)))
        assert gateway.ledger.spent(SERVER) <= 4 * LENGTH / 1000
        return found

    assert through(run, work, budget_usd=0.2, concurrency=4, queue=100).count(200) <= 4


def test_a_stream_that_passes_its_reservation_is_read_no_further(rambling: tuple[Measured, RamblingServer]) -> None:
    run, server = rambling

    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/v1/chat/completions", json=asked(run, stream=True)) as reply:
                events = [line for line in (await reply.text()).split("\n\n") if line]
            last = json.loads(events[-1].removeprefix("data: "))["error"]
            assert "more than the 50 tokens that it was allowed" in last["message"]
            text = "".join(
                json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"] for line in events[:-1]
            )
            assert 50 * 4 < len(text) < 50 * 8 + 400, "it passed 50 tokens, and not by far"
            while not server.gone:
                await asyncio.sleep(0.005)
            # What was read beyond the reservation counts too.
            assert gateway.ledger.spent(SERVER) == pytest.approx((50 + len(text) / 4) / 1000, abs=0.002)

    through(run, work, budget_usd=1.0)


def test_the_ledger_is_its_owners_alone(rambling: tuple[Measured, RamblingServer]) -> None:
    run, _ = rambling
    (run.folder / "serving.sqlite").touch(0o644)
    (run.folder / "serving.sqlite").chmod(0o644)

    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            assert await status_of(session, url, asked(run)) == 200
        for file in run.folder.glob("serving.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name

    through(run, work, budget_usd=1.5)
