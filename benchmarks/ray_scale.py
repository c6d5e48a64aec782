"""What workers on Ray cost, and how far one run carries them.

    python benchmarks/ray_scale.py                      overhead, throughput, start, and the run's own constants
    python benchmarks/ray_scale.py --simulate 1000      caps with 1,000 workers, in virtual time

Overhead: the same questions to a server that takes 200 ms a call, in this process and on two workers, in turn; seconds
from the first call to the last. Throughput: a model that answers at once (`echo:`), so that nothing but the engine, the
stores and the way between them is measured; the workers share this machine's cores with the run. The constants are
what the run itself does for a call that a worker makes: look whether it is stored, send the program, take the row in,
drive the program to its value. The simulation has the run's own crew and the workers' own engines and stores, and a
clock that jumps; what is checked is what the server saw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))

from fractionate.cluster.hiring import OnRay
from fractionate.cluster.programs import pack
from fractionate.cluster.ranges import drive_by_hand, look_into
from fractionate.cluster.taking_in import take_in
from fractionate.cluster.worker import Setup
from ray import cloudpickle
from virtual import run_virtually

from cluster import near
from cluster.near import PaidServer, asking, run_near
from cluster.ray_runs import Counting, config
from fractionate.api import Run
from fractionate.calls.engine import Engine
from fractionate.calls.store import Store, StoredCall
from fractionate.calls.stored_call import row_of
from fractionate.cluster.connect import connect, disconnect
from fractionate.config import BudgetConfig, LimitsConfig, load_config
from fractionate.run.event_loop import in_loop
from fractionate.types import Completion, Message, Request, Usage
from servers.threaded import in_thread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, default=0, metavar="WORKERS", help="only simulate so many workers")
    parser.add_argument("--calls", type=int, default=20_000, help="calls of the simulation")
    parser.add_argument("--per-minute", type=float, default=60_000.0, help="requests a minute of the simulation")
    parser.add_argument("--concurrency", type=int, default=4_000, help="calls in flight of the simulation")
    parser.add_argument("--budget", type=float, default=0.9, help="part of its calls that are in the budget; 0: no cap")
    parser.add_argument("--questions", type=int, default=3_200, help="questions of each overhead measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(arguments)
        return
    constants()
    began = time.perf_counter()
    connect("ray")
    cloudpickle.register_pickle_by_value(near)  # workers have the package, not its tests
    print(f"Ray on this machine began in {time.perf_counter() - began:.1f} s")
    try:
        words()
        overhead(arguments.questions, arguments.rounds)
        throughput(2 * arguments.questions, arguments.rounds)
    finally:
        disconnect()


def overhead(questions: int, rounds: int) -> None:
    """Print the seconds of the same calls without and with workers, the server taking 200 ms a call."""
    with tempfile.TemporaryDirectory() as folder, in_thread(Counting(delay_s=0.2)) as server:
        path = config(Path(folder), server.base_url, questions)
        here, there = [], []
        for turn in range(rounds):
            here.append(seconds_of(path, f"here-{turn}", "", 64, 2))
            there.append(seconds_of(path, f"there-{turn}", "ray", 64, 2))
        ratios = [more / less for more, less in zip(there, here, strict=True)]
        print(
            f"{questions} questions at 200 ms, 64 in flight: here {statistics.median(here):.2f} s, on two workers "
            f"{statistics.median(there):.2f} s, ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f})"
        )


def throughput(questions: int, rounds: int) -> None:
    """Print calls per second of a model that answers at once, here and on 1, 2 and 4 workers."""
    with tempfile.TemporaryDirectory() as folder:
        path = config(Path(folder), "http://127.0.0.1:1/v1", questions)
        path.write_text(path.read_text().replace("http://127.0.0.1:1/v1#test", "echo:"))
        for label, on, workers in (
            ("here", "", 0),
            ("1 worker", "ray", 1),
            ("2 workers", "ray", 2),
            ("4 workers", "ray", 4),
        ):
            taken = [seconds_of(path, f"{workers}-{turn}", on, 64, workers or 1) for turn in range(rounds)]
            rates = sorted(questions / seconds for seconds in taken)
            print(f"{label:10} {statistics.median(rates):7.0f} calls/s ({rates[0]:.0f} to {rates[-1]:.0f})", flush=True)


def words(count: int = 2_000) -> None:
    """Print what a word to a worker and its answer take of the run's own process."""

    async def many() -> float:
        actor = OnRay().begin(OnRay().places(1, 1)[0], setup)
        await actor.hello.remote()
        began = time.process_time()
        for _ in range(0, count, 100):
            await asyncio.gather(*(actor.nudge.remote() for _ in range(100)))
        taken = time.process_time() - began
        await actor.end.remote(0)
        return taken

    with tempfile.TemporaryDirectory() as folder:
        setup = Setup("r", LimitsConfig(), BudgetConfig(), None, Path(), Path(folder) / "workers")
        print(f"a word to a worker and its answer: {1e6 * asyncio.run(many()) / count:.0f} µs of the run's processor")


