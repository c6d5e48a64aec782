"""Training the students of a run: examples in, one folder per student out; what is trained already is kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fractionate.distill.demonstrate import Demonstration
from fractionate.distill.examples import VARIANTS, build_examples, nested_share
from fractionate.errors import missing_extra
from fractionate.files import write_text
from fractionate.names import Student
from fractionate.pipeline.folder import write_rows
from fractionate.pipeline.run import Run
from fractionate.types import Example


def check_trainer() -> None:
    """Raise the error of a missing extra before anything is paid for."""
    for package in ("torch", "transformers", "trl", "peft", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train", "training a student")


def train_students(run: Run, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration]) -> None:
    """Train every student of the run. One that there is no example for is left out, and said so."""
    sizes: set[tuple[str, int]] = set()
    for student in run.names.students:
        examples, left_out = examples_for(run, student, demonstrations, screened)
        if student.share < 1 and examples and (student.whole, len(examples)) in sizes:
            _leave_out_of_curve(run, student, len(examples))
            continue
        sizes.add((student.whole, len(examples)))
        because = "".join(f"; {count} left out: {reason}" for reason, count in sorted(left_out.items()))
        if not examples:
            run.progress.stage(f"train {student.name}: left out, there is no example to learn from{because}")
            run.folder.leave_out(student.name, "there is no example to learn from" + because)
            run.notes.warn(f"Student {student.name} was not trained: there is no example to learn from{because}.")
            continue
        run.folder.leave_out(student.name, "")
        learnt, too_long = _train(run, student, examples)
        if too_long:
            because += f"; {too_long} left out: longer than train.max_length"
        called = student.role if student.whole == student.variant else f"{student.variant}, {student.role}"
        run.notes.add(f"Student {student.name} ({called}) learnt from {learnt} examples{because}.")


def _leave_out_of_curve(run: Run, student: Student, examples: int) -> None:
    """Leave out a share so small that it is no other amount: it would look like one more training on its own."""
    reason = f"{student.share} of its demonstrations are {examples}, as many as another share of them is"
    run.progress.stage(f"train {student.name}: left out, {reason}")
    run.folder.leave_out(student.name, reason)
    run.notes.add(f"Student {student.name} was not trained: {reason}.")


def examples_for(
    run: Run, student: Student, demonstrations: Sequence[Demonstration], screened: Sequence[Demonstration]
) -> tuple[list[Example], dict[str, int]]:
    """Return what a student learns from, and counts by reason of what was left out."""
    problems = run.data.train_of(student)
    forms = {name: run.data.dataset(name).answer_form for name in {one.dataset for one in problems.values()}}
    examples, left_out = build_examples(
        student.variant, problems, forms, demonstrations, screened, with_context=run.config.run.decomposer_context
    )
    if student.max_examples and len(examples) > student.max_examples:
        left_out["over max_examples"] = len(examples) - student.max_examples
        examples = examples[: student.max_examples]
    return nested_share(examples, student.share, student.seed), left_out


def screens(student: Student) -> bool:
    """Whether a student learns from screened demonstrations alone."""
    return VARIANTS[student.variant].screened


def _train(run: Run, student: Student, examples: Sequence[Example]) -> tuple[int, int]:
    """Train one student, or keep it. Returns how many examples it learnt from, and how many were too long."""
    folder = run.folder.student(student.name)
    digest = _digest(run, student, examples)
    if _trained_with(folder) == digest:
        run.progress.stage(f"train {student.name}: kept, already trained on these {len(examples)} examples")
        return _counts(folder, len(examples))
    from fractionate.distill.train import train_student

    run.progress.stage(f"train {student.name}: {student.base} on {len(examples)} examples")
    folder.parent.mkdir(parents=True, exist_ok=True)
    report = train_student(
        student.base,
        examples,
        folder,
        run.config.train,
        student.seed,
        lambda step, steps, loss: run.progress.step(f"step {step} of {steps}, loss {loss:.3f}"),
    )
    write_rows(folder / "examples.jsonl", (asdict(example) for example in examples))
    write_text(digest + "\n", folder / "inputs.sha256")
    run.progress.stage(
        f"  loss {report.loss_first:.3f} → {report.loss_last:.3f}, {report.tokens} tokens in {report.seconds:.0f} s"
    )
    return report.examples, report.left_out


def _counts(folder: Path, examples: int) -> tuple[int, int]:
    """Return what a kept student's own report says that it learnt from."""
    try:
        report = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return int(report["examples"]), int(report["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return examples, 0


def _digest(run: Run, student: Student, examples: Sequence[Example]) -> str:
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
