"""Latency and load of the gateway over a solver, compared with other proxies in one run.

    python benchmarks/serve.py [--seconds 4] [--rounds 3] [--alone] [--json OUT.json]      (make bench-serve)
    python benchmarks/serve.py --hold-up 60                                       64 clients, a tenth of the calls fail

The solver is benchmarks/server.py, a process of its own that answers at once. The gateway serves a run that was really
made over it, an `echo:` decomposer under the strategy static: two steps and one solver call per request. LiteLLM's
proxy and optillm (approach "none": it forwards requests unchanged) pass one call on; each runs in its own environment
under runs/bench-envs, created at the first call, and is left out with a line if it cannot be installed or started.

added ms: the median latency of one client that sends its next request at once, minus that of the solver asked directly
in the same round.
added p99 ms: the same for the 99th percentile over 16 clients.
requests/core-s: requests answered to 32 clients, divided by the processor seconds of the proxy's process and its
children: its rate with a core of its own. Wall time is not used.
Rows take turns within a round, and figures are medians over rounds. A row that exceeds its time by a minute
is left out with a line. On a machine with other load, scheduling dominates any latency: run it with
`nice -n -15`, or alone. Quote the ratios: absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "runs" / "bench-envs"
# LiteLLM 1.82.7 and 1.82.8 were malicious releases: no version between 1.82 and 1.83 is ever installed. torch is named
# first and pinned, as in the Makefile: left to a dependency it may bring gigabytes of GPU libraries.
PEERS = {
    "LiteLLM proxy": ("litellm", [["litellm[proxy]>=1.83,<2"]]),
    "optillm": ("optillm", [["torch==2.13.0"], ["optillm>=0.4,<0.5"]]),
}
CLIENTS = 32
LATENCY_CLIENTS = 16
START_S = 120.0
LATE_S = 60.0
"""Seconds of overtime after which a row is left out."""
QUESTION = "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all?"
CONFIG = """
[data]
test = ["jsonl:test.jsonl"]
[models]
teacher = "echo:"
solvers = ["{url}#bench"]
decomposers = ["none", "teacher"]
[run]
strategies = ["single", "static"]
variants = []
[limits]
concurrency = 4096
"""


@dataclass(frozen=True)
class Target:
    """A measured endpoint: its URL, its model name, and the processes whose time counts."""

    name: str
    port: int
    model: str
    pid: int


@dataclass(frozen=True)
class Row:
    """One round of a target: milliseconds of one client (median) and of several (p99), and its rate."""

    median_ms: float
    p99_ms: float
    per_core_s: float


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> int:
    """Send one request on an open connection and read its reply. Returns the status."""
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    length = re.search(rb"content-length: *(\d+)", lowered)
    if length:
        await reader.readexactly(int(length[1]))
    else:
        while size := int((await reader.readline()).strip() or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head[9:12])


def request(target: Target, question: str = QUESTION) -> bytes:
    body = json.dumps({"model": target.model, "messages": [{"role": "user", "content": question}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer none\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def one_client(target: Target, seconds: float) -> list[float]:
    """Return the seconds of each request of one client that sends without a pause."""
    data = request(target)
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    took = []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        assert await ask(reader, writer, data) == 200
        took.append(time.perf_counter() - now)
    writer.close()
    return took


async def p99_s(target: Target, seconds: float) -> float:
    """Return the 99th percentile of the seconds of requests by LATENCY_CLIENTS at once."""
    took = [one for each in await asyncio.gather(*(one_client(target, seconds) for _ in range(LATENCY_CLIENTS)))
            for one in each]  # fmt: skip
    return sorted(took)[math.ceil(0.99 * len(took)) - 1]


async def row(target: Target, seconds: float) -> Row:
    """Measure a target once. Raises TimeoutError, AssertionError or OSError if it does not answer."""
    async with asyncio.timeout(3 * seconds + LATE_S):
        await one_client(target, 0.3)  # warm
        median_s = statistics.median(await one_client(target, seconds))
        worst_s = await p99_s(target, seconds)
        answered, used = await many_clients(target, seconds)
    return Row(1000 * median_s, 1000 * worst_s, answered / max(used, 1e-9))


async def many_clients(target: Target, seconds: float) -> tuple[int, float]:
    """Return (requests answered, processor seconds of the target) with CLIENTS that send without a pause."""
    data = request(target)
    answered = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while time.perf_counter() < end:
            status = await ask(reader, writer, data)
            answered += status == 200
        writer.close()

    before = processor_s(target.pid)
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answered, processor_s(target.pid) - before


def processor_s(pid: int) -> float:
    """Return the processor seconds of a process and its children so far (Linux)."""
    total = 0.0
    for each in [pid, *children(pid)]:
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                yield int(child)
                yield from children(int(child))


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process; it is killed when the block ends."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    inherited = {**inherited, "NO_PROXY": "127.0.0.1", **environment}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=inherited
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def solver() -> Iterator[Target]:
    with started([sys.executable, str(ROOT / "benchmarks" / "server.py")]) as process:
        assert process.stdout is not None
        yield Target("bare solver", int(process.stdout.readline()), "bench", process.pid)


@contextmanager
def gateway(url: str, folder: Path, *options: str) -> Iterator[Target]:
    """Make a run over the solver and serve it."""
    (folder / "test.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "72"}) + "\n")
    (folder / "fractionate.toml").write_text(CONFIG.format(url=url))
    command = [sys.executable, "-m", "fractionate"]
    made = [*command, "run", str(folder / "fractionate.toml"), "--out", str(folder / "run"), "--quiet"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    with started([*command, "serve", str(folder / "run"), "--port", "0", *options]) as process:
        assert process.stdout is not None
        port = int(re.findall(r":(\d+)/v1 ", process.stdout.readline())[0])
        yield Target("fractionate serve", port, f"fractionate/static:teacher+{url}#bench", process.pid)


@contextmanager
def litellm(url: str, folder: Path, python: Path) -> Iterator[Target]:
    model = {"model": "openai/bench", "api_base": url, "api_key": "none"}
    (folder / "litellm.yaml").write_text(json.dumps({"model_list": [{"model_name": "bench", "litellm_params": model}]}))
    # It expects a key by default; ours listens on loopback without one, so both run without keys.
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    port = free_port()
    command = [str(python.with_name("litellm")), "--config", str(folder / "litellm.yaml"), "--port", str(port)]
    with started([*command, "--host", "127.0.0.1", "--num_workers", "1"], **environment) as process:
        yield Target("LiteLLM proxy", port, "bench", process.pid)


@contextmanager
def optillm(url: str, folder: Path, python: Path) -> Iterator[Target]:
    port = free_port()
    command = [str(python.with_name("optillm")), "--base-url", url, "--port", str(port), "--host", "127.0.0.1"]
    with started([*command, "--approach", "none", "--log", "error"], OPENAI_API_KEY="none") as process:
        yield Target("optillm", port, "bench", process.pid)


STARTERS = {"LiteLLM proxy": litellm, "optillm": optillm}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installed(name: str) -> Path:
    """Return the Python of another proxy's environment, created if absent. Raises OSError or CalledProcessError."""
    folder, steps = PEERS[name]
    home = ENVIRONMENTS / folder
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        print(f"installing {name} into {home} …", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        for packages in steps:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=1800)
        (home / ".ready").touch()
    return python


