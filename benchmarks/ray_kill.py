"""Kill workers, machines and runs at random moments: is anything lost, and is anything paid for twice?

    python benchmarks/ray_kill.py [--kills 30] [--questions 400]

A real server on this machine counts what it was asked. A run on Ray is killed with SIGKILL at random moments: one of its
workers (it goes on), one machine of a cluster of two on this computer (it goes on), or the run itself (the same command
goes on where it ended). At the end every question has its answer, and the attempts are those of a run that nobody
disturbed. A request that the server saw again was in flight at a kill, or had come back in the half second before a
machine died with its disk; the table has how many these were, and how many there could be at most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from cluster.ray_runs import CONCURRENCY, TIMINGS, Counting, children, config, cut, head_and_node  # noqa: E402
from servers.threaded import in_thread  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    total, worst = Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder, in_thread(Counting(delay_s=0.1)) as server:
        base = Path(folder)
        path = config(base, server.base_url, arguments.questions)
        plain = base / "plain"
        run(path, plain, base / "plain.sqlite").wait()
        expected = cut(plain)
        print("kills  of      repeated  at most  lost  same attempts")
        done = 0
        while done < arguments.kills:
            what = ("worker", "machine", "run")[done % 3]
            server.asked.clear()
            out, store = base / f"run-{done}", base / f"run-{done}.sqlite"
            kills = one(path, out, store, what, chance)
            repeated = sum(count - 1 for count in server.asked.values())
            bound = kills * CONCURRENCY
            same = cut(out) == expected
            lost = arguments.questions * 3 - len(server.asked)
            print(f"{kills:5}  {what:8}{repeated:8}{bound:9}{lost:6}  {'yes' if same else 'NO'}", flush=True)
            total.update(kills=kills, repeated=repeated, lost=lost, other=not same)
            worst = max(worst, repeated - bound)
            done += kills
    print(f"{total['kills']} kills: {total['repeated']} requests repeated, {total['lost']} answers lost")
    return int(bool(total["lost"] or total["other"] or worst > 0))


def run(path: Path, out: Path, store: Path, on: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fractionate", "run", str(path), "--out", str(out), "--store", str(store)]
    command += ["--set", "cluster.workers=2", *(["--on", on] if on else [])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def one(path: Path, out: Path, store: Path, what: str, chance: random.Random) -> int:
    """Run to the end with kills of one kind on the way. Returns how many there were."""
    with head_and_node() if what == "machine" else none() as cluster:
        kills = 0
        on = "ray" if cluster is None else cluster.place
        process = run(path, out, store, on)
        until = time.monotonic() + 300
        while not store.exists() or not stored(store):
            time.sleep(0.05)
            assert time.monotonic() < until and process.poll() is None, "the run did not begin"
        time.sleep(chance.uniform(0.0, 2.0))
        if process.poll() is None:
            kills += kill(what, process, cluster, chance)
        if what == "run":
            process = run(path, out, store, on)
        assert process.wait(300) == 0
        return kills


def kill(what: str, process: subprocess.Popen[bytes], cluster: object, chance: random.Random) -> int:
    if what == "run":
        process.kill()
        process.wait()
    elif what == "machine":
        cluster.kill_node()  # type: ignore[attr-defined]
    else:
        workers = [pid for pid, name in children(process.pid) if "Worker" in name]
        if not workers:
            return 0
        os.kill(chance.choice(workers), signal.SIGKILL)
    return 1
