"""A million problems, streamed from a JSONL file: one call a problem, every reply in the store; prints peak memory.

    python benchmarks/stream.py [--problems 1000000] [--whole]

Problems are read row by row, decomposed by the real coroutine against benchmarks/server.py (its own process), and
counted in order as they complete. No list holds all of them: the peak must stay under 1 GB for any number. `--whole`
runs `fractionate run` on the file instead, one cell from questions to report (benchmarks/memory.py has four).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fractionate.calls.drive import stream_all
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store
from fractionate.config import LimitsConfig, ModelOptions
from fractionate.datasets import iter_problems
from fractionate.models.openai.api import OpenAIModel
from fractionate.strategies.base import Sampler, Settings
from fractionate.strategies.decompose import decompose


def write_questions(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question = f"Crate {number} holds {number % 97} boxes of {number % 13} pens. How many pens is that?"
            file.write(json.dumps({"question": question, "answer": str(number % 97 * (number % 13))}) + "\n")


async def stream(folder: Path, url: str) -> int:
    model = OpenAIModel(f"{url}#bench", ModelOptions())
    sampler = Sampler(model)
    done = 0
    with Store(folder / "calls.sqlite") as store:
        async with Engine(store, LimitsConfig(concurrency=64)) as engine:
            programs = (
                decompose(problem, sampler, Settings())
                for problem in iter_problems(f"jsonl:{folder / 'questions.jsonl'}")
            )
            async for decomposition, _ in stream_all(programs, engine):
                done += bool(decomposition.subquestions)
                if done % 100_000 == 0:
                    print(f"{done:,} done, peak {peak_mb():.0f} MB", flush=True)
        await model.close()
    return done


def whole_run(folder: Path, url: str) -> int:
    """Measure one cell by the command line, in its own process."""
    (folder / "run.toml").write_text(
        f'[data]\ntest = "jsonl:{folder / "questions.jsonl"}"\n[models]\nsolvers = ["{url}#bench"]\n'
        'decomposers = ["none"]\n[run]\nstrategies = ["single"]\nvariants = []\n'
        f'[prices."{url}#bench"]\ninput_per_million = 1\noutput_per_million = 1\n'
    )
    command = [
        sys.executable,
        "-m",
        "fractionate",
        "run",
        str(folder / "run.toml"),
        "--out",
        str(folder / "run"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout)["cells"][0]["n"])


def peak_mb(whose: int = resource.RUSAGE_SELF) -> float:
    """Return the peak memory of this process, or of the largest process it waited for."""
    return resource.getrusage(whose).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1_000_000)
    parser.add_argument("--whole", action="store_true", help="run a whole run with one cell, reports included")
    arguments = parser.parse_args()
    count: int = arguments.problems
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline().split()[-1])}/v1"
    with tempfile.TemporaryDirectory() as name:
        write_questions(Path(name) / "questions.jsonl", count)
        started = time.perf_counter()
        done = whole_run(Path(name), url) if arguments.whole else asyncio.run(stream(Path(name), url))
        seconds = time.perf_counter() - started
    server.terminate()
    whose = resource.RUSAGE_CHILDREN if arguments.whole else resource.RUSAGE_SELF
    print(f"{done:,} problems in {seconds:.0f} s ({done / seconds:,.0f} a second), peak memory {peak_mb(whose):.0f} MB")


if __name__ == "__main__":
    main()
