"""Runs on a real Ray: a counting server, a config, a run's files without timings, and processes to kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from servers.solver_server import SolverServer

CONCURRENCY = 16
TIMINGS = ("compute_s", "latency_s")
CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
solver = "{url}#test"
decomposers = ["none", "solver"]
[run]
variants = []
strategies = ["single", "static"]
[limits]
concurrency = {concurrency}
[prices."{url}#test"]
input_per_million = 1.0
output_per_million = 2.0
[cluster]
workers = 2
"""


class Counting(SolverServer):
    """Counts whole prompts, each of which a run asks once, when they are answered: what was paid for."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.active -= 1
        question = json.dumps(body["messages"])
        self.asked[question] += 1
        bare = body["messages"][-1]["content"].rpartition("Question: ")[2]
        return web.json_response(self.answered_by(body, bare))


def config(folder: Path, url: str, questions: int, more: str = "") -> Path:
    """Write a config and its questions, whose last words are their answers."""
    rows = [
        {"id": f"q{n}", "question": f"How many apples has Ada after she was given {n}? {n}", "answers": [str(n)]}
        for n in range(questions)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "fractionate.toml"
    path.write_text(CONFIG.format(url=url, concurrency=CONCURRENCY) + more)
    return path


def cut(run: Path) -> list[dict[str, Any]]:
    """Return a run's attempts without what no two runs have alike."""
    return [_without_timings(json.loads(line)) for line in (run / "attempts.jsonl").read_text().splitlines()]


def start(path: Path, out: Path, store: Path, on: str = "", *more: str) -> subprocess.Popen[str]:
    """Start `fractionate run`."""
    command = [sys.executable, "-m", "fractionate", "run", str(path), "--out", str(out), "--store", str(store)]
    command += [*(["--on", on] if on else []), *more]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", **({"RAY_AUTH_MODE": "disabled"} if "//" in on else {})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def workers_of(pid: int) -> list[int]:
    """Return the processes that work through shards of a run which has a Ray of its own."""
    return [child for child, command in _below(pid) if "ray::ShardWorker" in command]


class Head:
    """A Ray cluster of two machines that are both this computer; `place` is what `--on` takes."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.place = f"ray://127.0.0.1:{self.port}"
        self._nodes = [self._begin("--head", f"--port={self.port}", "--include-dashboard=false")]
        self._await_raylet(self._nodes[0])
        self._nodes.append(self._begin(f"--address=127.0.0.1:{self.port}"))
        self._await_raylet(self._nodes[1])

    def kill_second(self) -> None:
        """Kill the second machine: everything that runs on it."""
        for pid, _ in _below(self._nodes[1].pid)[::-1]:
            _kill(pid)
        self._nodes[1].kill()

    def end(self) -> None:
        for node in self._nodes[::-1]:
            below = _below(node.pid)
            node.terminate()
            try:
                node.wait(10)
            except subprocess.TimeoutExpired:
                node.kill()
            for pid, _ in below:
                _kill(pid)

    def _await_raylet(self, node: subprocess.Popen[bytes]) -> None:
        """Wait until a machine's scheduler runs, and has had the time to say so to the head."""
        while not any("/raylet" in command.split()[0] for _, command in _below(node.pid) if command.split()):
            assert node.poll() is None, "ray start ended"
            time.sleep(0.1)
        time.sleep(3.0)

    def _begin(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", *options]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


@contextmanager
def two_machines() -> Iterator[Head]:
    """A cluster of two machines while the block runs."""
    head = Head()
    try:
        yield head
    finally:
        head.end()


def _below(pid: int) -> list[tuple[int, str]]:
    """Return the processes below one, with their commands, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        for child in parents.get(waiting.pop(0), []):
            waiting.append(child)
            try:
                command = (Path("/proc") / str(child) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            found.append((child, command))
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_timings(each) for name, each in value.items() if name not in TIMINGS}
    return value
