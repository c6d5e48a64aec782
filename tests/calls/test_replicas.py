"""One model on several real servers on loopback: balance, prefixes, failover, recovery, calls paid twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import KEY, ask, asking

from fractionate.calls import endpoint
from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.forecast import plan_stage
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.errors import FractionateError
from fractionate.models import open_model
from fractionate.models.base import SingleModel
from fractionate.models.openai.api import OpenAIModel
from servers.chat_server import ChatServer
from servers.threaded import in_thread

Meanwhile = Callable[[], Awaitable[None]]
SERVER = Path(__file__).parents[1] / "servers" / "chat_server.py"


def named(*servers: ChatServer) -> str:
    return ",".join(server.base_url for server in servers) + "#test"


def numbered(count: int) -> list[str]:
    return [f"question {number}" for number in range(count)]


def serve(
    store: Store,
    servers: Iterable[ChatServer],
    texts: list[str],
    *,
    name: Callable[..., str] = named,
    options: ModelOptions | None = None,
    heard: list[str] | None = None,
    meanwhile: Meanwhile | None = None,
    **limits: Any,
) -> Engine:
    """Ask every question through the servers; every call has to succeed."""
    servers = list(servers)

    async def main() -> Engine:
        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server)
            model = open_model(name(*servers), options or ModelOptions())
            on_event = None if heard is None else heard.append
            engine = Engine(store, LimitsConfig(**limits), on_event=on_event, backoff_s=0.005)
            beside = asyncio.ensure_future(meanwhile()) if meanwhile is not None else None
            try:
                values = await run_all((asking(model, text) for text in texts), engine)
                assert all(values), engine.counters.line()
                if beside is not None:
                    await beside
            finally:
                engine.close()
                await model.close()
            return engine

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def nobody() -> str:
    """The address of a server that is not there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/v1"


def answered(*servers: ChatServer) -> Counter[str]:
    return sum((server.answered for server in servers), Counter())


def test_shares_follow_what_each_server_takes(store: Store) -> None:
    small, large = ChatServer(delay_s=0.02, concurrency=4), ChatServer(delay_s=0.02, concurrency=16)
    serve(store, [small, large], numbered(600), concurrency=64, attempts=60)
    assert (small.peak, large.peak) == (4, 16)
    assert 0.1 < small.answered.total() / 600 < 0.35  # 4 of 20 slots
    assert set(answered(small, large).values()) == {1}


def test_a_passage_meets_the_server_that_has_read_it(store: Store) -> None:
    servers = [ChatServer(delay_s=0.01, concurrency=8) for _ in range(3)]
    texts = [f"Passage {one} tells much.\n\nQuestion {number}" for one in range(60) for number in range(8)]
    serve(store, servers, texts, concurrency=64, attempts=60)
    met = 0
    for server in servers:
        assert server.answered.total() > 480 / 6
        met += sum(count - 1 for count in Counter(text.partition("\n\n")[0] for text in server.answered).values())
    assert met / (480 - 60) > 0.8  # by chance alone it would be 0.64


def test_a_server_that_dies_in_the_middle_loses_only_what_it_had_in_flight(store: Store) -> None:
    dies, stays = ChatServer(delay_s=0.02), ChatServer(delay_s=0.02)
    heard: list[str] = []

    async def kill() -> None:
        await until(lambda: dies.answered.total() > 50 and dies.active > 4)
        await dies.die()

    engine = serve(store, [dies, stays], numbered(600), heard=heard, meanwhile=kill, concurrency=24)
    paid = answered(dies, stays)
    assert len(paid) == 600
    assert max(paid.values()) <= 2
    assert paid.total() - 600 <= 24, "what was in flight, which limits.concurrency bounds"
    assert len(store) == 600
    assert engine.counters.failures == {}
    (line,) = [line for line in heard if "left out" in line]
    assert f"127.0.0.1:{dies.port}" in line
    assert "1 of 2 servers go on" in line


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_process_is_failed_over(store: Store) -> None:
    command = [sys.executable, str(SERVER), "--delay", "0.02"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SERVER.parents[1])},
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    stays = ChatServer(delay_s=0.02)

    async def kill() -> None:
        await until(lambda: stays.answered.total() > 100)
        process.send_signal(signal.SIGKILL)

    def both(one: ChatServer) -> str:
        return f"http://127.0.0.1:{port}/v1,{one.base_url}#test"

    try:
        engine = serve(store, [stays], numbered(600), name=both, meanwhile=kill, concurrency=24)
    finally:
        process.kill()
        process.communicate()
    assert len(store) == 600
    assert engine.counters.failures == {}
    assert 100 < stays.answered.total() < 600


def test_a_server_that_comes_back_is_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_OUT_S", 0.05)
    monkeypatch.setattr(endpoint, "LONGEST_OUT_S", 0.2)
    goes, stays = ChatServer(delay_s=0.01), ChatServer(delay_s=0.01)
    heard: list[str] = []

    async def main() -> None:
        async with goes, stays:
            model = open_model(named(goes, stays), ModelOptions())
            engine = Engine(store, LimitsConfig(concurrency=8, attempts=2), on_event=heard.append, backoff_s=0.005)
            number = 0

            async def ask_on() -> None:
                nonlocal number
                texts = [f"question {number + at}" for at in range(50)]
                number += 50
                assert all(await run_all((asking(model, text) for text in texts), engine))

            await ask_on()
            before = goes.answered.total()
            assert before > 0
            await goes.die()
            await ask_on()
            assert goes.answered.total() == before
            await goes.__aenter__()
            while goes.answered.total() < before + 50:
                await ask_on()
            engine.close()
            await model.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [line.rpartition(" ")[2] for line in heard if "answers again" in line] == ["again"]


