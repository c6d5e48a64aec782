"""Runs on a real Ray of this machine's cores, against a real server that counts its calls."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_runs import CONCURRENCY, Counting, config, cut, start, workers_of
from fractionate.api import Run
from fractionate.calls.budget import BudgetReached
from fractionate.calls.drive import Call
from fractionate.calls.stages import run_here
from fractionate.cli import main
from fractionate.cluster import shards, weights
from fractionate.cluster.shard_worker import BATCHES
from fractionate.config import load_config
from fractionate.run.event_loop import in_loop
from fractionate.types import Message, Request
from servers.threaded import in_thread
from tests_tiny import build_tiny_model

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
QUESTIONS = 60
BATCH = 2 * BATCHES * CONCURRENCY // 2
"""Calls that one of two workers may have committed and not shipped, or shipped and not merged."""
MINE = os.getpid()


@pytest.fixture(scope="module")
def _joined() -> Iterator[None]:
    """Ray, started once for all runs of this process."""
    from ray import cloudpickle

    from fractionate.cluster.connect import connect, disconnect

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file
    connect("ray")
    yield
    disconnect()


@pytest.fixture
def server() -> Iterator[Counting]:
    with in_thread(Counting(delay_s=0.05)) as counting:
        yield counting


def calls_of(store: Path) -> list[Any]:
    """Return a store's rows without what no two runs have alike."""
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(
            "SELECT key, model, identity, role, request, text, output_tokens, paid FROM calls ORDER BY key"
        ).fetchall()


def run_of(path: Path, name: str, on: str = "", **budget: Any) -> Run:
    settings = [f'run.store="{path.parent}/{name}.sqlite"', *(f"budget.{key}={value}" for key, value in budget.items())]
    return Run(load_config(path, settings), path.parent / name, base=path.parent, on=on)


@pytest.mark.usefixtures("_joined")
def test_a_cell_is_the_same_and_every_call_is_made_once(server: Counting, tmp_path: Path) -> None:
    path = config(tmp_path, server.base_url, QUESTIONS)
    with run_of(path, "plain") as plain:
        plain.run()
        counters = plain.engine.counters
    asked = dict(server.asked)
    server.asked.clear()
    server.peak = 0
    with run_of(path, "workers", "ray") as workers:
        workers.run()
        assert workers.engine.counters.sent == counters.sent
        assert workers.engine.counters.usage == counters.usage
        assert workers.engine.in_flight == 0
    assert dict(server.asked) == asked
    assert 1 < server.peak <= CONCURRENCY
    assert cut(tmp_path / "workers") == cut(tmp_path / "plain")
    assert not (tmp_path / "workers" / "workers").exists()
    assert calls_of(tmp_path / "workers.sqlite") == calls_of(tmp_path / "plain.sqlite")
    server.asked.clear()
    with run_of(path, "workers") as again:
        again.run()
    assert not server.asked


@pytest.mark.usefixtures("_joined")
def test_a_budget_holds_over_all_workers_and_a_higher_one_goes_on(server: Counting, tmp_path: Path) -> None:
    path = config(tmp_path, server.base_url, QUESTIONS)
    with run_of(path, "plain") as plain:
        plain.run()
        whole = plain.engine.budget.pricing
        assert whole is not None
        bill = sum(whole.usd(model, usage) or 0.0 for (model, _), usage in plain.engine.counters.usage.items())
    server.asked.clear()
    cap = bill / 2
    with run_of(path, "capped", "ray", usd=cap) as capped:
        with pytest.raises(BudgetReached, match=r"budget.usd is reached: \$0\.\d+ of \$0\.\d+ are spent"):
            capped.evaluate()
        spent = capped.engine.budget.total_usd()
    assert 0.5 * cap < spent <= cap
    assert 0 < len(server.asked) < 2 * QUESTIONS
    with run_of(path, "capped", "ray", usd=2 * bill) as more:
        more.evaluate()
        assert more.engine.budget.total_usd() == pytest.approx(bill)
    assert set(server.asked.values()) == {1}
    assert cut(tmp_path / "capped") == cut(tmp_path / "plain")


@pytest.mark.usefixtures("_joined")
@pytest.mark.parametrize(("how", "most"), [(signal.SIGKILL, 1), (signal.SIGSTOP, 1)])
def test_a_killed_or_stopped_worker_costs_only_what_was_in_flight(
    server: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals, most: int
) -> None:
    """Nobody but the run notices a process that is stopped: it ships nothing any more.

    Made again is what was in flight, and what it had committed since its last shipment.
    """
    monkeypatch.setattr(shards, "SILENT_S", 8.0)
    path = config(tmp_path, server.base_url, 4 * QUESTIONS)

    def disturb() -> None:
        while sum(server.asked.values()) < QUESTIONS:
            time.sleep(0.01)
        for worker in workers_of(os.getpid())[:most]:
            os.kill(worker, how)
            disturbed.append(worker)

    disturbed: list[int] = []
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    with run_of(path, "disturbed", "ray") as run:
        run.run()
    disturbing.join()
    assert len(disturbed) == most
    assert len(server.asked) == 2 * 4 * QUESTIONS
    assert sum(count - 1 for count in server.asked.values()) <= CONCURRENCY + BATCH
    with run_of(path, "plain") as plain:
        plain.run()
    assert cut(tmp_path / "disturbed") == cut(tmp_path / "plain")


