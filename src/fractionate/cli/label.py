"""`fractionate label RUN`: say of a run's outputs whether they are right, to measure and correct its judge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractionate.run.labelling import ToLabel

HELP = "label a run's outputs by hand, to measure and correct its judge"
_ANSWERS: dict[str, Any] = {"y": True, "yes": True, "n": False, "no": False}
_SKIP, _QUIT = ("s", "skip"), ("q", "quit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Show outputs of a run one by one, with question and known answers, and ask whether each is right: y, n,\n"
        "s (skip) or q (quit); where the judge grades 1-5, a grade. Neither the system nor the judge's verdict is\n"
        "shown. Each label is written at once; the same command goes on where it was left. Questions come in random\n"
        "order, and those labelled have to stay a random sample of all: skip only what nobody could judge.\n\n"
        "With 20 labelled questions or more, 'fractionate report' corrects the outcomes by them."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate label runs/mine\n"
        "  fractionate label runs/mine --cell static/teacher/teacher --cell static/D-R/teacher --count 50"
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    parser.add_argument(
        "--cell",
        metavar="NAME",
        action="append",
        default=[],
        help="label outputs of this cell; of all judged ones if none",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the file of labels (default: judge.labels, else labels.jsonl in RUN)"
    )
    parser.add_argument("--count", metavar="N", type=int, default=0, help="stop after N labels")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="draws the order of questions")


def run(args: argparse.Namespace) -> int:
    """Ask for labels until there are enough, or the person quits."""
    from fractionate.analysis.matrix import matrices
    from fractionate.errors import UsageError
    from fractionate.run.attempts import read_measured
    from fractionate.run.folder import RunFolder
    from fractionate.run.labelling import (
        LABELS,
        add_labels,
        append_label,
        labels_path,
        measured,
        to_label,
        worth_labelling,
    )
    from fractionate.run.reporting import load_stored_config
    from fractionate.scoring.labels import read_labels

    if args.count < 0:
        raise UsageError(f"--count must be a number of labels, not {args.count}")
    folder = RunFolder(args.run)
    config = load_stored_config(folder, [])
    tests = matrices(read_measured(folder))
    every = [(matrix.name(cell), cell) for matrix in tests for cell in matrix.cells]
    cells = worth_labelling([cell for _, cell in every], args.cell, [name for name, _ in every])
    file: Path = args.out or labels_path(folder, config) or folder.path / LABELS
    scale, given = config.judge.scale, 0
    for one in to_label(cells, file, args.seed):
        answer = _ask(one, scale, given + 1, args.count)
        if answer in _QUIT:
            break
        append_label(file, one.row(answer))
        given += answer is not None
        if args.count and given == args.count:
            break
    print(f"{given} labels written to {file}")
    if file.is_file() and any(cell.judge for cell in cells):
        found = measured(add_labels(cells, read_labels(file, scale), least=1))
        if found:
            print(found.line())
            print(f"next: fractionate report {args.run}")
    return 0


def _ask(one: ToLabel, scale: str, number: int, count: int) -> Any:
    """Return what the person says of an output: a label, None for a skipped one, "q" at the end of the input too."""
    from fractionate.errors import printable, shortened

    problem = one.problem
    known = " | ".join("; ".join(answer) for answer in problem.answers)
    print("\n" + "─" * 60)
    if problem.context:
        print(printable(f"Context: {shortened(problem.context, 1500)}\n"))
    print(printable(f"Question: {problem.question}"))
    if known:
        print(printable(f"Known answers: {known}"))
    print(printable(f"\nOutput:\n{one.output.strip()}\n"))
    asked = "grade 1 to 5" if scale == "1-5" else "right? y/n"
    place = f"{number} of {count}" if count else str(number)
    while True:
        try:
            said = input(f"[{place}] {asked}, s (skip), q (quit): ").strip().lower()
        except EOFError:
            return _QUIT[0]
        if said in _QUIT:
            return _QUIT[0]
        if said in _SKIP:
            return None
        if scale == "1-5" and said in ("1", "2", "3", "4", "5"):
            return int(said)
        if scale != "1-5" and said in _ANSWERS:
            return _ANSWERS[said]
        print(f"  {said!r} is no answer here")
