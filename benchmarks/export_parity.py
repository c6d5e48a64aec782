"""Agreement of exports with the students of a run: identical greedy replies, file sizes, seconds.

    fractionate demo                                            # trains the students of the figures in the guide
    python benchmarks/export_parity.py fractionate-demo [STUDENT ...]

Prints a row per file and runtime. Nothing is kept. llama.cpp is measured if it is installed (extra llamacpp).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fractionate.errors import FractionateError
from fractionate.export import write
from fractionate.export.gguf import TYPES
from fractionate.export.parity import NEEDED, Parity
from fractionate.export.student import open_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("students", nargs="*", default=["D-R", "E-A"])
    arguments = parser.parse_args()
    print("| student | file | by | prompts | identical | ties | MB | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.students:
        for kind in ("safetensors", *TYPES):
            measure(arguments.run, name, kind)


def measure(run: Path, name: str, kind: str) -> None:
    """Export once and print the result; an export that would be refused is printed too."""
    found: list[Parity] = []
    wanted = write.Wanted(kind="safetensors" if kind == "safetensors" else "gguf", types=(kind,), name="student")

    def keep(parity: Parity, say: object) -> Parity:
        found.append(parity)
        return parity

    write._passed = keep
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        try:
            out = write.export_student(open_student(run, name), Path(folder) / "student", wanted, print_nothing).folder
        except FractionateError as error:
            print(f"| {name} | {kind} | {error} | | | | | |")
            return
        seconds = time.monotonic() - began
        sizes = {file.name: file.stat().st_size / 1e6 for file in out.iterdir()}
    for one in found:
        refused = "" if one.passed else f" (refused: under {NEEDED[one.stored]:.0%})"
        print(
            f"| {name} | {one.file} | {one.by} | {one.prompts} | {one.identical}{refused} | {one.ties} | "
            f"{sizes[one.file]:.0f} | {seconds:.0f} |",
            flush=True,
        )


def print_nothing(line: str) -> None:
    """Print no steps."""


if __name__ == "__main__":
    main()
