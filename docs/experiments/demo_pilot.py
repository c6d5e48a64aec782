"""How much training does the demo's decomposer need? Trainings on other questions than the demo's.

    .venv/bin/python docs/experiments/demo_pilot.py --passes 256x1/4 256x1/2 [--test 96] [--out runs/demo-pilot]

Trains D-R as the demo does, on `atlas-closed#train-1` (the demo takes `#train`), and measures it with `tool:atlas` on
`atlas-closed#test-1`. A size EXAMPLESxEPOCHS/BATCH is one training. Prints right answers in %, those of the flawed
teacher on the same questions, and processor seconds of training and of answering.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

from fractionate import datasets
from fractionate.cli import demo
from fractionate.config import load_config
from fractionate.datasets.atlas.teacher import write_recording
from fractionate.files import write_text
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import demonstrate_stage, evaluate_stage, screen_stage, train_stage

SEED = 1
ONLY_THE_DECOMPOSER = {
    'variants = ["D-R", "E-A"]': 'variants = ["D-R"]',
    'solvers = ["tool:atlas", "student", "E-A"]': 'solvers = ["tool:atlas"]',
    'strategies = ["single", "single-cot", "static"]': f'strategies = ["static"]\nseed = {SEED}',
    '["student", "tool:atlas"], ["none", "tool:atlas"],': "",
    '["teacher", "E-A"], ["teacher", "student"], ["none", "E-A"], ["none", "student"],': "",
    "per_hour = 0.05": "input_per_million = 0.01\noutput_per_million = 0.01",
}


def measure(folder: Path, size: str, test: int) -> str:
    """Train and measure one decomposer. Returns a row of the table."""
    examples, _, rest = size.partition("x")
    epochs, _, batch = rest.partition("/")
    RunFolder(folder).create()
    references = f"atlas-closed#train-{SEED}@0-{int(examples) - 1}", f"atlas-closed#test-{SEED}@0-{test * 8 - 8}/8"
    problems = [problem for reference in references for problem in datasets.load(reference)]
    write_recording(folder / "teacher.jsonl", problems, samples=2, flaw_rate=demo.TEACHER_FLAWS, seed=SEED)
    config = demo.config_text(folder, demo.CLOSED_BOOK, *references, demo.CLOSED_BOOK.full.max_tokens)
    for old, new in ONLY_THE_DECOMPOSER.items():
        assert old in config, f"the demo's config no longer holds {old}"
        config = config.replace(old, new)
    changed = {"epochs": epochs, "batch_size": batch}
    head, _, tail = config.partition("[train]")
    lines = [f"{line.split(' =')[0]} = {changed.get(line.split(' =')[0], line.partition(' = ')[2])}"
             if " = " in line else line for line in tail.splitlines()]  # fmt: skip
    write_text(head + "[train]" + "\n".join(lines) + "\n", folder / "pilot.toml")
    with Run(load_config(folder / "pilot.toml"), folder, folder.resolve(), Progress()) as run:
        demonstrate_stage(run)
        screen_stage(run)
        before = processor_seconds()
        train_stage(run)
        trained = processor_seconds()
        cells = evaluate_stage(run)
    scores = {cell.decomposer.name: sum(cell.values()) / len(cell.columns) for cell in cells}
    took = f"{trained - before:.0f} | {processor_seconds() - trained:.0f}"
    return f"| {size} | {scores['D-R']:.1%} | {scores['teacher']:.1%} | {test} | {took} |"


def processor_seconds() -> float:
    """Return the processor seconds of this process so far, of all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Train each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", nargs="+", default=["256x1/4"], metavar="EXAMPLESxEPOCHS/BATCH")
    parser.add_argument("--test", type=int, default=96)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-pilot"))
    arguments = parser.parse_args()
    print(
        "| examples x epochs / batch | D-R | teacher | n | training, CPU s | answering, CPU s |\n" + "| --- " * 6 + "|"
    )
    for size in arguments.passes:
        folder = arguments.out / size.replace("/", "-")
        print(measure(folder, size, arguments.test), flush=True)


if __name__ == "__main__":
    main()
