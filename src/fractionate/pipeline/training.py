"""Training the students of a run: examples in, one folder a student out; what is trained already is kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fractionate.config import StudentConfig
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
    """Train every student of the run. Raises FractionateError where one has no example to learn from."""
    forms = {problem.dataset: run.dataset(problem.dataset).answer_form for problem in run.train.values()}
    for name in run.students:
        student, problems = run.student(name), run.train_of(name)
        own = [one for one in demonstrations if one.problem_id in problems]
        examples, left_out = build_examples(
            student.variant, problems, forms, own, with_context=run.config.run.decomposer_context
        )
        if student.max_examples and len(examples) > student.max_examples:
            left_out["over max_examples"] = len(examples) - student.max_examples
            examples = examples[: student.max_examples]
        because = "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))
        if not examples:
            raise FractionateError(f"student {name} has no example to learn from{because}")
        role = VARIANTS[student.variant].role
        called = role if name == student.variant else f"{student.variant}, {role}"
        run.notes.add(f"Student {name} ({called}) learnt from {len(examples)} examples{because}.")
        _train(run, name, student, examples)


def _train(run: Run, name: str, student: StudentConfig, examples: Sequence[Example]) -> None:
    folder = run.folder.student(name)
    digest = _digest(run, student, examples)
    if _trained_with(folder) == digest:
        run.progress.stage(f"train {name}: kept, already trained on these {len(examples)} examples")
        return
    from fractionate.distill.train import train_student

    run.progress.stage(f"train {name}: {student.base} on {len(examples)} examples")
    folder.parent.mkdir(parents=True, exist_ok=True)
    report = train_student(
        student.base,
        examples,
        folder,
        run.config.train,
        student.seed or 0,
        lambda step, steps, loss: run.progress.step(f"step {step} of {steps}, loss {loss:.3f}"),
    )
    write_rows(folder / "examples.jsonl", (asdict(example) for example in examples))
    (folder / "inputs.sha256").write_text(digest + "\n", encoding="utf-8")
    run.progress.stage(
        f"  loss {report.loss_first:.3f} → {report.loss_last:.3f}, {report.tokens} tokens in {report.seconds:.0f} s"
    )


def _digest(run: Run, student: StudentConfig, examples: Sequence[Example]) -> str:
    """Return what decides a student: its base, examples, settings and seed."""
    decisive = [
        student.base,
        [[list(example.messages), example.target] for example in examples],
        run.config.train.model_dump(mode="json"),
        student.seed,
    ]
    return hashlib.sha256(json.dumps(decisive, ensure_ascii=False).encode()).hexdigest()


def _trained_with(folder: Path) -> str:
    try:
        return (folder / "inputs.sha256").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
