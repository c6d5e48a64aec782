"""A server that takes 200 ms a call is kept busy at any concurrency it allows, exactly, in virtual time."""

from __future__ import annotations

import asyncio
import math
import random

import pytest
from helpers import asking
from virtual import VirtualServer, run_virtually

from fractionate.calls.drive import run_all
from fractionate.calls.endpoint import START
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig


def serve(store: Store, server: VirtualServer, limit: int, trips: int) -> Engine:
    """Ask as much as fills the server for `trips` round trips, with at most `limit` calls in flight."""
    random.seed(7)  # back-offs are drawn

    async def main() -> None:
        values = await run_all((asking(server, str(number)) for number in range(trips * server.allowed)), engine)
        assert all(values), "every call succeeds"

    engine = Engine(store, LimitsConfig(concurrency=limit))
    run_virtually(main())
    engine.close()
    return engine


@pytest.mark.parametrize("allowed", [1, 5, 8, 32, 256])
def test_what_the_server_allows_is_used_and_not_passed(store: Store, allowed: int) -> None:
    server = VirtualServer(allowed)
    serve(store, server, allowed, 25)
    full, last = server.full_at(), server.served[-1]
    trip = server.delay_s + server.away_s
    doublings = max(0, math.ceil(math.log2(allowed / START)))
    assert full < (doublings + 1.1) * trip, "it doubles every round trip"
    assert server.busy(full, last) > 0.98
    assert server.refused == 0


@pytest.mark.parametrize("allowed", [3, 8, 32, 100, 256])
def test_what_the_server_allows_is_found_out(store: Store, allowed: int) -> None:
    server = VirtualServer(allowed)
    serve(store, server, 1024, 30)
    full, last = server.full_at(), server.served[-1]
    assert server.busy(full, last - 5 * server.delay_s) > 0.95  # at the very end some wait for their second try
    assert server.refused < 2 * allowed + 60, "once around the first doubling too many, then now and then one"


def test_a_server_that_comes_to_allow_less_and_more_is_followed(store: Store) -> None:
    """From 100 to 20 and back to 100 calls at once: it is kept busy in either state, soon after either change."""
    server = VirtualServer(100)
    random.seed(7)

    async def change() -> None:
        await asyncio.sleep(5)
        server.allowed = 20
        await asyncio.sleep(10)
        server.allowed = 100

    async def main() -> float:
        changing = asyncio.create_task(change())
        await run_all((asking(server, str(number)) for number in range(9000)), engine)
        await changing
        return asyncio.get_running_loop().time()

    engine = Engine(store, LimitsConfig(concurrency=1024, attempts=20))
    end = run_virtually(main())
    engine.close()
    assert server.busy(7, 15) * 100 > 0.95 * 20
    assert server.busy(20, end - 2) > 0.95
