"""A local decomposer with live requests: subquestions per second and time to the first token, at 1, 8 and 32 clients.

    python benchmarks/live_local.py [--student fractionate-demo/students/D-R] [--clients 1 8 32] [--questions 2]

Four methods take turns on the same questions of atlas: one request at a time on torch in fp32 (the reference); requests
that share forward passes on torch; the same on OpenVINO (extra `fast`), with weights in f16 and in 8 bits. A client
sends its questions one after another. Then the greedy replies of all runtimes are compared with those of torch. Quote
the ratios: absolute figures depend on the machine and its load; `per CPU s` is subquestions per second of processor
time, which depends least on the load.

Without --student the base model decomposes, with the full instruction; it often generates up to the token limit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fractionate.config import ModelOptions
from fractionate.datasets import load
from fractionate.models.local.live import LiveModel
from fractionate.models.local.model import LocalModel
from fractionate.models.local.weights import SMOLLM2
from fractionate.strategies.decompose import parse_decomposition
from fractionate.strategies.prompting import decompose_messages
from fractionate.types import Problem, Request

MAX_TOKENS = 64
QUESTIONS = "atlas#test@0-399/4"
"""One question about each passage, the demo's test questions first."""
WAYS = (
    ("torch, one at a time", "torch", 1),
    ("torch, shared passes", "torch", 32),
    ("OpenVINO", "openvino", 32),
    ("OpenVINO, 8 bits", "openvino-int8", 32),
)
QUEUE = 8
"""Maximum of clients for one request at a time: further clients only wait longer."""


@dataclass
class Taken:
    subquestions: int
    tokens: int
    seconds: float
    cpu_s: float
    firsts: list[float]


def requests_of(local: LocalModel, problems: Sequence[Problem]) -> list[Request]:
    return [
        Request(decompose_messages(problem, local.style, with_context=False), "decomposer", MAX_TOKENS)
        for problem in problems
    ]


async def ask(model: LiveModel, asked: Sequence[Request], clients: int) -> Taken:
    """Let several clients send the requests, each client one after another."""
    waiting, taken = iter(asked), Taken(0, 0, 0.0, 0.0, [])

    async def client() -> None:
        for request in waiting:
            sent = time.perf_counter()
            first: list[float] = []

            def on_text(text: str, sent: float = sent, first: list[float] = first) -> None:
                if not first:
                    first.append(time.perf_counter() - sent)

            done = await model.stream(request, on_text)
            taken.firsts += first
            taken.tokens += done.usage.output_tokens
            taken.subquestions += len(parse_decomposition(done.text).subquestions)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    taken.seconds, taken.cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return taken


def speed(name: str, problems: Sequence[Problem], clients: Sequence[int], questions: int) -> None:
    print("| clients | method | subquestions/s | × | per CPU s | × | tokens/s | first token, median | 95 % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    base: tuple[float, float] | None = None
    for count in clients:
        for way, runtime, rows in WAYS:
            if rows == 1 and count > QUEUE:
                continue
            taken = asyncio.run(one_way(name, runtime, rows, problems[: max(4, count * questions)], count))
            now = taken.subquestions / taken.seconds, taken.subquestions / taken.cpu_s
            base = now if rows == 1 or base is None else base
            firsts = sorted(taken.firsts)
            cells = [
                f"{now[0]:.2f}",
                f"{now[0] / base[0]:.1f}",
                f"{now[1]:.2f}",
                f"{now[1] / base[1]:.1f}",
                f"{taken.tokens / taken.seconds:.1f}",
                f"{firsts[len(firsts) // 2]:.2f} s",
                f"{firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))]:.2f} s",
            ]
            print(f"| {count} | {way} | " + " | ".join(cells) + " |", flush=True)


async def one_way(name: str, runtime: str, rows: int, problems: Sequence[Problem], clients: int) -> Taken:
    local = LocalModel(name, ModelOptions(device="cpu", runtime=runtime))
    model = LiveModel(local, rows)
    asked = requests_of(local, problems)
    try:
        await model.complete(asked[0])  # loads the weights
        return await ask(model, asked, clients)
    finally:
        await model.close()


def parity(name: str, problems: Sequence[Problem]) -> None:
    """Print how many greedy replies and decompositions of the other runtimes equal those of torch."""
    found = {}
    for runtime in dict.fromkeys(runtime for _, runtime, _ in WAYS):
        local = LocalModel(name, ModelOptions(device="cpu", runtime=runtime))
        found[runtime] = [done.text for done in local.complete_batch(requests_of(local, problems))]
    expected = found.pop("torch")
    for runtime, texts in found.items():
        same = sum(a == b for a, b in zip(expected, texts, strict=True))
        read = [[parse_decomposition(text).subquestions for text in said] for said in (expected, texts)]
        alike = sum(a == b for a, b in zip(*read, strict=True))
        print(f"| {runtime} | {len(texts)} | {same} | {alike} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="folder of a decomposer's adapter")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--questions", type=int, default=2, help="questions per client")
    parser.add_argument("--parity", type=int, default=60, help="questions whose replies are compared, at most 100")
    chosen = parser.parse_args()
    base = f"local:{SMOLLM2}"
    name = f"{base}@{chosen.student.resolve()}" if chosen.student else base
    problems = load(QUESTIONS)
    print(f"{os.cpu_count()} cores, load of the machine before: {os.getloadavg()[0]:.1f}\n")
    speed(name, problems, chosen.clients, chosen.questions)
    print("\n| runtime | questions | same reply as torch, fp32 | same decomposition |\n| --- | --- | --- | --- |")
    parity(name, problems[: chosen.parity])
    print(f"\nload of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