async def answers(target: Target) -> bool:
    """Wait until a target answers the question; False if it does not within START_S."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with suppress(OSError, asyncio.IncompleteReadError, AssertionError, ValueError):
            await one_client(target, 0.01)
            return True
        await asyncio.sleep(0.5)
    return False


def version(name: str) -> str:
    if name in PEERS:
        code = f"import importlib.metadata as m; print(m.version({PEERS[name][0]!r}))"
        python = str(ENVIRONMENTS / PEERS[name][0] / "bin" / "python")
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return ""


def compare(rounds: int, seconds: float, peers: bool) -> dict[str, Any]:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        bare = stack.enter_context(solver())
        url = f"http://127.0.0.1:{bare.port}/v1"
        targets = [bare, stack.enter_context(gateway(url, Path(folder)))]
        for name, start in STARTERS.items() if peers else ():
            try:
                target = stack.enter_context(start(url, Path(folder), installed(name)))
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{name} is left out: it cannot be installed ({error})", file=sys.stderr)
                continue
            if asyncio.run(answers(target)):
                targets.append(target)
            else:
                print(f"{name} is left out: it does not answer within {START_S:g} s", file=sys.stderr)
        found: dict[str, list[Row]] = {target.name: [] for target in targets}
        for number in range(rounds):
            for target in [one for one in targets if one.name in found]:
                try:
                    last = asyncio.run(row(target, seconds))
                except (TimeoutError, AssertionError, OSError, asyncio.IncompleteReadError) as error:
                    print(f"{target.name} is left out: {type(error).__name__} in round {number + 1}", file=sys.stderr)
                    del found[target.name]
                    continue
                found[target.name].append(last)
                said = f"{last.median_ms:.2f} ms, p99 {last.p99_ms:.2f} ms, {last.per_core_s:,.0f} requests/core-s"
                print(f"round {number + 1}/{rounds}: {target.name}: {said}", file=sys.stderr)
        base = found[bare.name]
        return {
            "rounds": rounds,
            "seconds": seconds,
            "clients": CLIENTS,
            "latency_clients": LATENCY_CLIENTS,
            "rows": {
                name: {
                    "version": version(name),
                    "median_ms": statistics.median(one.median_ms for one in rows),
                    "added_ms": added(rows, base, "median_ms"),
                    "added_p99_ms": added(rows, base, "p99_ms"),
                    "requests_per_core_s": statistics.median(one.per_core_s for one in rows),
                }
                for name, rows in found.items()
            },
        }


def added(rows: list[Row], base: list[Row], name: str) -> float:
    return statistics.median(getattr(a, name) - getattr(b, name) for a, b in zip(rows, base, strict=True))


def table(result: dict[str, Any]) -> str:
    lines = [
        "| asked | version | median ms | added ms | added p99 ms (16 clients) | requests/core-s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, row in result["rows"].items():
        bare = name == "bare solver"
        columns = ["–" if bare else f"{row[key]:.2f}" for key in ("added_ms", "added_p99_ms")]
        shown = [name, row["version"], f"{row['median_ms']:.2f}", *columns, f"{row['requests_per_core_s']:,.0f}"]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


async def failing_solver() -> tuple[asyncio.Server, int]:
    """Start a solver in this process that answers after 5 to 50 ms, and one call in ten with HTTP 500."""
    draw = random.Random(0)
    good = json.dumps({"choices": [{"message": {"content": "The answer is: 72"}, "finish_reason": "stop"}]}).encode()
    bad = b'{"error": {"message": "as you wished"}}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head.lower())
                await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(draw.uniform(0.005, 0.05))
                status, body = (b"500 No", bad) if draw.random() < 0.1 else (b"200 OK", good)
                head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(head % (status, len(body)) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def hold_up(seconds: float) -> dict[str, Any]:
    """Run 64 clients for a time while a tenth of the solver's calls fail; count the outcome of every request."""
    server, port = await failing_solver()
    url = f"http://127.0.0.1:{port}/v1"
    sent, statuses, lost = 0, Counter[int](), 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        served = gateway(url, Path(folder), "--concurrency", "48", "--queue", "8")
        target = await asyncio.to_thread(stack.enter_context, served)
        end = time.monotonic() + seconds

        async def client(number: int) -> None:
            nonlocal sent, lost
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            while time.monotonic() < end:
                sent += 1
                try:
                    statuses[await ask(reader, writer, request(target, f"{QUESTION} ({number}, {sent})"))] += 1
                except (OSError, asyncio.IncompleteReadError):
                    lost += 1
                    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.close()

        await asyncio.gather(*(client(number) for number in range(64)))
    server.close()
    return {"seconds": seconds, "sent": sent, "by_status": dict(sorted(statuses.items())), "lost": lost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="measure the gateway without other proxies")
    parser.add_argument("--hold-up", type=float, metavar="SECONDS", help="count the outcomes of requests instead")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.hold_up:
        result = asyncio.run(hold_up(arguments.hold_up))
        print(json.dumps(result))
    else:
        result = compare(arguments.rounds, arguments.seconds, not arguments.alone)
        print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
