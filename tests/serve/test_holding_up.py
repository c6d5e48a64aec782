"""Overload, slow solvers, failing parts, disconnects, budgets: every request has one answer, none is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from serving import Measured, through

from fractionate.serve.gateway import Gateway
from fractionate.serve.ledger import SERVER


def body(model: str, question: str = "How far is it to 7?", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


async def post(session: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """Return (status, JSON, headers)."""
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
        return reply.status, await reply.json(), reply.headers


async def until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.005)


def test_a_full_server_says_when_to_come_again(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            slow = [asyncio.ensure_future(post(session, url, body(run.pair("single"), "[slow] 7"))) for _ in range(3)]
            await until(lambda: gateway.admission.waiting == 1)
            status, told, headers = await post(session, url, body(run.pair("single")))
            assert (status, told["error"]["code"], told["error"]["type"]) == (429, "server_full", "rate_limit_error")
            assert int(headers["Retry-After"]) >= 1
            run.server.gate.set()
            assert [status for status, _, _ in await asyncio.gather(*slow)] == [200, 200, 200]
            assert (gateway.admission.inside, gateway.admission.waiting) == (0, 0)

    through(run, work, concurrency=2, queue=1)


def test_who_waits_and_leaves_gives_up_its_turn(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            first = asyncio.ensure_future(post(session, url, body(run.pair("single"), "[slow] 7")))
            await until(lambda: gateway.admission.inside == 1)
            second = asyncio.ensure_future(post(session, url, body(run.pair("single"))))
            await until(lambda: gateway.admission.waiting == 1)
            second.cancel()
            await until(lambda: gateway.admission.waiting == 0)
            third = asyncio.ensure_future(post(session, url, body(run.pair("single"))))
            await until(lambda: gateway.admission.waiting == 1)
            run.server.gate.set()
            assert [status for status, _, _ in await asyncio.gather(first, third)] == [200, 200]
            assert gateway.admission.inside == 0

    through(run, work, concurrency=1, queue=1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_call_upstream(run: Measured, stream: bool) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("static", "teacher"), "[slow] How far is 7?", stream=stream)
            request = asyncio.ensure_future(session.post(f"{url}/v1/chat/completions", json=asked))
            await until(lambda: run.server.holding == 1)
            if stream:
                reply = await request
                await reply.content.readany()
                reply.close()
            else:
                request.cancel()
            await until(lambda: run.server.gone == 1)
            await until(lambda: gateway.admission.inside == 0)
        run.server.gate.set()
        assert gateway.metrics.gone.total() == 1

    through(run, work)


def test_the_deadline_is_kept_whatever_the_solver_does(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("single"), "[hang] How far is 7?")
            status, told, _ = await post(session, url, asked, **{"x-fractionate-deadline-s": "1"})
            assert (status, told["error"]["type"], told["error"]["code"]) == (504, "timeout_error", "deadline_passed")
            status, told, _ = await post(
                session, url, body(run.pair("single"), "[503,always] 7"), **{"x-fractionate-deadline-s": "1"}
            )
            assert status == 503  # the next try would come too late, so it says what it knows
            assert gateway.admission.inside == 0
            for wrong in ("soon", "-1", "0.9", "nan", "inf"):
                status, told, _ = await post(
                    session, url, body(run.pair("single")), **{"x-fractionate-deadline-s": wrong}
                )
                assert status == 400

    through(run, work, deadline_s=2)


def test_failures_that_pass_are_tried_again(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            for stream in (False, True):
                asked = body(run.pair("single"), f"[503,reset,half] How far {stream}?", stream=stream)
                async with session.post(f"{url}/v1/chat/completions", json=asked) as reply:
                    assert reply.status == 200
                    assert await reply.text()
        assert gateway.metrics.retries.values[("solver", "503")] == 2
        assert gateway.metrics.retries.total() == 6

    through(run, work)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("500,always", 502, "solver_failed"),
        ("429,always", 503, "solver_busy"),
        ("401", 502, "solver_unusable"),
        ("quota", 502, "solver_unusable"),
        ("context", 400, "context_length_exceeded"),
        ("policy", 400, "content_filter"),
        ("400", 400, "solver_rejects"),
        ("429-day", 503, "solver_busy"),
    ],
)
def test_failures_that_stay_are_told_apart(run: Measured, fault: str, status: int, code: str) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            for stream in (False, True):
                asked = body(run.pair("single"), f"[{fault}] How far {stream}?", stream=stream)
                found, told, _ = await post(session, url, asked)
                assert (found, told["error"]["code"]) == (status, code)
                assert told["error"]["message"]

    through(run, work, deadline_s=20)


def test_an_end_in_the_middle_of_a_stream_is_an_event(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("single"), "[sse-cut] How far?", stream=True)
            async with session.post(f"{url}/v1/chat/completions", json=asked) as reply:
                events = [line for line in (await reply.text()).split("\n\n") if line]
        assert json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"]["content"]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "solver_failed"
        assert "[DONE]" not in events[-1]
        assert (
            run.server.asked["[sse-cut] How far?"] == 1
        )  # what was shown cannot be taken back, so nothing is tried again

    through(run, work)


def test_a_deadline_in_the_middle_of_a_stream_is_an_event(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("single"), "[slow] How far is 7?", stream=True)
            async with session.post(f"{url}/v1/chat/completions", json=asked) as reply:
                assert reply.status == 200
                *_, last = [line for line in (await reply.text()).split("\n\n") if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_passed"
        assert gateway.admission.inside == 0

    through(run, work, deadline_s=2)


@pytest.mark.parametrize("strategy", ["static", "stepwise", "dynamic"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_decomposer_that_fails_leaves_a_single_stage(run: Measured, strategy: str, stream: bool) -> None:
    # The server is the decomposer and echo: the solver, so that the decomposer's calls alone can fail.
    asked = body(run.pair(strategy, run.solver, "teacher"), "[401] How far is it to 7?", stream=stream)

    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=asked) as reply:
            assert reply.status == 200
            assert reply.headers["x-fractionate-degraded"] == "decomposer"
            text = await reply.text()
        facts = json.loads(text.split("\n\n")[-3].removeprefix("data: ") if stream else text)["fractionate"]
        assert facts["degraded"] is True
        assert (facts["measured"], facts["unlike"]) == (False, ["decomposer"])
        assert facts["answer"] == "7"
        assert gateway.metrics.degraded.total() == 1

    through(run, work)


def test_a_slow_decomposer_leaves_the_solver_half_the_time(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("static", run.solver, "teacher"), "[hang] How far is it to 7?")
            status, _, headers = await post(session, url, asked)
        assert (status, headers["x-fractionate-degraded"]) == (200, "decomposer")

    through(run, work, deadline_s=1.0)


def test_no_request_is_lost_where_a_tenth_of_the_calls_fail(run: Measured) -> None:
    """The short form of benchmarks/serve.py --hold-up: 64 clients, each request answered or refused."""
    run.server.fail_every = 10

    async def work(url: str, gateway: Gateway) -> None:
        statuses: list[int] = []

        async def client(number: int) -> None:
            for turn in range(4):
                # The solver fails every tenth request, so that a question of its own is worth asking.
                word = str(1000 * number + turn + 1)  # the run of these tests has numbers as answers
                status, told, _ = await post(session, url, body(run.pair("static", "teacher"), f"Say {word}?"))
                statuses.append(status)
                if status == 200:
                    assert told["fractionate"]["answer"] == word

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(client(number) for number in range(64)))
        assert len(statuses) == 256
        assert set(statuses) <= {200, 429, 502, 503}
        assert statuses.count(200) > 128
        assert gateway.metrics.retries.total() > 0
        assert gateway.admission.inside == gateway.admission.waiting == 0

    through(run, work, concurrency=32, queue=16)


def test_a_budget_is_never_passed_and_outlives_the_server(run: Measured) -> None:
    asked = body(run.pair("single"))
    one = 0.0

    async def price(url: str, gateway: Gateway) -> None:
        nonlocal one
        async with aiohttp.ClientSession() as session:
            _, told, _ = await post(session, url, asked)
        one = told["fractionate"]["usd"]["total"]

    through(run, price)
    cap = 0.001

    async def spend(url: str, gateway: Gateway) -> int:
        answered = 0
        async with aiohttp.ClientSession() as session:
            while True:
                replies = await asyncio.gather(*(post(session, url, asked) for _ in range(4)))
                assert gateway.ledger.spent(SERVER) <= cap + 1e-9
                answered += sum(status == 200 for status, _, _ in replies)
                refused = [told for status, told, _ in replies if status == 402]
                if len(refused) == 4:
                    assert "the budget of the server (--budget-usd 0.001) is used up" in refused[0]["error"]["message"]
                    return answered

    answered = through(run, spend, budget_usd=cap)
    assert answered * one == pytest.approx(cap, abs=0.0005)
    assert through(run, spend, budget_usd=cap) == 0


def test_each_key_has_a_budget_of_its_own(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("single"))
            while True:
                status, told, _ = await post(session, url, asked, Authorization="Bearer alpha")
                if status != 200:
                    break
            assert status == 402
            assert "this key" in told["error"]["message"]
            status, _, _ = await post(session, url, asked, Authorization="Bearer beta")
            assert status == 200
            # What is free is not counted.
            free = body("fractionate/single:none+teacher")
            assert (await post(session, url, free, Authorization="Bearer beta"))[0] == 200

    through(run, work, keys="alpha,beta", budget_usd_per_key=0.0005)


def test_what_a_cancelled_call_may_have_cost_is_spent(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            request = asyncio.ensure_future(post(session, url, body(run.pair("single"), "[slow] 7")))
            await until(lambda: run.server.holding == 1)
            held = gateway.ledger.spent(SERVER)
            assert held > 0
            request.cancel()
            await until(lambda: gateway.admission.inside == 0)
            assert gateway.ledger.spent(SERVER) == pytest.approx(held)

    through(run, work, budget_usd=1.0)


def test_keys_let_in_who_has_one(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            for given in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic alpha"},
                {"Authorization": "Bearer alph"},
            ):
                status, told, headers = await post(session, url, body("fractionate/best"), **given)
                assert (status, told["error"]["code"]) == (401, "invalid_api_key")
                assert headers["WWW-Authenticate"] == "Bearer"
                for path in ("/v1/models", "/v1/models/fractionate/best", "/metrics"):
                    async with session.get(url + path, headers=given) as reply:
                        assert reply.status == 401
            for key in ("alpha", "beta"):
                assert (await post(session, url, body("fractionate/best"), Authorization=f"Bearer {key}"))[0] == 200
            async with session.get(f"{url}/healthz") as reply:
                assert reply.status == 200

    through(run, work, keys="alpha, beta")


def test_pages_of_other_sites_cannot_ask_through_a_browser(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            status, told, _ = await post(session, url, body("fractionate/best"), Host="rebound.example")
            assert (status, told["error"]["code"]) == (403, "wrong_host")
            status, told, _ = await post(session, url, body("fractionate/best"), Origin="https://evil.example")
            assert (status, told["error"]["code"]) == (403, "wrong_origin")
            assert (await post(session, url, body("fractionate/best"), Origin=url))[0] == 200
            plain = {"Content-Type": "text/plain"}
            async with session.post(f"{url}/v1/chat/completions", data=b"{}", headers=plain) as reply:
                assert reply.status == 415

    through(run, work)


def test_bodies_and_contexts_are_bounded(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            status, told, _ = await post(session, url, body("fractionate/best", "why " * 60_000))
            assert (status, told["error"]["code"]) == (413, "body_too_large")
            status, told, _ = await post(session, url, body("fractionate/best", "why " * 2_000))
            assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
            assert "1,000" in told["error"]["message"]

    through(run, work, body_mb=0.1, max_context=1000)


def test_metrics_say_what_was_done(run: Measured) -> None:
    async def work(url: str, gateway: Gateway) -> str:
        async with aiohttp.ClientSession() as session:
            await post(session, url, body(run.pair("stepwise", "teacher")))
            await post(session, url, body("fractionate/nothing"))
            async with session.get(f"{url}/metrics") as reply:
                assert reply.headers["Content-Type"] == "text/plain; version=0.0.4"
                return await reply.text()

    lines = through(run, work).splitlines()
    assert f'fractionate_requests_total{{model="{run.pair("stepwise", "teacher")}",status="200"}} 1' in lines
    assert 'fractionate_calls_total{role="solver"} 3' in lines
    assert 'fractionate_refused_total{code="model_not_found"} 1' in lines
    assert "fractionate_request_seconds_count 1" in lines
    assert "fractionate_requests_in_flight 0" in lines


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_says_which_field_its_server_does_not_support(run: Measured, stream: bool) -> None:
    run.server.refused_fields = ("temperature",)

    async def work(url: str, gateway: Gateway) -> None:
        async with aiohttp.ClientSession() as session:
            asked = body(run.pair("single"), stream=stream)
            async with session.post(f"{url}/v1/chat/completions", json=asked) as reply:
                text = await reply.text()
            told = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]
            own = [one["fractionate"] for one in (told or [json.loads(text)]) if "fractionate" in one][-1]
            assert own["measured"] is False
            assert (own.get("deviations") or own.get("unlike")) == ["temperature"]

    through(run, work)
