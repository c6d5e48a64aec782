"""Processor time of a run on Ray, in its own process and in its workers, per question and per call.

    python benchmarks/ray_scale.py [--questions 6000] [--workers 1 2 4]

The model waits and answers within the calling process, so its server takes no processor time here. Measured are seconds
of processor time, not wall time: of the run's own process from the first question to the last merged attempt, of the
collector that commits calls beside it, and of the workers. `per 1,000 more` is the processor time of a thousand further
questions in the run's process, the difference to a run with a quarter of them: in its own thread, and in the threads of
Ray's client. `floor` is the same for a driver that only hands the same bytes to as many actors which do nothing, for
as long. The first row is the same cell without Ray. Each question is one call with a prompt of 1,500 characters.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from fractionate.api import Run
from fractionate.cluster.connect import connect, disconnect
from fractionate.config import ModelOptions, load_config
from fractionate.models.base import SingleModel
from fractionate.run.stages import evaluate_stage
from fractionate.types import Completion, Request, Usage

CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
solver = "delay:{delay}"
decomposers = ["none"]
[run]
variants = []
strategies = ["single"]
[limits]
concurrency = {concurrency}
"""
PLUGIN = "[fractionate.models]\ndelay = ray_scale:DelayModel\n"


class DelayModel(SingleModel):
    """`delay:SECONDS`: answers with the last word of the question after that delay."""

    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = self.identity = name
        self._delay_s = float(name.partition(":")[2])

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(self._delay_s)
        word = request.messages[-1].content.split()[-1]
        return Completion(f"The answer is: {word}", "stop", Usage(1, 380, 0, 8), self._delay_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=6_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--delay", type=float, default=0.05, help="seconds per call")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(Path(arguments.inside), arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        about = Path(folder) / "ray_scale-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ray_scale\nVersion: 1\n")
        (about / "entry_points.txt").write_text(PLUGIN)
        # The environment registers this file as a plug-in, so that workers can open its model by name.
        paths = [folder, str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.execv(sys.executable, [sys.executable, __file__, "--inside", folder, *sys.argv[1:]])


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    words = "word " * 280
    rows = [
        {"id": f"q{n}", "question": f"{n} {words}What is {n}?", "answers": [str(n)]} for n in range(arguments.questions)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "fractionate.toml"
    path.write_text(CONFIG.format(delay=arguments.delay, concurrency=arguments.concurrency))
    print(
        f"{arguments.questions:,} questions, {arguments.concurrency} in flight, {1000 * arguments.delay:.0f} ms a call"
    )
    print("            run's CPU         per 1,000 more:               CPU of the          calls per CPU second")
    print("workers     clock     own   Ray's     own   Ray's   floor     collector   workers   of all workers")
    report("none", arguments.questions, Used(), Used(), partial(evaluate, path, "plain"))
    connect("ray")
    note_before_kills()
    try:
        for count in arguments.workers:
            evaluate(path, f"warm-{count}", "ray", count, f"jsonl:test.jsonl@0-{64 * count - 1}")
            quarter = evaluate(path, f"few-{count}", "ray", count, f"jsonl:test.jsonl@0-{arguments.questions // 4 - 1}")
            report(
                str(count),
                arguments.questions,
                quarter,
                empty(quarter.clock, count, arguments.questions // 4),
                partial(evaluate, path, f"ray-{count}", "ray", count),
                count,
            )
    finally:
        disconnect()


@dataclass
class Used:
    """Seconds by the clock, and of processor time in the run's own thread and in all others of its process."""

    clock: float = 0.0
    own: float = 0.0
    rays: float = 0.0

    @classmethod
    @contextmanager
    def measured(cls) -> Iterator[Used]:
        """Measure what the block uses."""
        used = cls()
        clock, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
        yield used
        used.clock, used.own = time.perf_counter() - clock, time.thread_time() - thread
        used.rays = time.process_time() - process - used.own


def report(
    label: str, questions: int, quarter: Used, empty_quarter: Used, work: Callable[[], Used], count: int = 0
) -> None:
    """Print a row. `quarter` is what a quarter of the questions took, `empty_quarter` the floor for as long."""
    SECONDS.clear()
    used = work()
    collector = sum(seconds for (_, name), seconds in SECONDS.items() if "Collector" in name)
    workers = sum(seconds for (_, name), seconds in SECONDS.items() if "ShardWorker" in name)
    floor = empty(used.clock, count, questions) if count else Used()
    thousands = (questions - (questions // 4 if count else 0)) / 1000
    own, rays = (used.own - quarter.own) / thousands, (used.rays - quarter.rays) / thousands
    least = (floor.own + floor.rays - empty_quarter.own - empty_quarter.rays) / thousands
    rate = questions / (workers or used.own)
    print(
        f"{label:8}{used.clock:7.1f} s{used.own:8.2f}{used.rays:8.2f} s{1000 * own:7.1f}{1000 * rays:8.1f}"
        f"{1000 * least:8.1f} ms{collector:11.2f} s{workers:8.2f} s{rate:12,.0f}",
        flush=True,
    )


class Idle:
    """An actor that takes bytes and answers after a while."""

    async def run(self, content: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def take(self) -> None:
        return


def empty(clock_s: float, workers: int, questions: int) -> Used:
    """Measure the process of a driver that hands shards to actors which do nothing, and asks another once a second."""
    import ray

    kind = ray.remote(Idle).options(num_cpus=0.001)
    actors, collector = [kind.remote() for _ in range(workers)], kind.remote()
    shards = max(1, questions // (1024 * workers))
    content = b"x" * (1_600 * questions // (shards * workers))

    async def slot(actor: Any) -> None:
        for _ in range(shards):
            await actor.run.remote(content, clock_s / shards)

    async def work() -> None:
        slots = [asyncio.ensure_future(slot(actor)) for actor in actors]
        while not all(one.done() for one in slots):
            await asyncio.sleep(1.0)
            await collector.take.remote()

    ray.get([actor.take.remote() for actor in [*actors, collector]])
    with Used.measured() as used:
        asyncio.run(work())
    for actor in [*actors, collector]:
        ray.kill(actor)
    return used


def evaluate(path: Path, name: str, on: str = "", count: int = 0, data: str = "jsonl:test.jsonl") -> Used:
    """Measure the one cell in its own folder."""
    out = path.parent / name
    settings = [f'run.store="{out}.sqlite"', f"cluster.workers={count}", f'data.test="{data}"', "run.rows_at_most=0"]
    with Run(load_config(path, settings), out, base=path.parent, on=on) as run:
        run.progress = run.workers._progress = type(run.progress)(quiet=True)
        _ = run.data.tests
        with Used.measured() as used:
            evaluate_stage(run)
        return used


SECONDS: dict[tuple[int, str], float] = {}
"""Processor seconds of Ray's processes that run actors of this one, by id and name, when the last of them ended."""


def note_before_kills() -> None:
    """Note the processor time of actors before one is ended: a process that has ended tells nothing."""
    import ray

    def note(actor: Any, kill: Callable[[Any], None] = ray.kill) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, IndexError):  # it is ending
                if (name := process.cmdline()[0]).startswith("ray::"):
                    SECONDS[process.pid, name] = sum(process.cpu_times()[:2])
        kill(actor)

    ray.kill = note


if __name__ == "__main__":
    main()
