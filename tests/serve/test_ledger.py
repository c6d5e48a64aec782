"""A solver's server that ignores `max_tokens`: a budget is exceeded at most by the calls in flight."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from serving import Measured, through

from fractionate.analysis.pricing import Pricing
from fractionate.cli import main
from fractionate.config import PriceConfig
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import PermanentFault
from fractionate.serve.errors import Refusal
from fractionate.serve.gateway import Gateway
from fractionate.serve.ledger import SERVER, Ledger
from fractionate.types import Completion, Message, Request, Usage
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

    async def generated(self, request: web.Request, body: dict[str, Any], bare: str) -> web.StreamResponse:
        if not bare.startswith("Ramble"):
            return await super().generated(request, body, bare)
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


PAID = "openai:paid"
ASKED = Request((Message("user", "q"),), "solver", max_tokens=50)


class Paid(SingleModel):
    """A model each of whose calls may take 100 tokens of input and 50 of output."""

    name = identity = PAID
    paid = True

    def most_usage(self, request: Request) -> Usage:
        return Usage(1, 100, 0, request.max_tokens)

    async def complete(self, request: Request) -> Completion:
        raise NotImplementedError


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger of $1 for the server and $0.5 for each key; a call to PAID reserves $0.15."""
    price = PriceConfig(input_per_million=1000.0, cached_input_per_million=500.0, output_per_million=1000.0)
    opened = Ledger(tmp_path / "ledger.sqlite", Pricing({PAID: price}), 1.0, 0.5)
    yield opened
    opened.close()


def test_a_reservation_becomes_what_the_call_cost(ledger: Ledger) -> None:
    first, second = (ledger.reserve(account, Paid(), ASKED) for account in ("a", "b"))
    assert first is not None
    assert (first.usd, first.max_tokens, first.read, first.excess) == (pytest.approx(0.15), 50, 0, None)
    assert (ledger.spent(), ledger.spent("a")) == (pytest.approx(0.3), pytest.approx(0.15))
    ledger.charge(first, 0.02)
    assert (ledger.spent(), ledger.spent("a")) == (pytest.approx(0.17), pytest.approx(0.02))
    ledger.charge(second, None)
    assert ledger.spent("b") == pytest.approx(0.15)
    ledger.charge(ledger.reserve("a", Paid(), ASKED), 0.01, estimated=True)
    assert ledger.spent("a") == pytest.approx(0.17), "an estimate below the reservation does not replace it"
    ledger.charge(ledger.reserve("a", Paid(), ASKED), 0.2, estimated=True)
    assert ledger.spent("a") == pytest.approx(0.37), "one above it does"
    ledger.charge(None, 1.0)
    assert ledger.spent() == pytest.approx(0.52)
    assert ledger.spent("nobody") == 0


def test_a_call_that_does_not_fit_is_refused_and_leaves_nothing_reserved(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.reserve("a", Paid(), ASKED)
    with pytest.raises(Refusal, match=r"this key \(--budget-usd-per-key 0\.5\) is used up: \$0\.45") as refused:
        ledger.reserve("a", Paid(), ASKED)
    assert (refused.value.status, refused.value.code) == (402, "budget_reached")
    assert ledger.spent() == pytest.approx(0.45)
    ledger.check_left("a")
    ledger.charge(ledger.reserve("b", Paid(), ASKED), 0.55)
    with pytest.raises(Refusal, match=r"the server \(--budget-usd 1\)"):
        ledger.check_left("c")


def test_a_call_reserves_the_dearest_overrun_of_its_model(ledger: Ledger) -> None:
    ledger.charge(ledger.reserve("a", Paid(), ASKED), 0.3)
    ledger.charge(ledger.reserve("b", Paid(), ASKED), 0.2)
    again = ledger.reserve("b", Paid(), ASKED)
    assert again is not None
    assert again.usd == pytest.approx(0.3)


def test_a_stream_may_bring_eight_bytes_a_token_and_a_little_more(ledger: Ledger) -> None:
    reservation = ledger.reserve("a", Paid(), ASKED)
    assert reservation is not None
    reservation.take("ä" * 200)
    reservation.take("a" * 64)
    with pytest.raises(PermanentFault, match="more than the 50 tokens") as stopped:
        reservation.take("a")
    assert (stopped.value.cause, stopped.value.maybe_paid) == ("max_tokens ignored", True)
    assert reservation.excess == Usage(1, 0, 0, 116)
    ledger.charge(reservation, None)
    assert ledger.spent("a") == pytest.approx(0.15 + 0.116)


def test_a_ledger_that_cannot_be_written_lets_no_call_leave(ledger: Ledger, tmp_path: Path) -> None:
    with sqlite3.connect(ledger.path, isolation_level=None) as other:
        other.execute("DROP TABLE accounts")
    other.close()
    with pytest.raises(Refusal, match="ledger") as refused:
        ledger.reserve("a", Paid(), ASKED)
    assert (refused.value.status, refused.value.code) == (503, "no_ledger")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FractionateError, match="cannot be opened"):
        Ledger(tmp_path / "folder", Pricing({}), 1.0, None)
    unbounded = Ledger(tmp_path / "none.sqlite", Pricing({}), None, None)
    assert unbounded.reserve("a", Paid(), ASKED) is None
    assert (unbounded.spent(), (tmp_path / "none.sqlite").exists()) == (0.0, False)
    with pytest.raises(UsageError, match="no price is known for openai:paid"):
        Ledger(tmp_path / "other.sqlite", Pricing({PAID: PriceConfig()}), None, 1.0).check_priced(Paid())
