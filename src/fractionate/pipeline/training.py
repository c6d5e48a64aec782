"""Training the students of a run: examples in, one folder a student out; what is trained already is kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fractionate.distill.demonstrate import Demonstration
from fractionate.distill.examples import VARIANTS, build_examples
from fractionate.errors import FractionateError, missing_extra
from fractionate.pipeline.folder import write_rows
from fractionate.pipeline.run import Run
from fractionate.types import Example


def check_trainer() -> None:
    """Raise the error of a missing extra before anything is paid for."""
    for package in ("torch", "transformers", "trl", "peft", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train", "training a student")


def train_students(run: Run, demonstrations: Sequence[Demonstration]) -> None:
    """Train every variant of the run. Raises FractionateError where a variant has no example to learn from."""
    forms = {problem.dataset: run.dataset(problem.dataset).answer_form for problem in run.train.values()}
    for variant in run.variants:
        examples, left_out = build_examples(
            variant, run.train, forms, demonstrations, with_context=run.config.run.decomposer_context
        )
        wanted = run.config.train.max_examples
        if wanted and len(examples) > wanted:
            left_out["over train.max_examples"] = len(examples) - wanted
            examples = examples[:wanted]
        because = "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))
        if not examples:
            raise FractionateError(f"student {variant} has no example to learn from{because}")
        run.notes.add(f"Student {variant} ({VARIANTS[variant].role}) learnt from {len(examples)} examples{because}.")
        _train(run, variant, examples)


def _train(run: Run, variant: str, examples: Sequence[Example]) -> None:
    folder = run.folder.student(variant)
    digest = _digest(run, examples)
    if _trained_with(folder) == digest:
        run.progress.stage(f"train {variant}: kept, already trained on these {len(examples)} examples")
        return
    from fractionate.distill.train import train_student

    run.progress.stage(f"train {variant}: {run.config.models.student} on {len(examples)} examples")
    folder.parent.mkdir(parents=True, exist_ok=True)
    report = train_student(
        run.config.models.student,
        examples,
        folder,
        run.config.train,
        run.config.run.seed,
        lambda step, steps, loss: run.progress.step(f"step {step} of {steps}, loss {loss:.3f}"),
    )
    write_rows(folder / "examples.jsonl", (asdict(example) for example in examples))
    (folder / "inputs.sha256").write_text(digest + "\n", encoding="utf-8")
    run.progress.stage(
        f"  loss {report.loss_first:.3f} → {report.loss_last:.3f}, {report.tokens} tokens in {report.seconds:.0f} s"
    )


def _digest(run: Run, examples: Sequence[Example]) -> str:
    """Return what decides a student: its base, examples, settings and seed."""
    decisive = [
        run.config.models.student,
        [[list(example.messages), example.target] for example in examples],
        run.config.train.model_dump(mode="json"),
        run.config.run.seed,
    ]
    return hashlib.sha256(json.dumps(decisive, ensure_ascii=False).encode()).hexdigest()


def _trained_with(folder: Path) -> str:
    try:
        return (folder / "inputs.sha256").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
