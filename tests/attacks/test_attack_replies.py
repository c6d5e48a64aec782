"""Replies that break off, errors that mention fields, usage that cannot be: the bill stays within the cap.

The server bills every call that it began to answer, by its own count, as a provider does.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers import ask, asking

from fractionate.analysis.pricing import Pricing
from fractionate.calls.drive import run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.cli import main
from fractionate.config import BudgetConfig, LimitsConfig, ModelOptions, PriceConfig
from fractionate.errors import FractionateError
from fractionate.models.faults import Fault
from fractionate.models.openai.api import OpenAIModel
from fractionate.serve.errors import Refusal
from fractionate.serve.ledger import Ledger
from fractionate.serve.metrics import Metrics
from fractionate.serve.upstream import Upstream
from fractionate.types import Completion, Usage
from servers.chat_server import ChatServer
from servers.solver_server import SolverServer
from servers.threaded import in_thread

PRICES = PriceConfig(input_per_million=10.0, output_per_million=100.0)
ENDINGS = ("error event", "usage, then error", "half an event", "cut", "error in a 200", "500", "502")
WORDS = 12


class Breaking(ChatServer):
    """A server that writes some words of each reply, bills them, and then breaks off in one of the `ENDINGS`."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending = ending
        self.billed = 0.0

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        # The prompt is billed at one token per four bytes.
        self.billed += 1e-5 * len(question) / 4 + 1e-4 * WORDS
        error = {"error": {"message": "the model crashed", "type": "server_error", "code": 500}}
        if self.ending in ("500", "502"):
            return web.json_response(error, status=int(self.ending))
        if self.ending == "error in a 200":
            return web.json_response(error)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(WORDS):
            chunk = {"choices": [{"index": 0, "delta": {"content": "word "}}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if self.ending == "usage, then error":
            usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": WORDS}}
            await response.write(f"data: {json.dumps(usage)}\n\n".encode())
        if self.ending == "half an event":
            await response.write(b'data: {"choices": [{"index": 0, "del')
        elif self.ending == "cut":
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(f"data: {json.dumps(error)}\n\n".encode())
        return response


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_whose_replies_all_break_off_stays_within_its_cap(store: Store, ending: str) -> None:
    cap = 0.05

    async def work() -> float:
        async with Breaking(ending) as server:
            model = OpenAIModel(server.name, ModelOptions(extra_body={"stream": True}))
            limits, pricing = LimitsConfig(concurrency=16, attempts=2), Pricing({server.name: PRICES})
            async with Engine(store, limits, BudgetConfig(usd=cap), pricing, run="r", backoff_s=0.001) as engine:
                asked = run_all((asking(model, f"question {number}") for number in range(400)), engine)
                with pytest.raises(FractionateError):
                    await asked
            await model.close()
            booked = engine.budget.total_usd()
            assert server.billed <= booked <= cap
            return server.billed

    assert asyncio.run(work()) > 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_served_pair_whose_streams_all_break_off_stays_within_its_budget(tmp_path: Path, ending: str) -> None:
    cap = 0.05

    async def work() -> tuple[float, int]:
        async with Breaking(ending) as server:
            model, pricing = OpenAIModel(server.name), Pricing({server.name: PRICES})
            ledger = Ledger(tmp_path / "book.sqlite", pricing, cap, None)
            upstream = Upstream(LimitsConfig(attempts=1), pricing, ledger, Metrics())
            refused = 0
            for number in range(60):
                until = asyncio.get_running_loop().time() + 20
                try:
                    request = ask(f"question {number}")
                    await upstream.call(model, request, model.name, "key", until, on_text=lambda text: None)
                except Fault:
                    continue
                except Refusal as refusal:
                    refused += refusal.status == 402
            assert server.billed <= ledger.spent() <= cap
            ledger.close()
            await model.close()
            return server.billed, refused

    billed, refused = asyncio.run(work())
    assert billed > 0
    assert refused > 0


class Choosy(ChatServer):
    """A server that answers with the error that a question quotes after "400:", to every body that `wants` refuses."""

    def __init__(self, unsupported: str = "") -> None:
        super().__init__()
        self.unsupported = unsupported

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        if question.startswith("400:") and (not self.unsupported or self.unsupported in body):
            return web.json_response(json.loads(question.removeprefix("400:")), status=400)
        return await super().reply(request, body, question)


def quoting(message: str, **fields: str) -> str:
    return "400:" + json.dumps({"error": {"message": message, **fields}})


async def asked_of(server: ChatServer, *questions: str) -> tuple[list[Completion | Fault], OpenAIModel]:
    """Ask one question after another; return what came of each."""
    outcomes: list[Completion | Fault] = []
    async with server:
        model = OpenAIModel(server.name)
        for question in questions:
            try:
                outcomes.append(await model.complete(ask(question, stop=("\n",))))
            except Fault as fault:
                outcomes.append(fault)
        await model.close()
    return outcomes, model


@pytest.mark.parametrize(
    "error",
    [
        quoting("Your prompt mentions temperature, which is not allowed here"),
        quoting(
            "max_tokens is too large: 300000. This model supports at most 4096 completion tokens", param="max_tokens"
        ),
        quoting("The response was filtered: 'what is the temperature and the stop?'", code="content_filter"),
        quoting("temperature must be between 0 and 2", param="temperature"),
        quoting("'messages' is not supported: see max_completion_tokens, temperature, stop"),
        quoting("Unsupported parameter: 'stop'", code="unsupported_parameter", param="messages[0].name"),
    ],
)
def test_a_rejection_that_mentions_a_field_leaves_it_in(error: str) -> None:
    outcomes, model = asyncio.run(asked_of(server := Choosy(), error, "fine"))
    assert isinstance(outcomes[0], Fault)
    assert isinstance(outcomes[1], Completion)
    assert {"temperature", "stop", "max_tokens"} <= set(server.bodies[-1])
    assert model.left_out == frozenset()
    assert len(server.bodies) == 2, "nothing is sent again"


def test_a_field_is_left_out_from_then_on_only_where_the_resend_succeeds() -> None:
    error = quoting("Unsupported parameter: 'temperature'", code="unsupported_parameter", param="temperature")
    _, model = asyncio.run(asked_of(failing := Choosy(), error, "fine"))
    assert ["temperature" in body for body in failing.bodies] == [True, False, True]
    assert model.left_out == frozenset()
    outcomes, model = asyncio.run(asked_of(server := Choosy("temperature"), error, "fine"))
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert ["temperature" in body for body in server.bodies] == [True, False, False]
    assert model.left_out == {"temperature"}


@pytest.mark.parametrize(
    "error",
    [
        quoting("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        quoting("Unknown parameter: 'max_tokens'", code="unsupported_parameter", param="max_tokens"),
        quoting("Unknown parameter: 'max_tokens'", code="unknown_parameter", param="max_tokens"),
        quoting("max_tokens is not supported"),
    ],
)
def test_a_request_never_leaves_without_a_bound_on_its_output(error: str) -> None:
    for server in (Choosy(), Choosy("max_tokens")):
        asyncio.run(asked_of(server, error, "fine"))
        assert all({"max_tokens", "max_completion_tokens"} & set(body) for body in server.bodies)


class Counting(ChatServer):
    """A server that reports the usage given to it for a reply of one kilobyte."""

    def __init__(self, usage: str) -> None:
        super().__init__()
        self.usage = usage

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        text = "There is a river that runs through the town. " * 23
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice], "usage": "?"}).replace('"?"', self.usage)
        return web.Response(text=data, content_type="application/json")


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    "usage",
    [
        '{"prompt_tokens": 500, "completion_tokens": 1, "total_tokens": 501}',
        '{"prompt_tokens": 500, "completion_tokens": -7}',
        f'{{"prompt_tokens": 500, "completion_tokens": {HUGE}}}',
        f'{{"prompt_tokens": {HUGE}, "completion_tokens": 250}}',
        '{"prompt_tokens": 1, "completion_tokens": 250}',
        '{"prompt_tokens": 500, "completion_tokens": 1e400}',
        '{"prompt_tokens": -1, "completion_tokens": 250}',
        "null",
    ],
)
def test_usage_that_cannot_be_is_counted_from_the_text_and_flagged(usage: str) -> None:
    question = "Where does the river run that people have told so many stories about? " * 28
    (outcome,), _ = asyncio.run(asked_of(Counting(usage), question))
    assert isinstance(outcome, Completion)
    assert outcome.usage.counted == 1
    assert 400 <= outcome.usage.input_tokens <= 600
    assert 200 <= outcome.usage.output_tokens <= 300


