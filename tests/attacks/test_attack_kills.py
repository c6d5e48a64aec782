"""However a run or its store ends, at most the calls in flight are lost.

Real child processes against a real server in a process of its own; losses are counted where they are paid: there.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_size import TIMES
from helpers import ask

from fractionate.calls.drive import Call, run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import BudgetConfig, LimitsConfig
from fractionate.errors import FractionateError
from fractionate.models.openai.api import OpenAIModel

CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).parents[1] / "servers" / "chat_server.py"), "--delay", "0.02"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    process.stdin.close()
    process.wait(10)


class FreePricing:
    """Everything costs nothing, so that a budget is on and never reached."""

    def usd(self, model_name: str, usage: Any) -> float | None:
        return 0.0


def work(
    path: str,
    url: str,
    prefix: str,
    calls: int,
    concurrency: int,
    said: str,
    file_kb: int = 0,
    budget: bool = False,
    letters: int = 2000,
) -> None:
    """A child that asks `calls` questions and leaves what ended it in `said`; its files may be `file_kb` at most."""
    if file_kb:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_kb << 10, file_kb << 10))

    def program(model: OpenAIModel, number: int) -> Any:
        (reply,) = yield [Call(model, ask(f"{prefix} {number} " + "x" * letters))]
        return reply.text

    async def main() -> None:
        models = [OpenAIModel(f"{url}#one"), OpenAIModel(f"{url}#two")]
        limits = LimitsConfig(concurrency=concurrency)
        caps = BudgetConfig(usd=1.0) if budget else None
        async with Engine(store, limits, caps, FreePricing(), run="r") as engine:
            await run_all((program(models[number % 2], number) for number in range(calls)), engine)
        for model in models:
            await model.close()

    ended = "done"
    try:
        with Store(path) as store:
            asyncio.run(main())
    except FractionateError as error:
        ended = str(error)
    Path(said).write_text(ended)


def asked(url: str, prefix: str) -> int:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/count") as reply:
        counts: dict[str, int] = json.load(reply)["asked"]
    return sum(times for question, times in counts.items() if question.startswith(prefix + " "))


def settled(url: str, prefix: str) -> int:
    """Return how many questions were asked, once no more come: a second's silence of what sends 400 in that time."""
    deadline, count = time.monotonic() + 60, -1
    while count != (now := asked(url, prefix)):
        assert time.monotonic() < deadline, "it goes on sending"
        count = now
        time.sleep(1.0)
    return count


