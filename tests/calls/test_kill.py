"""kill -9 at any moment: used calls are stored, stored calls are never sent again, and results are equal.

Real child processes, a real server in a process of its own, random moments.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from helpers import ask

from fractionate.calls.call_locks import CallLocks
from fractionate.calls.drive import Call, run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.base import BatchModel
from fractionate.models.openai.api import OpenAIModel

KILLS = 20
QUESTIONS = 24
CONCURRENCY = 4


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).parents[1] / "servers" / "chat_server.py"), "--delay", "0.01"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    port = int(process.stdout.readline())
    yield f"http://127.0.0.1:{port}/v1"
    process.stdin.close()
    process.wait(10)


def work(path: str, url: str, prefix: str, results: str, used: str) -> None:
    """A child: two calls a program, each noted in `used` as soon as it is used; all values go to `results`."""
    note = os.open(used, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def program(model: OpenAIModel, number: int) -> Any:
        texts: list[str] = []
        for step in "ab":
            question = f"{prefix} {number}{step} {' '.join(texts)}"
            (reply,) = yield [Call(model, ask(question))]
            os.write(note, f"{question}\t{reply.text}\n".encode())
            texts.append(reply.text)
        return texts

    async def main() -> list[list[str]]:
        model = OpenAIModel(f"{url}#test")
        async with Engine(store, LimitsConfig(concurrency=CONCURRENCY)) as engine:
            values = await run_all((program(model, number) for number in range(QUESTIONS)), engine)
        await model.close()
        return values

    with Store(path) as store:
        values = asyncio.run(main())
    Path(results + ".part").write_text(json.dumps(values))
    os.replace(results + ".part", results)


def asked(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/count") as reply:
        counts: dict[str, int] = json.load(reply)["asked"]
        return counts


def stored(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with Store(path) as store:
        return {call.request.messages[-1].content: call.completion.text for call in store.calls()}


def test_kills_at_random_moments_lose_nothing_and_pay_nothing_twice(tmp_path: Path, url: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fractionate.calls.drive", "fractionate.models.openai.api", "aiohttp"])
    chance = random.Random(4)
    kills, rounds, finished = 0, 0, 0
    while kills < KILLS:
        rounds += 1
        path, results, used = tmp_path / f"{rounds}.sqlite", tmp_path / f"{rounds}.json", tmp_path / f"{rounds}.used"
        settled: dict[str, int] = {}  # question → times it had been sent when it was first found stored
        while not results.exists():
            child = context.Process(target=work, args=(str(path), url, f"round {rounds}", str(results), str(used)))
            child.start()
            deadline = time.monotonic() + chance.uniform(0.0, 0.4)
            while child.is_alive() and time.monotonic() < deadline:
                time.sleep(0.002)
            if child.is_alive() and kills < KILLS:
                os.kill(child.pid or 0, signal.SIGKILL)
                kills += 1
            child.join(60)
            rows, counts = stored(path), asked(url)
            lines = used.read_text().splitlines() if used.exists() else []
            for question, text in (line.split("\t") for line in lines):
                assert rows[question] == text, "a completion was used before it was stored"
            for question in rows:
                settled.setdefault(question, counts[question])
        finished += 1
        counts = asked(url)
        assert {question: counts[question] for question in settled} == settled, "something stored was sent again"
        assert len(settled) == 2 * QUESTIONS
        clean = tmp_path / "clean.json"
        clean.unlink(missing_ok=True)
        work(str(tmp_path / f"clean-{rounds}.sqlite"), url, f"round {rounds}", str(clean), str(tmp_path / "clean.used"))
        assert results.read_bytes() == clean.read_bytes(), "resumed results differ from an uninterrupted run's"
    assert finished == rounds


def test_two_processes_share_a_store(tmp_path: Path, url: str) -> None:
    """Both end with the same values, whoever stored a reply first, and neither is disturbed by the other's writes."""
    context = multiprocessing.get_context("forkserver")
    path = str(tmp_path / "shared.sqlite")
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    children = [
        context.Process(target=work, args=(path, url, "shared", str(out), str(out.with_suffix(".used"))))
        for out in outs
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    rows, counts = stored(Path(path)), asked(url)
    assert len(rows) == 2 * QUESTIONS
    assert {counts[question] for question in rows} == {1}, "what one process had in flight was sent by the other too"


def ask_one(path: str, url: str, question: str, result: str) -> None:
    """A child that makes one call and leaves what came back in a file."""

    async def main() -> str:
        model = OpenAIModel(f"{url}#test")
        async with Engine(store) as engine:
            completion = await engine.complete(model, ask(question))
        await model.close()
        return completion.text

    with Store(path) as store:
        Path(result).write_text(asyncio.run(main()))


def test_nobody_waits_for_a_call_of_a_killed_process(tmp_path: Path, url: str) -> None:
    """The server never answers the first; the second waits for it, and sends when the first is killed."""
    context = multiprocessing.get_context("forkserver")
    path, question = str(tmp_path / "shared.sqlite"), "[hang] how long?"
    results = [tmp_path / "first", tmp_path / "second"]
    children = [context.Process(target=ask_one, args=(path, url, question, str(result))) for result in results]
    children[0].start()
    while asked(url).get(question, 0) < 1:
        assert children[0].is_alive()
        time.sleep(0.01)
    children[1].start()
    children[1].join(1.5)
    assert children[1].is_alive()
    assert asked(url)[question] == 1
    os.kill(children[0].pid or 0, signal.SIGKILL)
    children[1].join(60)
    assert children[1].exitcode == 0
    assert asked(url)[question] == 2
    assert results[1].read_text() == stored(Path(path))[question]


def hold_budget(path: str, taken: str, scope: Literal["store", "run"]) -> None:
    """A child that has a budget and never ends."""
    with Store(path) as store:
        engine = Engine(store, budget=BudgetConfig(tokens=1000, scope=scope), run="mine")
        Path(taken).touch()
        time.sleep(600)
        engine.close()


@pytest.mark.parametrize("scope", ["store", "run"])
def test_a_budget_is_one_process_s_at_a_time(tmp_path: Path, scope: Literal["store", "run"]) -> None:
    path, taken, cap = str(tmp_path / "shared.sqlite"), tmp_path / "taken", BudgetConfig(tokens=1000, scope=scope)
    child = multiprocessing.get_context("forkserver").Process(target=hold_budget, args=(path, str(taken), scope))
    child.start()
    try:
        while not taken.exists():
            assert child.is_alive()
            time.sleep(0.01)
        with Store(path) as store:
            with pytest.raises(FractionateError, match=r"another process spends the budget of .*shared"):
                Engine(store, budget=cap, run="mine")
            if scope == "run":
                Engine(store, budget=cap, run="yours").close()
            else:
                with pytest.raises(FractionateError, match=r'the store .*shared.*budget\.scope = "run"'):
                    Engine(store, budget=cap, run="yours")
            child.kill()
            child.join(60)
            Engine(store, budget=cap, run="mine").close()
    finally:
        child.kill()
        child.join(60)


def hold_claim(path: str, key: str, taken: str) -> None:
    """A child that never ends a call that it has begun."""
    with Store(path) as store:
        locks = CallLocks(store, 60)
        assert locks.take(key)
        Path(taken).touch()
        time.sleep(600)
        locks.close()


def test_nobody_waits_for_ever_for_a_halted_process(tmp_path: Path) -> None:
    path, taken, key = str(tmp_path / "shared.sqlite"), tmp_path / "taken", "0123456789abcdef" * 4
    child = multiprocessing.get_context("forkserver").Process(target=hold_claim, args=(path, key, str(taken)))
    child.start()
    try:
        while not taken.exists():
            assert child.is_alive()
            time.sleep(0.01)
        with Store(path) as store:
            locks = CallLocks(store, 0.2)
            assert not locks.take(key)
            assert locks.take("f" * 64), "only that one call is claimed"
            assert asyncio.run(locks.elsewhere(key)) is None
            assert locks.take(key)
    finally:
        child.kill()
        child.join(60)


def work_slowly(path: str, url: str, local: bool, started: str, ended: str) -> None:
    """A child that Ctrl-C meets with calls in flight, or in the middle of a local batch that nobody can interrupt."""

    class Endless(BatchModel):
        name = identity = "local:endless"

        def plan(self, requests: Any) -> list[list[int]]:
            return [list(range(len(requests)))]

        def complete_batch(self, requests: Any) -> Any:
            Path(started).touch()
            time.sleep(600)

    def program(model: Any, number: int) -> Any:
        (reply,) = yield [Call(model, ask(f"ctrl-c {number}"))]
        Path(started).touch()
        return reply.text

    async def main() -> None:
        model: Any = Endless() if local else OpenAIModel(f"{url}#test")
        async with Engine(store, LimitsConfig(concurrency=2)) as engine:
            await run_all((program(model, number) for number in range(100_000)), engine, 100)

    with Store(path) as store:
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            Path(ended).write_text(str(len(store)))


@pytest.mark.parametrize("local", [False, True], ids=["server", "batch"])
def test_ctrl_c_ends_a_run_soon_and_keeps_what_was_completed(tmp_path: Path, url: str, local: bool) -> None:
    context = multiprocessing.get_context("forkserver")
    path, started, ended = (str(tmp_path / name) for name in ("calls.sqlite", "started", "ended"))
    child = context.Process(target=work_slowly, args=(path, url, local, started, ended))
    child.start()
    while not Path(started).exists():
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 0
    rows = len(stored(Path(path)))
    assert Path(ended).read_text() == str(rows)
    assert rows == 0 if local else 0 < rows < 100_000
