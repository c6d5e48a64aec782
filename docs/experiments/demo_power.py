"""How many test questions does the demo need for a verdict? Power by resampling a pilot on other questions and seeds.

    .venv/bin/python docs/experiments/demo_power.py [--out runs/demo-pilot] [--sizes 48 64 80 96]

Runs the demo's own config on training questions 1000-1191 and other test questions, all with seed 1 (about 20 minutes
on two cores; a repeated run makes no call). Then it draws questions with replacement from the passages that the demo
does not use, applies the whole rule to each draw, and prints how often the recommendation equals the pilot's.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fractionate import datasets, read_cells
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import Rule
from fractionate.analysis.verdict import decide
from fractionate.cli import demo
from fractionate.config import load_config
from fractionate.datasets.atlas.teacher import write_recording
from fractionate.files import write_text
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress
from fractionate.run.records import read_throughput
from fractionate.run.run import Run
from fractionate.run.stages import run_everything
from fractionate.statistics import wilson
from fractionate.types import Cell

TRAIN, TEST, SEED = "atlas#train@1000-1191", "atlas#test@519-1279/8", 1
OTHERS = demo.OPEN_BOOK.full.test * demo.PER_PASSAGE
"""The first test row of a passage that the demo does not use."""


def pilot(folder: Path) -> Path:
    """Write the pilot's config and its teacher's recording. Returns the config's path."""
    RunFolder(folder).create()
    problems = [*datasets.load(TRAIN), *datasets.load(TEST)]
    write_recording(folder / "teacher.jsonl", problems, samples=2, flaw_rate=demo.TEACHER_FLAWS, seed=SEED)
    config = demo.config_text(folder, demo.OPEN_BOOK, TRAIN, TEST, demo.OPEN_BOOK.full.max_tokens)
    write_text(config.replace("samples = 2\n", f"samples = 2\nseed = {SEED}\n"), folder / "pilot.toml")
    return folder / "pilot.toml"


def of_other_passages(cell: Cell) -> Cell:
    """Return a cell without the demo's passages."""
    return replace(cell, attempts=tuple(one for one in cell.attempts if one.problem.index >= OTHERS))


def drawn(cells: Sequence[Cell], size: int, rng: random.Random) -> list[Cell]:
    """Return the cells over questions drawn with replacement, the same questions in each."""
    count = len(cells[0].attempts)
    places = [rng.randrange(count) for _ in range(size)]
    return [
        replace(
            cell,
            attempts=tuple(
                replace(one, problem=replace(one.problem, id=f"{one.problem.id}/{turn}", context="", group=str(turn)))
                for turn, one in enumerate(cell.attempts[place] for place in places)
            ),
        )
        for cell in cells
    ]


def main() -> None:
    """Run the pilot and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-pilot"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 64, 80, 96])
    parser.add_argument("--draws", type=int, default=400)
    arguments = parser.parse_args()
    config = load_config(pilot(arguments.out))
    with Run(config, arguments.out, arguments.out.resolve(), Progress()) as run:
        results = run_everything(run)
    print(f"pilot: {results['verdict']['because']}\n")
    cells = [of_other_passages(cell) for cell in read_cells(arguments.out)]
    pricing, rule = Pricing.of(config, read_throughput(RunFolder(arguments.out))), Rule.of(config)
    print("| questions | " + " | ".join(("same verdict (95 %)", "other verdicts")) + " |\n| --- | --- | --- |")
    for size in arguments.sizes:
        rng = random.Random(size)
        found = Counter(decide(drawn(cells, size, rng), pricing, rule).distill for _ in range(arguments.draws))
        same = found.pop(results["verdict"]["distill"], 0)
        low, high = wilson(same, arguments.draws)
        others = ", ".join(f"{name} {count / arguments.draws:.0%}" for name, count in found.most_common())
        print(f"| {size} | {same / arguments.draws:.0%} ({low:.0%} to {high:.0%}) | {others or '–'} |")


if __name__ == "__main__":
    main()
