"""One rule for waits, shared by a run's engine and the gateway's upstream, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from helpers import ask
from virtual import VirtualReplicas, VirtualServer, run_virtually

from fractionate.analysis.pricing import Pricing
from fractionate.calls.engine import Engine
from fractionate.calls.limits import BACKOFF_S
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import SingleModel
from fractionate.models.faults import Fault, RateHeaders, TransientFault
from fractionate.serve.ledger import Ledger
from fractionate.serve.metrics import Metrics
from fractionate.serve.upstream import Upstream
from fractionate.types import Completion, Request

Caller = Callable[[SingleModel, str], Coroutine[Any, Any, Completion]]
DEADLINE_S = 60.0


class Recovering(VirtualServer):
    """A server whose first calls meet the given faults; `sent_at` holds when each call came."""

    def __init__(self, *faults: Fault, name: str = "http://a/v1#m") -> None:
        super().__init__(100, name=name)
        self.faults = list(faults)
        self.paid = True
        self.sent_at: list[float] = []

    async def complete(self, request: Request) -> Completion:
        self.sent_at.append(asyncio.get_running_loop().time())
        if self.faults:
            raise self.faults.pop(0)
        return await super().complete(request)


@pytest.fixture(params=["run", "gateway"])
def caller(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Caller:
    """Return a way to make one call: as a run does it, as the gateway does it."""
    random.seed(3)  # back-offs are drawn
    limits = LimitsConfig(attempts=3)
    engine = Engine(store, limits)
    upstream = Upstream(limits, Pricing({}), Ledger(tmp_path / "book.sqlite", Pricing({}), None, None), Metrics())

    async def from_run(model: SingleModel, text: str) -> Completion:
        return await engine.complete(model, ask(text))

    async def from_gateway(model: SingleModel, text: str) -> Completion:
        until = asyncio.get_running_loop().time() + DEADLINE_S
        return (await upstream.call(model, ask(text), model.name, "", until))[0]

    return from_run if request.param == "run" else from_gateway


def refusal(after_s: float | None = None) -> TransientFault:
    return TransientFault("429", "slow down", after_s=after_s, congested=True)


def test_a_retry_waits_for_retry_after_and_a_back_off_on_top(caller: Caller) -> None:
    server = Recovering(refusal(10.0), refusal())
    assert run_virtually(caller(server, "q")).text == "yes"
    first, second, third = server.sent_at
    assert 10 + 0.2 * BACKOFF_S <= second - first <= 10 + BACKOFF_S
    assert 0.4 * BACKOFF_S <= third - second <= 2 * BACKOFF_S


def test_retry_after_pauses_the_endpoint_for_all_calls(caller: Caller) -> None:
    server = Recovering(refusal(10.0))

    async def main() -> None:
        first = asyncio.create_task(caller(server, "first"))
        await asyncio.sleep(1)
        await caller(server, "second")
        await first

    run_virtually(main())
    assert all(at >= server.sent_at[0] + 10 for at in server.sent_at[1:])


def test_where_another_endpoint_is_free_a_retry_waits_for_the_back_off_alone(caller: Caller) -> None:
    servers = Recovering(refusal(10.0)), Recovering(refusal(10.0), name="http://b/v1#m")
    model: Any = VirtualReplicas(*servers)
    model.name, model.paid = "http://a/v1,http://b/v1#m", True

    async def main() -> float:
        servers[0 if servers[1].faults else 1].faults.clear()
        await caller(model, "q")
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) < 1


def test_a_spent_allowance_is_waited_for_but_no_longer_than_two_minutes(caller: Caller) -> None:
    server = Recovering()

    async def wait_after(reset_s: float, name: str) -> float:
        server.rate = RateHeaders(remaining_requests=0, reset_requests_s=reset_s)
        await caller(server, f"{name} first")
        server.rate = None
        started = asyncio.get_running_loop().time()
        try:
            await caller(server, f"{name} second")
        except TransientFault as fault:  # past the gateway's deadline: it says when to come again
            return fault.after_s or 0.0
        return asyncio.get_running_loop().time() - started

    assert run_virtually(wait_after(30, "short")) == pytest.approx(30, abs=1)
    assert run_virtually(wait_after(86_400, "daily")) == pytest.approx(120, abs=1)


def test_attempts_are_the_same_and_counted(caller: Caller) -> None:
    server = Recovering(*(refusal() for _ in range(9)))

    async def attempts() -> int | str:
        try:
            return (await caller(server, "q")).error
        except Fault as fault:
            return fault.attempts

    assert run_virtually(attempts()) in (3, "429: slow down (3 attempts)")
    assert len(server.sent_at) == 3


def test_a_wait_past_the_deadline_ends_a_served_call_at_once(tmp_path: Path) -> None:
    upstream = Upstream(
        LimitsConfig(), Pricing({}), Ledger(tmp_path / "book.sqlite", Pricing({}), None, None), Metrics()
    )
    server = Recovering(refusal(100.0))

    async def main() -> float:
        for _ in range(2):  # the second one meets the pause
            with pytest.raises(TransientFault) as caught:
                await upstream.call(server, ask("q"), server.name, "", asyncio.get_running_loop().time() + DEADLINE_S)
            assert caught.value.after_s == pytest.approx(100)
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == 0
    assert len(server.sent_at) == 1


def test_a_run_waits_a_quarter_of_an_hour_and_stops_where_more_is_asked(store: Store) -> None:
    server = Recovering(refusal(890.0), refusal(1000.0))

    async def main() -> float:
        engine = Engine(store)
        with pytest.raises(FractionateError, match=r"asks to wait 1000 s.*same command again"):
            await engine.complete(server, ask("q"))
        return asyncio.get_running_loop().time()

    assert 890 <= run_virtually(main()) < 900
