"""The cost of a record (`fractionate serve --record`) per answer: two gateways, in one run.

    python benchmarks/serve_record.py [--seconds 4] [--rounds 7]

Both serve the same run over a solver that answers at once, as in benchmarks/serve.py; one of them records. They take
turns within a round, with 32 clients. Printed are the gateway's processor time per answer (of all its threads,
including the writer), as the median over rounds with the lowest and the highest, and the ratio of the two. Wall time is
not used. The record is read back: every answered request must be in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from fractionate.datasets.traffic import read_exchanges
from serve import gateway, many_clients, solver

NAMES = ("without a record", "with a record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        bare = stack.enter_context(solver())
        url = f"http://127.0.0.1:{bare.port}/v1"
        record = Path(folder) / "traffic.jsonl"
        targets = []
        for name, options in zip(NAMES, ((), ("--record", str(record))), strict=True):
            base = Path(folder) / name.replace(" ", "-")
            base.mkdir()
            targets.append((name, stack.enter_context(gateway(url, base, *options))))
        costs: dict[str, list[float]] = {name: [] for name in NAMES}
        answered = 0
        for _ in range(arguments.rounds):
            for name, target in targets:
                count, used = asyncio.run(many_clients(target, arguments.seconds))
                costs[name].append(1000 * used / count)
                answered += count * (name == NAMES[1])
        kept = -1
        while kept < (kept := len(read_exchanges(record))):  # until the writer is done
            time.sleep(0.5)
    print("| gateway | processor ms an answer | lowest to highest |\n|---|---:|---:|")
    for name in NAMES:
        spread = f"{min(costs[name]):.2f} to {max(costs[name]):.2f}"
        print(f"| {name} | {statistics.median(costs[name]):.2f} | {spread} |")
    plain, recording = NAMES
    ratios = [a / b for a, b in zip(costs[recording], costs[plain], strict=True)]
    print(f"\nratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over rounds)")
    print(f"{kept} of {answered} answered requests are in the record")


if __name__ == "__main__":
    main()
