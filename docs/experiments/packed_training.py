"""How does training on several questions of one passage in one step affect a student? See packed-training.md.

    python docs/experiments/packed_training.py [--out DIR] [--seeds 0 1 2] [--together 0 4 8] [--report]

Each seed draws 192 training questions on 24 passages of atlas, a recorded teacher with flaws, and test questions on
other passages. An E-A student of SmolLM2-135M is trained on the same examples with the demo's settings, several times:
with 0 examples of a passage grouped (each example on its own, in order of length), or with that many in a step. It is
evaluated by its loss on 128 test examples of 16 passages and by its answers to 64 questions of a passage each. Finished
work is not repeated; --report only prints existing results.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from fractionate import Config, Run, datasets
from fractionate.cli.demo import MODEL, TEACHER_FLAWS
from fractionate.config import ModelOptions, TrainConfig
from fractionate.datasets.atlas.teacher import write_recording
from fractionate.files import write_text
from fractionate.models.local.model import LocalModel, load_model, load_tokenizer
from fractionate.models.local.weights import resolve
from fractionate.run.training import examples_for
from fractionate.statistics import wilson
from fractionate.students import batching
from fractionate.students.batching import batcher_for
from fractionate.students.checkpoints import dev_loss
from fractionate.students.train import train_student
from fractionate.students.training_data import training_rows
from fractionate.types import Example, Problem, Request

TRAIN, ASKED, PER_PASSAGE, JUDGED = 192, 64, 8, 128
"""Training questions; test questions of a passage each; atlas' questions on a passage; test examples for the loss."""
SETTINGS = TrainConfig(learning_rate=2e-3, batch_size=8)


def make_examples(folder: Path, seed: int) -> tuple[list[Example], list[Example], list[tuple[Example, Problem]]]:
    """Return training examples, examples for the test loss, and questions of one passage each with their problems."""
    base = seed % 2 * ASKED * PER_PASSAGE
    learnt = f"atlas#train-{seed}@0-{TRAIN - 1}" if seed else f"atlas#train@0-{TRAIN - 1}"
    held_out = f"atlas#test@{base}-{base + ASKED * PER_PASSAGE - 1}"
    train, test = datasets.load(learnt), datasets.load(held_out)
    elsewhere = f"atlas#test@{2 * ASKED * PER_PASSAGE}-{2 * ASKED * PER_PASSAGE}"
    folder.mkdir(parents=True, exist_ok=True)
    write_recording(
        folder / "teacher.jsonl",
        [*train, *test, *datasets.load(elsewhere)],
        samples=2,
        flaw_rate=TEACHER_FLAWS,
        seed=seed,
    )
    # The recorded teacher demonstrates the test questions as well, so training and test examples are made alike.
    config = Config.model_validate(
        {
            "data": {"train": [learnt, held_out], "test": [elsewhere]},
            "models": {"teacher": f"recorded:{folder / 'teacher.jsonl'}", "student": MODEL},
            "run": {"variants": ["E-A"], "strategies": ["static"], "samples": 2, "decomposer_context": False},
        }
    )
    with Run(config, folder / "run") as run:
        examples, _ = examples_for(run, run.names.students[0], run.demonstrate(), ())
    made = {example.problem_id: example for example in examples}
    asked = {problem.id: problem for problem in test[seed // 2 :: PER_PASSAGE]}
    return (
        [made[one.id] for one in train],
        [made[one.id] for one in test[:JUDGED]],
        [(made[key], one) for key, one in asked.items()],
    )


def try_one(folder: Path, seed: int, together: int) -> None:
    """Train and evaluate one student, unless its result exists."""
    student, outcome = folder / f"together-{together}", folder / f"together-{together}.json"
    if outcome.is_file():
        return
    train, test, asked = make_examples(folder, seed)
    settings = SETTINGS.model_copy(update={"share_passages": together > 0})
    batching.PASSAGE_SHARE = together / settings.batch_size or batching.PASSAGE_SHARE
    at, worked = time.perf_counter(), time.process_time()
    report = train_student(MODEL, train, student, settings, seed)
    spent = {"seconds": time.perf_counter() - at, "cpu_seconds": time.process_time() - worked}
    row: dict[str, Any] = {**spent, "losses": [report.loss_first, report.loss_last]}

    weights = resolve(f"{MODEL}@{student}")
    tokenizer, model = load_tokenizer(weights.folder()), load_model(weights, "cpu")
    judged = training_rows(tokenizer, test, settings.max_length)
    reading = batcher_for(model, tokenizer, [judged], SETTINGS.model_copy(update={"share_passages": True}))
    with reading.prepared(model):
        row["test_loss"] = dev_loss(model, judged, reading)
    del model
    answering = LocalModel(f"{MODEL}@{student}", ModelOptions(device="cpu"))
    requests = [Request(example.messages, "solver", max_tokens=64) for example, _ in asked]
    atlas, right = datasets.get("atlas"), {}
    for batch in answering.plan(requests):
        for place, reply in zip(batch, answering.complete_batch([requests[at] for at in batch]), strict=True):
            problem = asked[place][1]
            right[problem.id] = atlas.score(atlas.extract(reply.text), problem.answers).exact_match
    row["exact_match"] = right
    write_text(json.dumps(row) + "\n", outcome)
    print(
        f"seed {seed}, {together} together: loss {row['test_loss']:.4f}, {np.mean(list(right.values())):.1%}",
        flush=True,
    )


def report(out: Path) -> None:
    """Print the results and the effect of a passage's questions in one step; the independent unit is the seed."""
    print("| seed | examples of a passage in a step | test loss | exact match (95 %) | CPU seconds |")
    print("| --- | --- | --- | --- | --- |")
    measured: dict[str, dict[str, tuple[float, float]]] = {}
    for path in sorted(out.glob("seed-*/together-*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        right = list(row["exact_match"].values())
        low, high = wilson(int(sum(right)), len(right), 0.95)
        seed, together = path.parent.name[5:], path.stem[9:]
        measured.setdefault(together, {})[seed] = row["test_loss"], float(np.mean(right))
        print(
            f"| {seed} | {together} | {row['test_loss']:.4f} | {np.mean(right):.1%} ({low:.1%} to "
            f"{high:.1%}, n = {len(right)}) | {row['cpu_seconds']:.0f} |"
        )
    alone = measured.pop("0", {})
    for together, rows in measured.items():
        seeds = sorted(rows.keys() & alone.keys())
        if len(seeds) > 1:
            loss, match = np.array([np.subtract(rows[seed], alone[seed]) for seed in seeds]).T
            print(
                f"\n{together} of a passage against 0, {len(seeds)} seeds: loss {_mean(loss, 1, 4)}, exact match "
                f"{_mean(match, 100, 1)} percentage points"
            )


def _mean(differences: Any, times: float, digits: int) -> str:
    """Return the mean of the seeds' differences and its interval (Student's t)."""
    low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return f"{times * differences.mean():+.{digits}f} ({times * low:+.{digits}f} to {times * high:+.{digits}f})"


def main() -> None:
    """Run the missing trainings and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/packed-training"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--together", type=int, nargs="+", default=[0, 4, 8])
    parser.add_argument("--report", action="store_true", help="only print existing results")
    arguments = parser.parse_args()
    for seed in [] if arguments.report else arguments.seeds:
        for together in arguments.together:
            try_one(arguments.out / f"seed-{seed}", seed, together)
    report(arguments.out)


if __name__ == "__main__":
    main()
