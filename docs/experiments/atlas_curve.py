"""Does a learning curve of real students predict the outcome at twice the demonstrations? See atlas-curve.md.

    python docs/experiments/atlas_curve.py [--out DIR] [--seeds 0 1 2] [--report]

Each seed draws its own training questions, test questions and recorded teacher, and trains D-R and E-A students of
SmolLM2-135M on 1/8, 1/4, 1/2 and all of 96 questions (`fractionate run --curve`). Then the curve is fitted without its
largest amounts, as a user would have had it, and predicts the omitted ones. Finished work is not repeated; --report
only prints existing results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fractionate import datasets, read_cells
from fractionate.cli.demo import MODEL, TEACHER_FLAWS
from fractionate.datasets.atlas.teacher import write_recording
from fractionate.files import write_text
from fractionate.planning import learning_curve
from fractionate.statistics import wilson
from fractionate.types import Cell

QUESTIONS, TESTS = 96, 64
CONFIG = """\
[data]
train = "{train}"
test = "{test}"
[models]
teacher = "recorded:teacher.jsonl"
solvers = ["{model}"]
decomposers = ["teacher"]
student = "{model}"
[models.options."{model}"]
max_tokens = 64
batch_size = 32
[run]
name = "curve-{seed}"
seed = {seed}
strategies = ["static"]
variants = ["D-R", "E-A"]
pairs = [["teacher", "{model}"], ["D-R", "{model}"], ["teacher", "E-A"]]
samples = 2
decomposer_context = false
[train]
epochs = 1
learning_rate = 2e-3
batch_size = 8
[curve]
"""


def run_seed(folder: Path, seed: int) -> None:
    """Write the config and the recording of a seed, and run it."""
    train = f"atlas#train-{seed}@0-{QUESTIONS - 1}" if seed else f"atlas#train@0-{QUESTIONS - 1}"
    # One question per passage; the third seed uses other questions on the first seed's passages.
    first = seed % 2 * TESTS * 8 + seed // 2
    test = f"atlas#test@{first}-{first + (TESTS - 1) * 8}/8"
    folder.mkdir(parents=True, exist_ok=True)
    problems = [*datasets.load(train), *datasets.load(test)]
    write_recording(folder / "teacher.jsonl", problems, samples=2, flaw_rate=TEACHER_FLAWS, seed=seed)
    write_text(CONFIG.format(train=train, test=test, model=MODEL, seed=seed), folder / "curve.toml")
    command = [sys.executable, "-m", "fractionate", "run", str(folder / "curve.toml"), "--out", str(folder)]
    subprocess.run(command, check=True)


def points(folder: Path, part: str) -> list[tuple[float, Cell]]:
    """Return (training demonstrations, cell) of one part's students, smallest first."""
    found = []
    for cell in read_cells(folder):
        one = cell.decomposer if part == "D-R" else cell.solver
        if one.variant == part:
            name = one.name.replace("@", "~").replace("/", "~")
            training = json.loads((folder / "students" / name / "training.json").read_text(encoding="utf-8"))
            found.append((float(training["examples"]), cell))
    return sorted(found, key=lambda pair: pair[0])


def predicted(measured: list[tuple[float, Cell]]) -> Iterator[tuple[str, float, float, float, float, bool]]:
    """Yield (from, multiple, truth, low, high, held) for each amount that smaller amounts can predict."""
    for last in range(2, len(measured)):
        known = measured[:last]
        outcomes = np.array([cell.values() for _, cell in known])
        curve = learning_curve([amount for amount, _ in known], outcomes)
        for amount, cell in measured[last:]:
            prediction = curve.predict(amount)
            truth = float(np.mean(cell.values()))
            label = ", ".join(f"{one:g}" for one, _ in known)
            multiple = amount / known[-1][0]
            yield label, multiple, truth, prediction.low, prediction.high, prediction.low <= truth <= prediction.high


def report(out: Path) -> None:
    """Print the measured and the predicted outcomes, and how often the interval held."""
    held: dict[tuple[str, str], list[bool]] = {}
    measured_lines, predicted_lines = [], []
    for folder in sorted(out.glob("seed-*")):
        if not (folder / "results.json").is_file():
            continue
        for part in ("D-R", "E-A"):
            measured = points(folder, part)
            shown = " | ".join(f"{np.mean(cell.values()):.1%} ({amount:g})" for amount, cell in measured)
            measured_lines.append(f"| {folder.name} | {part} | {shown} |")
            for known, multiple, truth, low, high, inside in predicted(measured):
                predicted_lines.append(
                    f"| {folder.name} | {part} | {known} | {multiple:.2g}x | {low:.1%} to {high:.1%} | {truth:.1%} | "
                    f"{'yes' if inside else 'NO'} |"
                )
                held.setdefault((part, "2x" if multiple < 3 else "4x"), []).append(inside)
    print("| run | part | 1/8 | 1/4 | 1/2 | all |\n|---|---|---|---|---|---|")
    print("\n".join(measured_lines))
    print("\n| run | part | fitted on | predicted | 90 % interval | measured | held |\n|---|---|---|---|---|---|---|")
    print("\n".join(predicted_lines))
    for (part, multiple), flags in sorted(held.items()):
        low, high = wilson(sum(flags), len(flags), 0.95)
        print(f"\n{part} at {multiple}: {sum(flags)} of {len(flags)} intervals held ({low:.0%} to {high:.0%})")


def main() -> None:
    """Run the missing seeds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/atlas-curve"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="only print existing results")
    arguments = parser.parse_args()
    for seed in [] if arguments.report else arguments.seeds:
        run_seed(arguments.out / f"seed-{seed}", seed)
    report(arguments.out)


if __name__ == "__main__":
    main()
