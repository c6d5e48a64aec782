"""Processor time of a run on Ray, in its own process and in its workers, per question and per call.

    python benchmarks/ray_scale.py [--questions 6000] [--workers 1 2 4]

The model waits and answers within the calling process, so its server takes no processor time here. Measured are seconds
of processor time, not wall time: of the run's own process from the first question to the last merged attempt, and of
all Ray processes that work for it. `per 1,000 more` is the processor time of a thousand further questions in the run's
process: the difference to a run with a quarter of them. The first row is the same cell without Ray. Each question is
one call with a prompt of 1,500 characters.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

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
    print(
        "workers   clock   run's CPU   per 1,000 more   workers' CPU   calls per CPU second of all workers", flush=True
    )
    report("none", arguments.questions, partial(evaluate, path, "plain"))
    connect("ray")
    try:
        for count in arguments.workers:
            evaluate(path, f"warm-{count}", "ray", count, f"jsonl:test.jsonl@0-{64 * count - 1}")
            fixed = evaluate(path, f"few-{count}", "ray", count, f"jsonl:test.jsonl@0-{arguments.questions // 4 - 1}")
            report(str(count), arguments.questions, partial(evaluate, path, f"ray-{count}", "ray", count), fixed)
    finally:
        disconnect()


def report(label: str, questions: int, work: Callable[[], float], quarter_s: float | None = None) -> None:
    """Print a row. `quarter_s` is the run's processor time for a quarter of the questions."""
    before, began = workers(), time.perf_counter()
    own = work()
    clock = time.perf_counter() - began
    taken = sum(seconds - before.get(pid, 0.0) for pid, seconds in workers().items())
    further = own / questions if quarter_s is None else (own - quarter_s) / (questions - questions // 4)
    rate = f"{questions / taken:10,.0f}" if taken else f"{questions / own:10,.0f} (in the run's own process)"
    print(f"{label:7}{clock:7.1f} s{own:10.2f} s{1e6 * further:10.1f} ms{taken:14.2f} s{rate}", flush=True)


def evaluate(path: Path, name: str, on: str = "", count: int = 0, data: str = "jsonl:test.jsonl") -> float:
    """Measure the one cell in its own folder. Returns the seconds of processor time once its data is read."""
    out = path.parent / name
    settings = [f'run.store="{out}.sqlite"', f"cluster.workers={count}", f'data.test="{data}"', "run.rows_at_most=0"]
    with Run(load_config(path, settings), out, base=path.parent, on=on) as run:
        run.progress = run.workers._progress = type(run.progress)(quiet=True)
        _ = run.data.tests
        before = time.process_time()
        evaluate_stage(run)
        return time.process_time() - before


def workers() -> dict[int, float]:
    """Return the processor seconds so far of Ray's processes that run tasks of this one, or wait for some."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if any(word.startswith("ray::") for word in process.cmdline()[:1]):  # empty for one that is ending
                found[process.pid] = sum(process.cpu_times()[:2])
    return found


if __name__ == "__main__":
    main()