def test_usage_of_blanks_and_dashes_is_believed() -> None:
    """Vocabularies have tokens of a hundred blanks or dashes: few tokens are no proof of a lie there."""
    told = Counter(prompt_tokens=30, completion_tokens=11)

    class Dashes(ChatServer):
        async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
            choice = {"index": 0, "message": {"content": ("-" * 90 + "\n") * 10}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": told})

    (outcome,), _ = asyncio.run(asked_of(Dashes(), "Draw ten lines."))
    assert isinstance(outcome, Completion)
    assert outcome.usage == Usage(1, 30, 0, 11)


def test_a_run_without_a_field_that_its_server_rejects_says_so(tmp_path: Path) -> None:
    server = SolverServer()
    server.refused_fields = ("temperature",)
    with in_thread(server):
        (tmp_path / "test.jsonl").write_text('{"question": "How far is it to 7?", "answer": "7"}\n')
        (tmp_path / "run.toml").write_text(
            f'[data]\ntest = ["jsonl:test.jsonl"]\n[models]\nteacher = "{server.name}"\nsolvers = ["teacher"]\n'
            'decomposers = ["none"]\n[run]\nstrategies = ["single"]\nvariants = []\n'
        )
        assert main(["run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    notes = json.loads((tmp_path / "run" / "results.json").read_text())["notes"]
    assert f"{server.name} does not support temperature: its requests were sent without that field." in notes