def asking(sampler: Any, number: int, deadly: bool) -> Any:
    """A program that, where it is deadly, kills whatever process works for the run."""
    if deadly and os.getpid() != MINE:
        os.kill(os.getpid(), signal.SIGKILL)
    request = Request((Message("user", f"Question: What is {number}? {number}"),), "solver")
    (reply,) = yield [Call(sampler.model, request)]
    return reply.text or reply.error


@pytest.mark.usefixtures("_joined")
def test_a_question_that_kills_its_workers_fails_and_takes_no_other_along(server: Counting, tmp_path: Path) -> None:
    path = config(tmp_path, server.base_url, 1)
    with run_of(path, "deadly", "ray") as run:
        sampler = run.models.sampler(run.names.solvers[0])
        starts = [partial(asking, sampler, number, number == 5) for number in range(24)]

        async def all_of() -> list[str]:
            return [value async for value in run.workers.runner()(starts, run.engine)]

        values = in_loop(run, all_of)
    assert [value for number, value in enumerate(values) if number != 5] == [
        f"The answer is: {number}." for number in range(24) if number != 5
    ]
    assert values[5] == "3 workers died while they worked on this question"


@pytest.mark.usefixtures("_joined")
def test_local_weights_say_the_same_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "What is 1?", "answers": ["1"]}\n')
    path = tmp_path / "fractionate.toml"
    path.write_text(
        f'[data]\ntest = "jsonl:test.jsonl"\n[models]\nsolver = "local:{build_tiny_model(tmp_path / "tiny")}"\n'
        'decomposers = ["none", "solver"]\n[run]\nvariants = []\nstrategies = ["single", "static"]\n'
    )
    with run_of(path, "plain") as plain:
        plain.run()
    with run_of(path, "placed", "ray") as spread:
        spread.run()
        assert spread.workers.runner() is not run_here
        assert spread.engine.counters.sent > 0
    assert cut(tmp_path / "placed") == cut(tmp_path / "plain")


class Slow:
    """Stands where a process with weights does."""

    def complete(self, seconds: float) -> list[Any]:
        time.sleep(seconds)
        return []

    def ping(self) -> int:
        return os.getpid()


@pytest.mark.usefixtures("_joined")
def test_a_process_with_weights_may_take_its_time_but_is_given_up_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    from ray.exceptions import RayActorError

    actor = ray.remote(Slow).options(num_cpus=0, max_concurrency=2).remote()
    pid = ray.get(actor.ping.remote())
    monkeypatch.setattr(weights, "PING_S", 0.2)
    assert weights._await_batch(actor, actor.complete.remote(1.0)) == []
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(weights, "SILENT_S", 1.0)
    with pytest.raises(RayActorError):
        weights._await_batch(actor, actor.complete.remote(0.0))


def goes_on(path: Path) -> None:
    """Let the run that ended go on in this process, without Ray."""
    kept = ["--out", str(path.parent / "run"), "--store", str(path.parent / "s.sqlite")]
    assert main(["run", str(path), *kept, "--quiet"]) == 0


def test_ctrl_c_keeps_what_came_back_and_a_run_without_ray_goes_on(server: Counting, tmp_path: Path) -> None:
    server.delay_s = 0.3
    path = config(tmp_path, server.base_url, QUESTIONS)
    run = start(path, tmp_path / "run", tmp_path / "s.sqlite", "ray")
    while not server.asked:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1, said
    assert "interrupted: what was completed is kept" in said
    assert "Traceback" not in said
    asked = sum(server.asked.values())
    goes_on(path)
    assert set(server.asked.values()) == {1}
    assert sum(server.asked.values()) == 2 * QUESTIONS > asked


def test_a_killed_run_goes_on_from_what_its_workers_had_stored(server: Counting, tmp_path: Path) -> None:
    path = config(tmp_path, server.base_url, 4 * QUESTIONS)
    run = start(path, tmp_path / "run", tmp_path / "s.sqlite", "ray")
    while sum(server.asked.values()) < QUESTIONS:
        time.sleep(0.01)
    run.kill()
    run.communicate(timeout=60)
    goes_on(path)
    assert len(server.asked) == 2 * 4 * QUESTIONS
    assert sum(count - 1 for count in server.asked.values()) <= CONCURRENCY + 2 * BATCH


def test_places_that_there_are_not(server: Counting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, server.base_url, 1)
    assert main(["run", str(path), "--on", "slurm"]) == 2
    assert "a run goes on ray, or ray://HEAD[:PORT]" in capsys.readouterr().err
    assert main(["run", str(path), "--on", "ray://"]) == 2
    there = start(path, tmp_path / "out", tmp_path / "s.sqlite", "ray://127.0.0.1:1", "--quiet")
    said, _ = there.communicate(timeout=60)
    assert there.returncode == 1
    assert len(said.splitlines()) == 1
    assert "no head answers at 127.0.0.1:1" in said
    assert not server.asked
