"""A pair whose model is on several servers: served while one of them answers, with failover."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from helpers import ask
from serving import CONFIG, ROWS, Measured, through
from virtual import VirtualReplicas, VirtualServer, run_virtually

from fractionate.analysis.pricing import Pricing
from fractionate.cli import main
from fractionate.config import LimitsConfig, PriceConfig
from fractionate.errors import FractionateError
from fractionate.serve.gateway import Gateway
from fractionate.serve.ledger import Ledger
from fractionate.serve.metrics import Metrics
from fractionate.serve.upstream import Upstream
from servers.solver_server import SolverServer
from servers.threaded import in_thread


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[SolverServer, SolverServer]]:
    with in_thread(SolverServer()) as one, in_thread(SolverServer()) as two:
        yield one, two


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, servers: tuple[SolverServer, SolverServer]) -> Measured:
    base = tmp_path_factory.mktemp("served-by-two")
    (base / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (base / "fractionate.toml").write_text(CONFIG.format(url=f"{servers[0].base_url},{servers[1].base_url}"))
    assert main(["run", str(base / "fractionate.toml"), "--out", str(base / "run"), "--quiet"]) == 0
    return Measured(base / "run", servers[0], [])


async def answers(url: str, model: str, questions: list[str], *, stream: bool = False) -> list[int]:
    async def one(question: str) -> int:
        asked = {"model": model, "messages": [{"role": "user", "content": question}], "stream": stream}
        async with session.post(f"{url}/v1/chat/completions", json=asked) as reply:
            assert '"error"' not in await reply.text()
            return reply.status

    async with aiohttp.ClientSession() as session:
        return list(await asyncio.gather(*map(one, questions)))


def name_of(servers: tuple[SolverServer, SolverServer]) -> str:
    return f"{servers[0].base_url},{servers[1].base_url}#test"


def test_both_servers_answer(run: Measured, servers: tuple[SolverServer, SolverServer]) -> None:
    pair = f"fractionate/single:none+{name_of(servers)}"

    async def work(url: str, gateway: Gateway) -> None:
        await gateway.check_models()
        before = [server.requests for server in servers]
        assert set(await answers(url, pair, [f"How far is {number}?" for number in range(40)])) == {200}
        assert all(server.requests - then > 5 for server, then in zip(servers, before, strict=True))

    through(run, work)


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_down_is_told_and_left_out(
    run: Measured, servers: tuple[SolverServer, SolverServer], tmp_path: Path, stream: bool
) -> None:
    folder, pair = moved(run, servers, tmp_path, 1), f"fractionate/single:none+{name_of(servers)}"
    pair = pair.replace(servers[1].base_url, "http://127.0.0.1:1/v1")
    told: list[str] = []

    async def work(url: str, gateway: Gateway) -> None:
        gateway.on_news.append(told.append)
        await gateway.check_models()
        assert any("127.0.0.1:1/v1#test: cannot connect" in line for line in told)
        questions = [f"How far is {number}?" for number in range(40)]
        assert set(await answers(url, pair, questions, stream=stream)) == {200}
        assert any("1 of 2 servers go on" in line for line in told)
        assert 0 < gateway.metrics.retries.values[("solver", "connect")] <= 40

    through(folder, work)


def test_with_all_servers_down_it_does_not_start(
    run: Measured, servers: tuple[SolverServer, SolverServer], tmp_path: Path
) -> None:
    folder = moved(run, servers, tmp_path, 0, 1)

    async def work(url: str, gateway: Gateway) -> None:
        with pytest.raises(FractionateError, match=r"127\.0\.0\.1:1/v1#.*127\.0\.0\.1:2/v1#.*--no-check"):
            await gateway.check_models()

    through(folder, work)


def moved(run: Measured, servers: tuple[SolverServer, SolverServer], to: Path, *gone: int) -> Measured:
    """Return a copy of the run in which some servers have addresses where nobody listens (ports 1 and 2)."""
    folder = to / "run"
    folder.mkdir()
    for file in run.folder.iterdir():
        if file.is_file() and file.suffix == ".json":
            text = file.read_text()
            for port, at in enumerate(gone, 1):
                text = text.replace(servers[at].base_url, f"http://127.0.0.1:{port}/v1")
            (folder / file.name).write_text(text)
    return Measured(folder, run.server, [])


def test_a_server_that_lets_deadlines_pass_is_left_out(tmp_path: Path) -> None:
    hangs, answering = [VirtualServer(16, name=f"http://{letter}/v1#m") for letter in "ab"]
    hangs.delay_s = 1e6
    model: Any = VirtualReplicas(hangs, answering)
    model.paid = True
    prices = {model.name: PriceConfig(input_per_million=1.0, output_per_million=1.0)}
    ledger = Ledger(tmp_path / "book.sqlite", Pricing(prices), None, None)
    upstream = Upstream(LimitsConfig(), Pricing(prices), ledger, Metrics())

    async def main() -> int:
        late = 0
        for number in range(100):
            until = asyncio.get_running_loop().time() + 2
            try:
                async with asyncio.timeout_at(until):
                    await upstream.call(model, ask(f"How far is {number}?"), model.name, "", until)
            except TimeoutError:
                late += 1
        return late

    assert run_virtually(main()) <= 3 + 4, "three in a row, then trials after 1, 2, 4 and 8 s"
    ledger.close()
    assert len(answering.served) >= 93
