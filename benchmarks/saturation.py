"""How busy the client keeps a server that takes 200 ms a call, at the concurrency that the server allows.

    python benchmarks/saturation.py [--allowed 8 32 64 128 256] [--seconds 10] [--json OUT.json]

The server is its own process (benchmarks/server.py): every reply takes 200 ms, and a request above the allowed
concurrency gets 429 at once. Its ideal is allowed / 0.2 s replies per second. Every row is a run with enough calls for
`--seconds`, each call looked up, sent and committed to a store as in any run; `limits.concurrency` is first what the
server allows, then far above it, so that the client must find the limit. The row "bare" is aiohttp alone with as many
workers as the server allows, without lookup and store: the upper bound for any client on this machine.

whole: replies per second over the whole run, its first and last call included, as a share of the ideal.
after ramp-up: the same from the moment at which the server was first full to the last at which there was enough work to
fill it, by its own clock.
CPU ms: the client's processor time per call. On a machine with other load, client and server wait for
their turn, and no client reaches the ideal: compare with "bare".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from fractionate.calls.drive import Call, run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig
from fractionate.models.openai.api import OpenAIModel
from fractionate.types import Message, Request

ROOT = Path(__file__).resolve().parents[1]
DELAY_S = 0.2
ABOVE = 1024
"""`limits.concurrency` of the runs that must find the server's limit."""


async def ask_all(url: str, count: int, limit: int) -> dict[str, float]:
    """Send `count` calls, at most `limit` in flight. Returns its start, its end, its CPU time, and the failures."""
    model = OpenAIModel(f"{url}#bench")

    def program(number: int) -> Any:
        question = f"Natalia sold clips to 48 of her friends. How many in all? ({number})"
        (completion,) = yield [Call(model, Request((Message("user", question),), "solver"))]
        return completion.text

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "calls.sqlite") as store:
        async with Engine(store, LimitsConfig(concurrency=limit, attempts=20)) as engine:
            began, cpu = time.monotonic(), time.process_time()
            await run_all((program(number) for number in range(count)), engine)
            ended, cpu = time.monotonic(), time.process_time() - cpu
        await model.close()
    return {"began": began, "ended": ended, "cpu_s": cpu, "failed": engine.counters.failures.total()}


async def ask_barely(url: str, count: int, limit: int) -> dict[str, float]:
    """Send `count` calls with aiohttp alone, `limit` in flight from the start."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            body = {"model": "bench", "messages": [{"role": "user", "content": f"How many in all? ({number})"}]}
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                json.loads(await reply.read())["choices"][0]["message"]["content"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(limit)))
        ended, cpu = time.monotonic(), time.process_time() - cpu
    return {"began": began, "ended": ended, "cpu_s": cpu, "failed": 0}


def busy(arrivals: list[float], start: float, end: float) -> float:
    """Return the mean number of calls in service between two moments, each for DELAY_S from its arrival."""
    inside = sum(max(0.0, min(at + DELAY_S, end) - max(at, start)) for at in arrivals)
    return inside / max(1e-9, end - start)


def first_full(arrivals: list[float], places: int) -> float | None:
    """Return when the server was first serving `places` calls, None if it never was."""
    for first, last in zip(arrivals, arrivals[places - 1 :], strict=False):
        if last < first + DELAY_S:
            return last
    return None


def measure(allowed: int, limit: int, seconds: float, *, bare: bool = False) -> dict[str, Any]:
    """Run one client against its own server."""
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py")]
    command += ["--delay", str(DELAY_S), "--concurrency", str(allowed)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        count = int(seconds * allowed / DELAY_S)
        run = asyncio.run((ask_barely if bare else ask_all)(url, count, limit))
        counts = json.loads(server.communicate(timeout=30)[0])
    finally:
        server.kill()
        server.wait()
    arrivals = counts["arrivals"]
    full = first_full(arrivals, allowed)
    ideal = allowed / DELAY_S
    whole = len(arrivals) / (run["ended"] - run["began"])
    return {
        "allowed": allowed,
        "limit": "bare" if bare else limit,
        "calls": count,
        "ideal_per_s": ideal,
        "whole_per_s": whole,
        "whole": whole / ideal,
        "ramp_up_s": None if full is None else full - run["began"],
        "after": None if full is None else busy(arrivals, full, arrivals[-allowed - 1]) / allowed,
        "refused": counts["refused"],
        "failed": run["failed"],
        "cpu_ms": 1000 * run["cpu_s"] / count,
    }


def line(row: dict[str, Any]) -> str:
    after = "never full" if row["after"] is None else f"{row['after']:.1%}"
    ramp_up = "" if row["ramp_up_s"] is None else f"{row['ramp_up_s']:.2f}"
    rates = f"{row['ideal_per_s']:,.0f} | {row['whole_per_s']:,.0f} | {row['whole']:.1%}"
    faults = f"{row['refused']:,} | {row['failed']} | {row['cpu_ms']:.2f}"
    return f"| {row['allowed']} | {row['limit']} | {row['calls']:,} | {rates} | {ramp_up} | {after} | {faults} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allowed", type=int, nargs="+", default=[8, 32, 64, 128, 256])
    parser.add_argument(
        "--above", type=int, default=ABOVE, help="limits.concurrency of the runs that must find the server's limit"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of a run at the ideal rate")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    print(
        "| allowed | limit | calls | ideal/s | whole/s | whole | ramp-up s | after ramp-up | 429s | failed | CPU ms |"
    )
    print("|" + "---:|" * 11, flush=True)
    rows = []
    for allowed in arguments.allowed:
        for limit, bare in ((allowed, True), (allowed, False), (arguments.above, False)):
            rows.append(measure(allowed, limit, arguments.seconds, bare=bare))
            print(line(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
