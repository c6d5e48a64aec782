"""Our client compared with others: requests per second and CPU per request against one local zero-latency server.

    python benchmarks/clients.py [--rounds 3] [--json OUT.json]

Every client sends the same chat request (with a different question each time), 64 at a time, to benchmarks/server.py in
its own process. Our client does everything that it does in a run: look up, limit, send, read, and commit every reply to
the store before use. The other clients run in their own virtual environment (build/bench-clients, created at the first
call). Clients take turns within a round, so that other load on the machine affects all of them; the table shows medians
over rounds. Quote the ratios: absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "bench-clients"
# LiteLLM 1.82.7 and 1.82.8 were malicious releases: no version between 1.82 and 1.83 is ever installed.
REQUIREMENTS = ("openai>=2,<3", "httpx>=0.28,<1", "litellm>=1.83,<2")
CONCURRENCY = 64
REQUESTS = {"fractionate": 8000, "aiohttp": 8000, "httpx": 1500, "openai": 1000, "litellm": 600}
SYSTEM = "Break the question into subquestions that can be answered one after another."
QUESTION = "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many in all? (%d)"


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION % number}]


async def at_once(send: Callable[[int], Awaitable[Any]], count: int, first: int = 0) -> None:
    """Send `count` requests, 64 in flight."""
    numbers = iter(range(first, first + count))

    async def worker() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


async def measure(run: Callable[[int, int], Awaitable[Any]], count: int) -> dict[str, float]:
    """Warm up, then take wall and CPU time of `run(count, first)`."""
    await run(200, 10**7)
    wall, cpu = time.perf_counter(), time.process_time()
    await run(count, 0)
    return {"seconds": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


async def child_fractionate(url: str, count: int) -> dict[str, float]:
    from fractionate.calls.drive import Call, run_all
    from fractionate.calls.engine import Engine
    from fractionate.calls.store import Store
    from fractionate.config import LimitsConfig
    from fractionate.models.openai.api import OpenAIModel
    from fractionate.types import Message, Request

    model = OpenAIModel(f"{url}#bench")

    def program(number: int) -> Any:
        request = Request((Message("system", SYSTEM), Message("user", QUESTION % number)), "decomposer")
        (completion,) = yield [Call(model, request)]
        return completion.text

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "calls.sqlite") as store:
        async with Engine(store, LimitsConfig(concurrency=CONCURRENCY)) as engine:

            async def run(count: int, first: int) -> None:
                await run_all((program(number) for number in range(first, first + count)), engine)

            result = await measure(run, count)
        assert len(store) == count + 200
        await model.close()
    return result


async def child_aiohttp(url: str, count: int) -> dict[str, float]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(number: int) -> None:
            body = {"model": "bench", "messages": messages(number), "max_tokens": 256, "temperature": 0.0}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                json.loads(await response.read())["choices"][0]["message"]["content"]

        return await measure(lambda count, first: at_once(send, count, first), count)


async def child_httpx(url: str, count: int) -> dict[str, float]:
    import httpx

    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    async with httpx.AsyncClient(limits=limits) as client:

        async def send(number: int) -> None:
            body = {"model": "bench", "messages": messages(number), "max_tokens": 256, "temperature": 0.0}
            response = await client.post(f"{url}/chat/completions", json=body)
            response.json()["choices"][0]["message"]["content"]

        return await measure(lambda count, first: at_once(send, count, first), count)


async def child_openai(url: str, count: int) -> dict[str, float]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="none")

    async def send(number: int) -> None:
        reply = await client.chat.completions.create(
            model="bench", messages=messages(number), max_tokens=256, temperature=0.0
        )
        assert reply.choices[0].message.content

    return await measure(lambda count, first: at_once(send, count, first), count)


async def child_litellm(url: str, count: int) -> dict[str, float]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches prices when imported
    import litellm

    async def send(number: int) -> None:
        reply = await litellm.acompletion(
            model="openai/bench",
            api_base=url,
            api_key="none",
            messages=messages(number),
            max_tokens=256,
            temperature=0.0,
        )
        assert reply.choices[0].message.content

    return await measure(lambda count, first: at_once(send, count, first), count)


CHILDREN = {
    "fractionate": child_fractionate,
    "aiohttp": child_aiohttp,
    "httpx": child_httpx,
    "openai": child_openai,
    "litellm": child_litellm,
}


def peers_python() -> Path:
    """Return the Python of the other clients' environment, which is created if absent."""
    python = PEERS / "bin" / "python"
    if not (PEERS / ".ready").exists():
        print(f"installing the peers into {PEERS} …", file=sys.stderr)
        venv.create(PEERS, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (PEERS / ".ready").touch()
    return python


def versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    names = {str(python): ["httpx", "openai", "litellm"], sys.executable: ["aiohttp", "fractionate"]}
    found: dict[str, str] = {}
    for interpreter, packages in names.items():
        found |= json.loads(
            subprocess.run([interpreter, "-c", code % packages], capture_output=True, check=True).stdout
        )
    return found


def one(name: str, python: Path, url: str, count: int) -> dict[str, float]:
    interpreter = sys.executable if name in ("fractionate", "aiohttp") else str(python)
    command = [interpreter, str(Path(__file__)), "--child", name, "--url", url, "--requests", str(count)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    environment.pop("OPENAI_API_KEY", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(rounds: int, scale: float) -> dict[str, Any]:
    python = peers_python()
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    rates: dict[str, list[float]] = {name: [] for name in REQUESTS}
    cpu_ms: dict[str, list[float]] = {name: [] for name in REQUESTS}
    try:
        for number in range(rounds):
            for name, requests in REQUESTS.items():
                count = max(CONCURRENCY, int(requests * scale))
                result = one(name, python, url, count)
                rates[name].append(count / result["seconds"])
                cpu_ms[name].append(1000 * result["cpu_s"] / count)
                print(f"round {number + 1}/{rounds}: {name} {rates[name][-1]:,.0f} requests/s", file=sys.stderr)
    finally:
        server.kill()
    ours = rates["fractionate"]
    return {
        "versions": versions(python),
        "rounds": rounds,
        "concurrency": CONCURRENCY,
        "clients": {
            name: {
                "requests_per_s": statistics.median(rates[name]),
                "cpu_ms": statistics.median(cpu_ms[name]),
                "rate_ratio": statistics.median(a / b for a, b in zip(ours, rates[name], strict=True)),
                "cpu_ratio": statistics.median(b / a for a, b in zip(cpu_ms["fractionate"], cpu_ms[name], strict=True)),
            }
            for name in REQUESTS
        },
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        "| client | version | requests/s | CPU ms a request | ours is faster by | ours takes less CPU by |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, row in result["clients"].items():
        label = {"fractionate": "fractionate (with its store)", "openai": "openai AsyncOpenAI"}.get(name, name)
        lines.append(
            f"| {label} | {result['versions'][name]} | {row['requests_per_s']:,.0f} | {row['cpu_ms']:.2f} "
            f"| {row['rate_ratio']:.1f}× | {row['cpu_ratio']:.1f}× |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of requests")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(asyncio.run(CHILDREN[arguments.child](arguments.url, arguments.requests))))
        return
    result = compare(arguments.rounds, arguments.scale)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
