"""Samples per CPU-second of the testbeds' generators, and the ratio to the original generators.

    python benchmarks/testbeds.py [--samples 8192] [--rounds 3] [--check] [--statistics]

Prints a row for each setting: the best of some rounds in this one process. CPU time is measured instead of wall time,
so that load on the machine matters less; memory bandwidth and caches are still shared. The originals' figures are those
of the released generators on one core of the reference's machine (All-Pairs' `grid_generator.py` and Arcade-Universe's
pentominoes), so a ratio compares two machines and not one run. `--check` exits with 1 below ten times. `--statistics`
prints instead the statistics of 10,000 samples of each setting, as shares.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from typing import Any

from fractionate.testbeds.allpairs.generator import CHUNK, AllPairs
from fractionate.testbeds.pentomino.generator import Pentomino

ORIGINAL = {"allpairs 2-2": 1558, "allpairs 3-3": 963, "allpairs 4-4": 671, "allpairs 5-5": 417, "allpairs 8-8": 162}
PENTOMINO = 1065


def source_of(name: str) -> Any:
    numbers = name.rpartition(" ")[2].split("-")
    return Pentomino() if name == "pentomino" else AllPairs(int(numbers[0]), int(numbers[1]))


def statistics() -> None:
    print(f"{'setting':<14}{'true':>8}{'inked pixels':>14}{'mean light':>12}{'scenes redrawn':>16}")
    for name in (*ORIGINAL, "pentomino"):
        source, true, ink, light, redrawn = source_of(name), 0, 0.0, 0.0, 0
        for start in range(0, 10_000, 500):
            batch = source.take(start, 500)
            true += int(batch.labels.sum())
            ink += float((batch.images > 0).mean()) / 20
            light += float(batch.images.mean()) / 20 / (1 if name == "pentomino" else 255)
            redrawn += int((batch.rejected if name == "pentomino" else batch.redrawn).sum())
        share = redrawn / (10_000 + redrawn)
        print(f"{name:<14}{true / 10_000:>8.4f}{ink:>14.4f}{light:>12.4f}{share:>16.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--statistics", action="store_true")
    args = parser.parse_args()
    if args.statistics:
        statistics()
        return
    print(f"{'setting':<14}{'samples per CPU-second':>24}{'original':>10}{'ratio':>8}{'peak MB':>9}")
    slow = []
    for name, original in {**ORIGINAL, "pentomino": PENTOMINO}.items():
        source = source_of(name)
        size = 4 * CHUNK if name == "pentomino" else CHUNK
        source.take(0, size)  # tables are created once
        best = 0.0
        for _ in range(args.rounds):
            started = time.process_time()
            for start in range(0, args.samples, size):
                source.take(start, size)
            best = max(best, -(-args.samples // size) * size / (time.process_time() - started))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:<14}{best:>24,.0f}{original:>10,}{best / original:>8.1f}{peak:>9.0f}", flush=True)
        if best < 10 * original:
            slow.append(name)
    if args.check and slow:
        sys.exit(f"below ten times the original: {', '.join(slow)}")


if __name__ == "__main__":
    main()
