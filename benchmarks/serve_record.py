"""What keeping a record (`fractionate serve --record`) costs each answer; two gateways, in one run.

    python benchmarks/serve_record.py [--seconds 4] [--rounds 5]

Both serve the same run over a solver that answers at once, as benchmarks/serve.py has it; one of them records. They
take turns within a round. Printed are medians over rounds: milliseconds of one client's requests, requests to 32
clients per second of the gateway's processor time, and the ratios of the one that records to the other. The record is
read back: every answered request must be in it.
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
from serve import gateway, many_clients, one_client, solver

NAMES = ("without", "with a record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
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
        milliseconds: dict[str, list[float]] = {name: [] for name in NAMES}
        rates: dict[str, list[float]] = {name: [] for name in NAMES}
        answered = 0
        for _ in range(arguments.rounds):
            for name, target in targets:
                took = asyncio.run(one_client(target, arguments.seconds))
                count, used = asyncio.run(many_clients(target, arguments.seconds))
                milliseconds[name].append(1000 * statistics.median(took))
                rates[name].append(count / max(used, 1e-9))
                answered += (len(took) + count) * (name == NAMES[1])
        kept = -1
        while kept < (kept := len(read_exchanges(record))):  # until nothing more is written
            time.sleep(0.5)
    print("| gateway | median ms | requests/s a core |\n|---|---:|---:|")
    for name in NAMES:
        print(f"| {name} | {statistics.median(milliseconds[name]):.2f} | {statistics.median(rates[name]):,.0f} |")
    plain, recording = NAMES
    slower = statistics.median(a / b for a, b in zip(milliseconds[recording], milliseconds[plain], strict=True))
    dearer = statistics.median(b / a for a, b in zip(rates[recording], rates[plain], strict=True))
    print(f"\nratios: {slower:.2f} of the time to an answer, {dearer:.2f} of the processor time an answer")
    print(f"{kept} of {answered} answered requests are in the record")


if __name__ == "__main__":
    main()
