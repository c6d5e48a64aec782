"""Knowledge Matters: solved without hints, the published comparison, and which part should be taught.

    python docs/experiments/knowledge_matters.py --out runs/knowledge-matters [--part solve|generic|table|longer|teach]
    [--minutes 9]

Units of work run one by one and are saved in the folder, so the same command resumes after an interruption; with
--minutes it stops by itself after the current unit (or checkpoint). At the end it prints the tables of
docs/experiments/knowledge-matters.md and draws their figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractionate.files import write_text
from fractionate.testbeds.ceilings import pentomino_ceilings
from fractionate.testbeds.pentomino.baselines import PUBLISHED_ERROR, run_baseline
from fractionate.testbeds.pictures import plot_curves, read_curve
from fractionate.testbeds.tasks import PentominoTask, TrainSettings
from fractionate.testbeds.training import train

Unit = tuple[str, Callable[[Path], Any]]
SIZES = (20_000, 40_000, 80_000)
PARTS = ("solve", "generic", "table", "longer", "teach")
SOLVE_DATA, SOLVE_SEEDS = 2, range(20, 25)
"""Data and initial weights that no earlier run used: the learning rate was chosen on seed 0."""
SLOW = 2e-4
"""The learning rate of block-types. At 1e-3 pairs of classes merge and take millions of samples to separate."""
LONGER = 3_000_000


def trained(data: int = 0, **settings: Any) -> Callable[[Path], Any]:
    def work(folder: Path) -> Any:
        say = lambda line: print(f"  {line}", file=sys.stderr, flush=True)  # noqa: E731
        return asdict(train(PentominoTask(data), TrainSettings(batch=128, threads=1, **settings), folder, say))

    return work


def fitted(learner: str, size: int) -> Callable[[Path], Any]:
    def work(folder: Path) -> Any:
        result = asdict(run_baseline(learner, size))
        write_text(json.dumps(result) + "\n", folder / "result.json")
        return result

    return work


def units(part: str) -> Iterator[Unit]:
    if part == "solve":
        for seed in SOLVE_SEEDS:
            settings = {"model": "block-types", "samples": 2_000_000, "stop_at": 0.9995, "seed": seed}
            yield f"solve/{seed}", trained(SOLVE_DATA, learning_rate=SLOW, **settings)
    if part == "generic":
        for norm in (0, 1):
            options = {"width": 16, "types": 64, "norm": norm}
            yield (
                f"generic/norm-{norm}",
                trained(model="conv-types", model_options=options, samples=400_000, stop_at=0.9995),
            )
    if part == "table":
        for size in SIZES:
            for learner in ("svm-linear", "svm-rbf", "knn", "tree", "forest"):
                if (learner, size) not in CUT:
                    yield f"table/{learner}-{size}", fitted(learner, size)
            yield (
                f"table/mlp-{size}",
                trained(model="mlp", model_options={"hidden": 512}, train_size=size, samples=100_000),
            )
            for teach in ("none", "divide"):
                settings = {"model": "two-tier", "train_size": size, "samples": 600_000, "teach": teach}
                yield f"table/two-tier-{teach}-{size}", trained(**settings)
            settings = {"model": "block-types", "train_size": size, "samples": 600_000}
            yield f"table/block-types-{size}", trained(**settings)
            yield f"table/block-types-slow-{size}", trained(learning_rate=SLOW, **settings)
    if part == "longer":
        for size in SIZES:
            for teach in ("none", "divide"):
                settings = {"model": "two-tier", "train_size": size, "samples": LONGER, "teach": teach}
                yield f"longer/two-tier-{teach}-{size}", trained(**settings)
    if part == "teach":
        for seed in range(3):
            for teach in ("none", "divide", "solve", "both"):
                settings = {"model": "block-types", "samples": 300_000, "teach": teach, "validate_every": 10_000}
                yield f"teach/{teach}-{seed}", trained(seed=seed, **settings)
                yield f"teach-slow/{teach}-{seed}", trained(seed=seed, learning_rate=SLOW, **settings)


CUT = {("svm-rbf", 40_000), ("svm-rbf", 80_000)}
"""Time grows with the square of the images: about 10 and 40 minutes of one core."""


def results(out: Path) -> dict[str, Any]:
    found = sorted(out.glob("*/*/result.json"))
    return {str(path.parent.relative_to(out)): json.loads(path.read_text(encoding="utf-8")) for path in found}


def report(out: Path) -> None:
    done = results(out)
    print("| seed | samples | test accuracy (95 %) | stage | CPU seconds |\n| --- | --- | --- | --- | --- |")
    for name, one in done.items():
        if name.startswith(("solve", "generic")):
            print(
                f"| {name} | {one['samples']:,} | {one['accuracy']:.4f} ({one['ci_low']:.4f}–{one['ci_high']:.4f}) "
                f"| {one['stage']} | {one['cpu_seconds']:.0f} |"
            )
    print("\n| learner | 20k | 40k | 80k | published 20k / 40k / 80k |\n| --- | --- | --- | --- | --- |")
    learners = (
        "svm-linear",
        "svm-rbf",
        "knn",
        "tree",
        "forest",
        "mlp",
        "two-tier-none",
        "two-tier-divide",
        "block-types",
        "block-types-slow",
    )
    for part, learner in [*(("table", name) for name in learners), ("longer", learners[6]), ("longer", learners[7])]:
        cells = [_error(done.get(f"{part}/{learner}-{size}")) for size in SIZES]
        name, _, teach = learner.rpartition("-")
        published = PUBLISHED_ERROR.get((name, teach), {})
        shown = " / ".join(f"{100 * published[size]:.4g} %" for size in SIZES) if published else ""
        print(f"| {learner}{', longer' * (part == 'longer')} | {' | '.join(cells)} | {shown} |")
    for part in ("teach", "teach-slow"):
        _taught(out, part)


def _taught(out: Path, part: str) -> None:
    """Print and draw how fast each kind of hints reaches which accuracy."""
    print(
        f"\n| {part} | samples to 0.9, by seed | to 0.995 | final test accuracy, by seed |\n| --- | --- | --- | --- |"
    )
    curves: dict[str, list[Any]] = {}
    for teach in ("none", "divide", "solve", "both"):
        folders = sorted(out.glob(f"{part}/{teach}-*/result.json"))
        curves[teach] = [read_curve(path.parent) for path in folders]
        firsts = [
            ", ".join(next((f"{samples:,.0f}" for samples, value in c if value >= level), "–") for c in curves[teach])
            for level in (0.9, 0.995)
        ]
        finals = [f"{json.loads(path.read_text(encoding='utf-8'))['accuracy']:.4f}" for path in folders]
        print(f"| {teach} | {' | '.join(firsts)} | {', '.join(finals)} |")
    if all(curves.values()):
        plot_curves(curves, pentomino_ceilings(), out / f"{part}.png")


def _error(one: Any) -> str:
    if one is None:
        return "–"
    if "error" in one:
        error, low, high = one["error"], one["ci_low"], one["ci_high"]
    else:
        error, low, high = 1 - one["accuracy"], 1 - one["ci_high"], 1 - one["ci_low"]
    return f"{100 * error:.2f} % ({100 * low:.2f}–{100 * high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/knowledge-matters"))
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no unit after this many minutes")
    parser.add_argument("--only", default="", help="only units whose name contains this")
    parser.add_argument("--report", action="store_true", help="only print existing results")
    args = parser.parse_args()
    started = time.monotonic()
    for part in [] if args.report else args.part or PARTS:
        for name, work in units(part):
            if args.only not in name or (args.out / name / "result.json").is_file():
                continue
            if time.monotonic() - started > 60 * args.minutes:
                print("time is up: repeat the command to continue", file=sys.stderr)
                return
            print(name, file=sys.stderr, flush=True)
            work(args.out / name)
    report(args.out)


if __name__ == "__main__":
    main()
