"""A run's bill never passes the forecast's "at most", for any config and any server reply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fractionate.config import parse_config
from fractionate.run.forecast import forecast_run
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import demonstrate_stage, evaluate_stage
from servers.chat_server import ChatServer
from servers.threaded import in_thread

INPUT_USD, OUTPUT_USD = 1e-6, 4e-6
PRICES = {"input_per_million": 1.0, "output_per_million": 4.0}


class Dearest(ChatServer):
    """Replies with all that `max_tokens` allows, in the forms that later prompts grow most by, and keeps the bill.

    A token of a reply has 8 bytes here, and every byte of a prompt is a token.
    """

    billed = 0.0

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        tokens = body["max_tokens"]
        inputs = sum(len(message["content"].encode()) + 24 for message in body["messages"])
        self.billed += INPUT_USD * inputs + OUTPUT_USD * tokens
        message = {"role": "assistant", "content": text(tokens, json.dumps(body["messages"]))}
        usage = {"prompt_tokens": inputs, "completion_tokens": tokens, "total_tokens": inputs + tokens}
        return web.json_response(
            {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        )


def text(tokens: int, asked: str) -> str:
    """Return a reply of `tokens` × 8 bytes; which form it has, the prompt decides."""
    digest = hashlib.sha256(asked.encode()).hexdigest()
    room, form = 8 * tokens, int(digest, 16) % 6
    if form == 0:
        start = f"Follow up: {digest[:8]}"
    elif form == 1:
        start = "\n".join(f"{number}. {digest[:2]}{' #1' * 9}?" for number in range(1, 60)) + "\n60. "
    elif form == 2:
        start = "\n".join(f"{number}. a{number}?" for number in range(1, 100)) + "\n100. "
    elif form == 3:
        start = "No decomposition "
    else:
        start = f"1. {digest[:8]} "
    start = start[: room // 2]
    return f"{start}{'word ' * room}"[: room - 1] + "?"


@pytest.fixture(scope="module")
def dearest() -> Iterator[Dearest]:
    with in_thread(Dearest()) as server:
        yield server


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    strategies=st.lists(
        st.sampled_from(["single", "single-cot", "self-consistency", "static", "stepwise", "dynamic"]),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    cap=st.sampled_from(["default", "none", 1, 2, 7, 50]),
    max_tokens=st.sampled_from([0, 8, 30, 64]),
    counts=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    variants=st.sampled_from([[], ["D-T"], ["D-R"], ["E-A"]]),
    context=st.sampled_from(["", "A passage of some length. " * 9]),
)
def test_the_bill_never_passes_the_forecast(
    tmp_path_factory: pytest.TempPathFactory,
    dearest: Dearest,
    strategies: list[str],
    cap: object,
    max_tokens: int,
    counts: tuple[int, int, int],
    variants: list[str],
    context: str,
) -> None:
    folder = tmp_path_factory.mktemp("bound")
    repeats, votes, samples = counts
    for name in ("train", "test"):
        rows = [{"question": f"{name}: what is {n}?", "answer": f"it {n}", "context": context} for n in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"temperature": 1.0, "max_tokens": max_tokens}
    table = {
        "data": {"train": "jsonl:train.jsonl", "test": "jsonl:test.jsonl"},
        "models": {"teacher": dearest.name, "options": {dearest.name: options}},
        "run": {
            "variants": variants, "strategies": strategies, "pairs": [("none", "teacher"), ("teacher", "teacher")],
            "cap": cap, "repeats": repeats, "votes": votes, "samples": samples,
        },
        "prices": {dearest.name: PRICES},
    }  # fmt: skip
    before = dearest.billed
    with Run(parse_config(table), folder / "run", folder, Progress(quiet=True)) as run:
        most = forecast_run(run).most_usd
        if variants:
            demonstrate_stage(run)
        evaluate_stage(run)
    assert most is not None
    assert 0 < dearest.billed - before <= most * (1 + 1e-9)