def seconds_of(path: Path, name: str, on: str, concurrency: int, workers: int) -> float:
    """Return the seconds that one single-stage cell takes, workers begun before."""
    out = path.parent / name
    settings = [
        f'run.store="{out}.sqlite"', f"limits.concurrency={concurrency}", f"cluster.workers={workers}",
        'run.strategies=["single"]', 'models.decomposers=["none"]',
    ]  # fmt: skip
    with Run(load_config(path, settings), out, base=path.parent, on=on) as run:
        runner = run.workers.runner()

        async def of(first: int, count: int) -> float:
            sampler = run.models.sampler(run.names.solvers[0])
            began = time.perf_counter()
            starts = (partial(asking, sampler.model, f"question {number}", 0) for number in range(first, first + count))
            async for _ in runner(starts, run.engine):
                pass
            return time.perf_counter() - began

        in_loop(run, lambda: of(10**9, 8))  # workers begin, connections open
        return in_loop(run, lambda: of(0, len(run.data.tests[0].problems)))


def constants(calls: int = 20_000) -> None:
    """Print what the run itself does per call that a worker makes, and what a call takes on disk and on the way."""
    server = PaidServer()
    text = "word " * 300
    starts = [partial(asking, server, f"{number} {text}", 0) for number in range(calls)]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "s.sqlite") as store:
        engine = Engine(store, run="r")
        began = time.process_time()
        for at in range(0, calls, 64):
            look_into(starts[at : at + 64], store.get, set())
        look = time.process_time() - began
        began = time.process_time()
        sent = sum(len(pack(starts[at : at + 64], {})[0]) for at in range(0, calls, 64))
        packed = time.process_time() - began
        rows = []
        for number in range(calls):
            request = Request((Message("user", f"{number} {text} 0"),), "solver", max_tokens=20)
            reply = Completion("yes " * 60, "stop", Usage(1, 10, 0, 5, 0), 0.2)
            rows.append(row_of(StoredCall(server.key(request), server.name, server.identity, "r", request, reply)))
        began = time.process_time()
        for at in range(0, calls, 256):
            take_in(engine, "r", "w", rows[at : at + 256])
        merge = time.process_time() - began
        began = time.process_time()
        for start in starts:
            drive_by_hand(start, store.get)
        drive = time.process_time() - began
        engine.close()
    size = sum(len(json.dumps(row, default=str)) for row in rows[:100]) / 100
    micro = [1e6 * seconds / calls for seconds in (look, packed, merge, drive)]
    print(
        f"the run's own work per call of 1,500 characters: look {micro[0]:.0f} µs, send {micro[1]:.0f} µs, take in "
        f"{micro[2]:.0f} µs, drive {micro[3]:.0f} µs: {sum(micro):.0f} µs, so {1e6 / sum(micro):,.0f} calls/s at most\n"
        f"on the way: {sent / calls:,.0f} bytes out, {size:,.0f} bytes back"
    )


def simulate(given: argparse.Namespace) -> None:
    """Print what a server saw of so many workers under limits and a budget that one process would keep to."""
    workers, calls, per_minute, concurrency = given.simulate, given.calls, given.per_minute, given.concurrency
    cap = 0.02 * calls * given.budget or None
    server = PaidServer(delay_s=0.5)
    limits = LimitsConfig(requests_per_minute=per_minute, concurrency=concurrency)
    began = time.perf_counter()
    counted: dict[str, Any] = {}
    memory = Path("/dev/shm")  # a thousand stores on one disk would be what is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        try:
            run_virtually(run_near(server, workers, calls, limits, BudgetConfig(usd=cap), Path(folder), tell=counted))
            ended = "to the end"
        except Exception as error:
            ended = type(error).__name__
    times = sorted(server.served)
    busiest = max(bisect_left(times, at + 60.0) - place for place, at in enumerate(times))
    answered = sum(server.calls.values())
    paid = 0.02 * answered
    cap_kept = "no cap" if cap is None else f"of {cap:,.2f}: {'kept' if paid <= cap + 1e-6 else 'PASSED'}"
    print(
        f"{workers} workers, {calls:,} calls wanted, ended with {ended} after {times[-1]:,.0f} s of the clock "
        f"({time.perf_counter() - began:.0f} s here)\n"
        f"  answered {answered:,}, none twice: {max(server.calls.values()) == 1}\n"
        f"  dollars {paid:,.2f} {cap_kept}\n"
        f"  requests in the busiest minute {busiest:,} of {per_minute:,.0f}: "
        f"{'kept' if busiest <= per_minute else 'PASSED'}\n"
        f"  in flight at most {server.most:,} of {concurrency:,}: "
        f"{'kept' if server.most <= concurrency else 'PASSED'}\n"
        f"  words between the run and its workers per call: {counted['words'].total() / max(1, answered):.2f} "
        f"({', '.join(f'{name} {count:,}' for name, count in counted['words'].most_common())})"
    )


if __name__ == "__main__":
    main()
