"""One model on several servers: throughput, and how often a call meets the server that has cached its passage.

    python benchmarks/replicas.py [--seconds 4] [--ahead 64] [--json OUT.json]

Every server is its own process (benchmarks/server.py): a reply takes 200 ms; the server handles as many calls at once
as its capacity and answers further ones with 429. A run asks 8 questions over each passage, one after another, as a
data set has them, through a store as in any run. The number of calls is what the servers could answer in `--seconds`.

calls/s, of ideal: replies per second over the whole run, ramp-up included; ideal is the total capacity, or
limits.concurrency if that is lower, / 0.2 s.
same server: of the calls over a passage that some server had read, the share that went to a server which had read it
(a prefix cache without bounds would have had it); at random: the same if calls went to servers by capacity.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fractionate.calls import dispatch
from fractionate.calls.drive import Call, run_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.models import open_model
from fractionate.types import Message, Request

ROOT = Path(__file__).resolve().parents[1]
DELAY_S = 0.2
QUESTIONS = 8
ABOVE = 1024
RUNS = (
    *(((16,), ABOVE), ((16, 16), ABOVE), ((16, 16, 16, 16), ABOVE)),
    *(((4, 16), ABOVE), ((4, 8, 16, 32), ABOVE), ((16, 16, 16, 16), 32)),
)
"""Capacities of the servers of each run, and its `limits.concurrency`: above their sum, and half of it."""


async def ask_all(name: str, count: int, limit: int) -> dict[str, Any]:
    """Ask `count` questions, `QUESTIONS` over each passage. Returns the seconds, failures and retries."""
    model = open_model(name, ModelOptions())

    def coroutine(number: int) -> Any:
        passage, question = divmod(number, QUESTIONS)
        text = (
            f"Context: Passage {passage} tells of rivers and of towns.\n\nQuestion: What of it, for the {question}th?"
        )
        messages = (Message("system", "Answer."), Message("user", text))
        (completion,) = yield [Call(model, Request(messages, "solver"))]
        return completion.text

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "calls.sqlite") as store:
        async with Engine(store, LimitsConfig(concurrency=limit, attempts=20)) as engine:
            began = time.monotonic()
            await run_all((coroutine(number) for number in range(count)), engine)
            seconds = time.monotonic() - began
        await model.close()
    return {"seconds": seconds, "failed": engine.counters.failures.total(), "retries": engine.counters.retries.total()}


def measure(capacities: tuple[int, ...], limit: int, seconds: float) -> dict[str, Any]:
    """Run once against servers of these capacities, with at most `limit` calls in flight."""
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py"), "--delay", str(DELAY_S), "--concurrency"]
    servers = [
        subprocess.Popen([*command, str(one)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for one in capacities
    ]
    try:
        ports = [int(server.stdout.readline()) for server in servers if server.stdout is not None]
        name = ",".join(f"http://127.0.0.1:{port}/v1" for port in ports) + "#bench"
        ideal = min(sum(capacities), limit) / DELAY_S
        count = int(seconds * ideal)
        run = asyncio.run(ask_all(name, count, limit))
        counts = [json.loads(server.communicate(timeout=30)[0]) for server in servers]
    finally:
        for server in servers:
            server.kill()
            server.wait()
    served = [one["served"] for one in counts]
    per_s = sum(served) / run["seconds"]
    return {
        "capacities": list(capacities),
        "limit": limit,
        "calls": count,
        "per_s": per_s,
        "of_ideal": per_s / ideal,
        "shares": [one / sum(served) for one in served],
        "same_server": same_server([one["passages"] for one in counts]),
        "at_random": at_random(capacities),
        "refused": sum(one["refused"] for one in counts),
        "failed": run["failed"],
    }


def same_server(by_server: list[dict[str, int]]) -> float:
    """Return the share of calls over an already read passage that went to a server that had read it."""
    total: Counter[str] = Counter()
    for passages in by_server:
        total.update(passages)
    again = sum(count - 1 for count in total.values())
    met = sum(count - 1 for passages in by_server for count in passages.values())
    return met / again


def at_random(capacities: tuple[int, ...]) -> float:
    """Return the expected `same_server` if calls go to servers in proportion to capacity."""
    read = sum(1 - (1 - one / sum(capacities)) ** QUESTIONS for one in capacities)
    return (QUESTIONS - read) / (QUESTIONS - 1)


def line(row: dict[str, Any]) -> str:
    shares = " + ".join(f"{share:.0%}" for share in row["shares"])
    cells = [
        " + ".join(map(str, row["capacities"])),
        f"{row['limit']:,}",
        f"{row['calls']:,}",
        f"{row['per_s']:,.0f}",
        f"{row['of_ideal']:.0%}",
        shares,
        f"{row['same_server']:.0%}",
        f"{row['at_random']:.0%}",
        f"{row['refused']:,}",
        str(row["failed"]),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of a run at the ideal rate")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--ahead",
        type=int,
        default=dispatch.AHEAD,
        help="number of waiting calls searched for one with a cached prefix",
    )
    arguments = parser.parse_args()
    dispatch.AHEAD = arguments.ahead
    print(
        "| capacity | limit | calls | calls/s | of ideal | calls by server | same server | at random | 429s | failed |"
    )
    print("|---|" + "---:|" * 9, flush=True)
    rows = []
    for capacities, limit in RUNS:
        rows.append(measure(capacities, limit, arguments.seconds))
        print(line(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
