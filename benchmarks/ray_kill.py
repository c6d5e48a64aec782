"""Kill workers, machines and runs at random moments: is any answer lost, and is any call paid twice?

    python benchmarks/ray_kill.py [--kills 30] [--questions 300]

A real server on this machine counts its calls. A run on Ray is killed with SIGKILL at random moments: one of its
workers (the run continues), one machine of a cluster of two on this computer (the run continues), or the run itself
(the same command resumes it). At the end every question has its answer, and the attempts equal those of an undisturbed
run. Repeated calls were in flight at a kill, or committed by a worker and not yet merged: at most `limits.concurrency`,
and two batches of each lost worker (of both workers if the run is killed).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cluster.ray_runs import CONCURRENCY, Counting, Head, config, cut, start, two_machines, workers_of
from fractionate.cluster.shard_worker import BATCHES
from servers.threaded import in_thread

LONGEST_S = 300
WORKERS = 2
BOUND = CONCURRENCY + WORKERS * 2 * max(32, BATCHES * CONCURRENCY // WORKERS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, in_thread(Counting(delay_s=0.1)) as server:
        base = Path(folder)
        path = config(base, server.base_url, arguments.questions)
        _ended(start(path, base / "plain", base / "plain.sqlite"))
        expected = cut(base / "plain")
        calls = len(server.asked)
        print("killed    at call  repeated  lost  same attempts")
        for number in range(arguments.kills):
            what = ("worker", "machine", "run")[number % 3]
            server.asked.clear()
            moment = chance.randrange(1, calls)
            out, store = base / f"run-{number}", base / f"run-{number}.sqlite"
            with two_machines() if what == "machine" else nullcontext() as machines:
                _run_and_kill(path, out, store, what, moment, server, machines, chance)
            repeated = sum(count - 1 for count in server.asked.values())
            lost, same = calls - len(server.asked), cut(out) == expected
            print(f"{what:8}{moment:9}{repeated:10}{lost:6}  {'yes' if same else 'NO'}", flush=True)
            total.update(repeated=repeated, lost=lost, other=not same, above=repeated > BOUND)
    print(
        f"{arguments.kills} kills, {calls} calls each time, at most {CONCURRENCY} in flight and {BOUND} that a kill "
        f"may cost: {total['repeated']} calls "
        f"made again, {total['lost']} answers lost, {total['other']} runs with other attempts"
    )
    return int(bool(total["lost"] or total["other"] or total["above"]))


def _run_and_kill(
    path: Path,
    out: Path,
    store: Path,
    what: str,
    moment: int,
    server: Counting,
    machines: Head | None,
    chance: random.Random,
) -> None:
    """Run to the end, with one kill after the server has answered a number of calls."""
    on = machines.place if machines else "ray"
    run = start(path, out, store, on)
    until = time.monotonic() + LONGEST_S
    while sum(server.asked.values()) < moment and run.poll() is None:
        time.sleep(0.01)
        assert time.monotonic() < until, "the run does not get on"
    if machines:
        machines.kill_second()
    elif what == "run":
        run.kill()
        run.communicate()
        run = start(path, out, store, on)
    else:
        workers = workers_of(run.pid)
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
    _ended(run)


def _ended(run: subprocess.Popen[str]) -> None:
    said, _ = run.communicate(timeout=LONGEST_S)
    assert run.returncode == 0, said


if __name__ == "__main__":
    sys.exit(main())