def stored(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def start(target: Callable[..., None], *arguments: Any) -> Any:
    CONTEXT.set_forkserver_preload(["fractionate.calls.drive", "fractionate.models.openai.api", "aiohttp"])
    child = CONTEXT.Process(target=target, args=arguments)
    child.start()
    return child


def wait_until(true: Callable[[], bool], child: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert child.is_alive(), "the child ended before its time"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_a_kill_loses_no_more_than_may_be_in_flight(tmp_path: Path, url: str, concurrency: int) -> None:
    """Two models at once, so that the bound is the run's and not each model's."""
    chance = random.Random(concurrency)
    lost_before = 0
    path, said = tmp_path / "calls.sqlite", str(tmp_path / "said")
    prefix = f"kill {concurrency}"
    for number in range(2 * TIMES):
        child = start(work, str(path), url, prefix, 10**6, concurrency, said, 0, number % 2 == 1)
        begun = asked(url, prefix)
        wait_until(lambda begun=begun: asked(url, prefix) > begun + concurrency, child)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        time.sleep(0.05)  # what was on its way has reached the server
        lost = asked(url, prefix) - stored(path)
        assert lost - lost_before <= concurrency
        lost_before = lost


def test_a_locked_store_holds_sending_up_and_loses_nothing(tmp_path: Path, url: str) -> None:
    path, said = tmp_path / "calls.sqlite", tmp_path / "said"
    Store(path).close()
    child = start(work, str(path), url, "locked", 400, 8, str(said))
    wait_until(lambda: stored(path) > 20, child)
    locker = sqlite3.connect(path, isolation_level=None, timeout=10)
    locker.execute("BEGIN IMMEDIATE")
    before = settled(url, "locked")
    assert before - stored(path) <= 8
    locker.execute("ROLLBACK")
    locker.close()
    child.join(60)
    assert said.read_text() == "done"
    assert asked(url, "locked") == stored(path) == 400


def test_a_kill_while_the_store_is_locked_loses_no_more(tmp_path: Path, url: str) -> None:
    path, said = tmp_path / "calls.sqlite", tmp_path / "said"
    Store(path).close()
    child = start(work, str(path), url, "locked kill", 10**6, 8, str(said))
    wait_until(lambda: stored(path) > 20, child)
    locker = sqlite3.connect(path, isolation_level=None, timeout=10)
    locker.execute("BEGIN IMMEDIATE")
    settled(url, "locked kill")
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    locker.close()
    assert asked(url, "locked kill") - stored(path) <= 8


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_a_disk_that_fills_up_costs_no_more_and_reruns_on_it_pay_nothing(
    tmp_path: Path, url: str, concurrency: int
) -> None:
    """A limit on the size of files stands for the disk: unlike a quota or a small disk, every user may set one."""
    path, said = tmp_path / "calls.sqlite", tmp_path / "said"
    prefix, room, calls = f"disk {concurrency}", 1000 + 16 * concurrency, 200
    losses = []
    for _ in range(4):
        before = asked(url, prefix) - (stored(path) if path.exists() else 0)
        child = start(work, str(path), url, prefix, calls, concurrency, str(said), room, False, 20_000)
        child.join(60)
        assert "disk" in said.read_text()
        assert "\n" not in said.read_text()
        losses.append(asked(url, prefix) - stored(path) - before)
    assert max(losses) <= concurrency
    assert losses[1:] == [0, 0, 0], "a store that has no room left is seen before anything is sent"
    child = start(work, str(path), url, prefix, calls, concurrency, str(said), 0, False, 20_000)
    child.join(60)
    assert said.read_text() == "done"
    assert asked(url, prefix) == calls + sum(losses)


@pytest.mark.parametrize("what", ["store", "folder", "moved", "replaced"])
def test_a_store_that_goes_away_stops_the_run(tmp_path: Path, url: str, what: str) -> None:
    folder = tmp_path / "run"
    path, said, prefix = folder / "calls.sqlite", tmp_path / "said", f"gone {what}"
    child = start(work, str(path), url, prefix, 10**6, 8, str(said))
    wait_until(lambda: path.exists() and stored(path) > 20, child)
    os.kill(child.pid, signal.SIGSTOP)  # so that it goes away at one moment, however busy this machine is
    before = settled(url, prefix)
    if what == "store":
        path.unlink()
    elif what == "folder":
        shutil.rmtree(folder)
    elif what == "moved":
        folder.rename(tmp_path / "elsewhere")
    else:
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").rename(path)
    os.kill(child.pid, signal.SIGCONT)
    child.join(60)
    assert "was deleted, moved or replaced" in said.read_text() or "cannot be" in said.read_text()
    assert "\n" not in said.read_text()
    assert asked(url, prefix) - before <= 8, "what was on its way, and no more"


def test_two_runs_that_reach_a_store_by_two_names_pay_each_call_once(tmp_path: Path, url: str) -> None:
    """Without a budget both go on and share every call; with one, the second is refused and sends nothing."""
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "calls.sqlite", tmp_path / "link.sqlite"
    link.symlink_to(path)
    said = [tmp_path / "first", tmp_path / "second"]
    runs = [
        start(work, str(name), url, "linked", 120, 8, str(out)) for name, out in zip((path, link), said, strict=True)
    ]
    for run in runs:
        run.join(60)
    assert [out.read_text() for out in said] == ["done", "done"]
    assert asked(url, "linked") == stored(path) == 120

    spender = start(work, str(path), url, "spent", 10**6, 8, str(said[0]), 0, True)
    wait_until(lambda: asked(url, "spent") > 0, spender)
    os.kill(spender.pid, signal.SIGSTOP)
    second = start(work, str(link), url, "second spent", 100, 8, str(said[1]), 0, True)
    second.join(60)
    os.kill(spender.pid, signal.SIGKILL)
    spender.join(60)
    assert "another process spends the budget" in said[1].read_text()
    assert asked(url, "second spent") == 0
