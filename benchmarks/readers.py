"""Time every reader of model text on texts that are slow to read, and print the slowest readings.

    python benchmarks/readers.py [--characters 1000000] [--seconds 1.0] [--reader numbers] [--slowest 20]

The readers and the pieces that the texts repeat are those of tests/scoring/adversarial.py, whose test compares the work
for n characters with that for 4n. Figures are seconds of processor time. Exit 1 if a reader exceeded --seconds on any
text or failed on one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "scoring"))

from adversarial import READERS, texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=1_000_000, help="length of each text (default 1,000,000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time of a reading (default 1)")
    parser.add_argument("--reader", choices=list(READERS), action="append", help="only this reader; repeatable")
    parser.add_argument("--slowest", type=int, default=20, help="number of the slowest readings to print (default 20)")
    arguments = parser.parse_args()
    read_by = {name: READERS[name] for name in arguments.reader or READERS}
    timed: list[tuple[float, str, str]] = []
    failed = 0
    for reader, read in read_by.items():
        read("The answer is 5.")  # Imports happen now, so that no reading includes them.
        begun = len(timed)
        for text, written in texts(arguments.characters).items():
            start = time.process_time()
            try:
                read(written)
            except Exception as error:
                failed += 1
                print(f"FAILED: {reader} on {text}: {type(error).__name__}: {error}")
            timed.append((time.process_time() - start, reader, text))
        slowest = max(timed[begun:])
        print(f"{reader}: {len(timed) - begun} texts, slowest {slowest[0]:.2f} s on {slowest[2]}", flush=True)
    timed.sort(reverse=True)
    for seconds, reader, text in timed[: arguments.slowest]:
        print(f"{seconds:6.2f} s  {reader}: {text}")
    late = sum(seconds > arguments.seconds for seconds, _, _ in timed)
    print(
        f"{len(timed)} readings of {arguments.characters:,} characters: {late} took longer than {arguments.seconds} s"
    )
    return 1 if late or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