def test_a_server_that_is_not_there_costs_no_attempt(store: Store) -> None:
    there = ChatServer()
    engine = serve(store, [there], numbered(100), name=lambda one: f"{nobody()},{one.base_url}#test", attempts=1)
    assert there.answered.total() == 100
    assert set(engine.counters.retries) == {"connect"}


def test_a_server_without_the_model_is_told_and_left_out(store: Store) -> None:
    class Another(ChatServer):
        async def reply(self, request: Any, body: dict[str, Any], question: str) -> Any:
            return await super().reply(request, body, f"[404,always] {question}")

    without, having = Another(), ChatServer()
    heard: list[str] = []
    serve(store, [without, having], numbered(100), heard=heard, attempts=1)
    assert having.answered.total() == 100
    (line,) = [line for line in heard if "left out" in line]
    assert f"127.0.0.1:{without.port}/v1#test: the server does not know this model" in line


def test_all_down_stops_the_run_in_one_line_that_names_them(store: Store) -> None:
    one, two = nobody(), nobody()
    with pytest.raises(FractionateError, match=r"no call to .* has succeeded, so the run stops") as caught:
        serve(store, [], numbered(50), name=lambda: f"{one},{two}#test", attempts=3)
    said = str(caught.value)
    assert f"{one}#test: cannot connect" in said
    assert f"{two}#test: cannot connect" in said
    assert "\n" not in said


def test_no_model_anywhere_stops_the_run_at_once(store: Store) -> None:
    servers = [ChatServer(), ChatServer()]
    texts = [f"[404,always] question {number}" for number in range(5000)]
    with pytest.raises(FractionateError, match=r"does not know this model.*; http.*does not know this model"):
        serve(store, servers, texts)
    assert sum(server.asked.total() for server in servers) < 200


def test_a_key_goes_to_every_address_and_no_further(store: Store) -> None:
    """A redirecting address is left out: neither the call nor the key follows."""

    class Redirecting(ChatServer):
        async def reply(self, request: Any, body: dict[str, Any], question: str) -> Any:
            return await super().reply(request, body, f"[redirect,always] {question}")

    sends_on, honest = Redirecting(), ChatServer()
    options = ModelOptions(api_key_env="OPENAI_API_KEY")
    serve(store, [sends_on, honest], numbered(60), options=options, attempts=1)
    assert sends_on.redirected == honest.redirected == []
    assert set(sends_on.authorizations) == set(honest.authorizations) == {f"Bearer {KEY}"}


def test_what_one_server_was_paid_for_is_never_paid_for_again(store: Store) -> None:
    """A server is added, the list turned round, its first address left out: no call is made that any list made."""
    one, two, three = [ChatServer() for _ in range(3)]

    async def main() -> list[int]:
        async with one, two, three:
            sent: list[int] = []
            for name in (one.name, named(one, two), named(two, one), named(three, two, one)):
                model = open_model(name, ModelOptions())
                assert isinstance(model, SingleModel)
                texts = numbered(20 if not sent else 40)
                told = plan_stage("ask", model, [ask(text) for text in texts], store)
                engine = Engine(store)
                await run_all((asking(model, text) for text in texts), engine)
                engine.close()
                await model.close()
                sent.append(engine.counters.sent)
                assert (told.calls, told.stored) == (sent[-1], len(texts) - sent[-1]), "the forecast knows it"
            return sent

    assert asyncio.run(main()) == [20, 20, 0, 0]
    assert set(answered(one, two, three).values()) == {1}
    assert {call.identity for call in store.calls()} == {one.name}, "the first-written address's, as when it was alone"


def test_requests_a_minute_are_of_both_servers_together(store: Store) -> None:
    """600 a minute: a burst of 20, then one every 103 ms, whatever the number of addresses."""

    async def main() -> float:
        async with ChatServer() as one, ChatServer() as two:
            model = open_model(named(one, two), ModelOptions())
            engine = Engine(store, LimitsConfig(requests_per_minute=600))
            started = asyncio.get_running_loop().time()
            await run_all((asking(model, text) for text in numbered(26)), engine)
            await model.close()
            assert min(one.answered.total(), two.answered.total()) > 0
            return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) >= 0.6


def test_a_model_that_is_opened_anew_sends_by_itself(tmp_path: Path) -> None:
    """Stages have event loops of their own, and close what they opened: nobody may go on with what is closed."""
    with in_thread(ChatServer()) as server, Store(tmp_path / "s.sqlite") as store:
        engine = Engine(store)
        for text in ("first", "second"):

            async def stage(text: str = text) -> bool:
                model = open_model(server.name, ModelOptions())
                assert isinstance(model, OpenAIModel)
                await run_all([asking(model, text)], engine)
                used = model._session is not None
                await model.close()
                return used

            assert asyncio.run(stage())
        engine.close()
