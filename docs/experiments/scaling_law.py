"""Does the distillation law hold for tiny transformers, trained from scratch here? The whole grid is yet to be run.

    python docs/experiments/scaling_law.py [--out DIR] [--minutes 9]     # again and again until the tables come
    python docs/experiments/scaling_law.py --pilot                       # the learning rates

Trains teachers, then students of several sizes and token counts: without a teacher, and on the whole softmax of each
teacher. The text is the source code of Python's standard library (its tests left out), cut into 512 kinds of byte
pairs; students see other text than teachers, everybody sees it once, and the loss is of files that nobody saw. One
JSON line per finished run; a run that does not fit into --minutes is kept half done. Once all are there: fits both
laws with `fractionate.planning`, holds runs out, and prints the tables.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_transformer import (
    CONTEXT,
    SliceOver,
    Transformer,
    evaluate,
    learning_rate,
    size,
    train,
    write_log_probabilities,
)

from fractionate.planning.fit import Fit, fit_distillation, fit_supervised
from fractionate.planning.protocol import Options
from fractionate.planning.runs import DistillationRuns, SupervisedRuns

VOCABULARY = 512
HELD_OUT = 1536
"""Sequences that every loss is measured on; they are of files that nobody is trained on."""
STUDENT_TEXT = 33_000
"""The sequence that students' text begins at: behind all that a teacher sees."""
HELD_OUT_FILES = 40
MILLION = 1_000_000
SHAPES = {"25k": (2, 32), "83k": (3, 48), "147k": (3, 64), "442k": (4, 96), "1.2M": (6, 128)}
TEACHERS = (("25k", 0.75), ("147k", 1.5), ("442k", 2.0), ("1.2M", 2.0))
STUDENTS = [(name, million) for name in ("25k", "83k", "147k") for million in (0.125, 0.25, 0.5, 1.0)]
STUDENTS += [("442k", million) for million in (0.125, 0.25, 0.5)]
REPEATED = ("83k", 0.25, "442k")
"""A student, its tokens and its teacher, trained with more seeds: how far two runs of the same kind differ."""


@dataclass(frozen=True)
class Run:
    """One training: a shape's name, millions of tokens, and the teacher's name; none for a supervised run."""

    role: str
    shape: str
    million: float
    teacher: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return "-".join([self.role, self.shape, f"{self.million:g}M", self.teacher or "alone", str(self.seed)])

    @property
    def sequences(self) -> int:
        return int(self.million * MILLION / CONTEXT) // 8 * 8


def plan() -> list[Run]:
    """Return all runs, teachers before their students, seeds of one kind last."""
    runs = [Run("teacher", shape, million) for shape, million in TEACHERS]
    runs += [Run("supervised", *student) for student in STUDENTS]
    runs += [Run("student", *student, teacher) for teacher, _ in TEACHERS for student in STUDENTS]
    shape, million, teacher = REPEATED
    for seed in (1, 2, 3):
        runs += [Run("supervised", shape, million, seed=seed), Run("student", shape, million, teacher, seed)]
    return runs


def corpus(out: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the text to train on, shuffled, that of files held out, (sequences, CONTEXT + 1), and its digest."""
    kept = out / "text.npz"
    if not kept.is_file():
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        root = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "test", "tests", "idle_test", "lib2to3"}
        files = [path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts)]
        files.sort(key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).digest())
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts[HELD_OUT_FILES:], trainer)
        ids = [np.array(tokenizer.encode(text).ids, np.uint16) for text in texts]
        held_out, rest = (_shuffled(np.concatenate(part)) for part in (ids[:HELD_OUT_FILES], ids[HELD_OUT_FILES:]))
        digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
        long = f"{sum(map(len, texts)) / 1e6:.1f} million characters, {sum(map(len, ids)):,} tokens"
        print(f"{len(files)} files, {long}, {len(rest):,} and {len(held_out):,} sequences, digest {digest}")
        np.savez(kept, train=rest, held_out=held_out[:HELD_OUT], digest=digest)
    with np.load(kept) as arrays:
        return arrays["train"], arrays["held_out"], str(arrays["digest"])


def _shuffled(tokens: np.ndarray) -> np.ndarray:
    """Return the tokens as sequences that overlap by one, in random order: neighbours in a file are too alike."""
    count = (len(tokens) - 1) // CONTEXT
    rows = np.stack([tokens[row * CONTEXT : (row + 1) * CONTEXT + 1] for row in range(count)])
    return rows[np.random.default_rng(0).permutation(count)]


class Laboratory:
    """Does runs and writes them down."""

    def __init__(self, out: Path, deadline: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.deadline = out, deadline
        self.text, self.held_out, self.digest = corpus(out)
        self._file = out / "runs.jsonl"

    def rows(self) -> dict[str, dict[str, Any]]:
        if not self._file.is_file():
            return {}
        rows = [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
        return {row["name"]: row for row in rows}

    def do(self, run: Run) -> None:
        """Train, measure and write down one run."""
        layers, width = SHAPES[run.shape]
        torch.manual_seed(run.seed)
        model = Transformer(layers, width, VOCABULARY)
        told = self._told(run.teacher) if run.teacher else None
        begin = 0 if run.role == "teacher" else STUDENT_TEXT
        text = self.text[begin : begin + run.sequences]
        if len(text) < run.sequences:
            raise SystemExit(f"{run.name}: the text is too short by {run.sequences - len(text)} sequences")
        if run.seed:
            # Another seed also sees its text in another order.
            order = np.random.default_rng(run.seed).permutation(run.sequences)
            text, told = text[order], None if told is None else told[order]
        checkpoint = self.out / f"{run.name}.pt"
        seconds = train(model, text, learning_rate(width), checkpoint, self.deadline, told)
        loss = evaluate(model, self.held_out)
        if run.role == "teacher":
            torch.save(model.state_dict(), self.out / f"teacher-{run.shape}.weights")
        row = {"name": run.name, **asdict(run), "params": size(layers, width), "tokens": run.sequences * CONTEXT}
        row |= {"loss": loss, "seconds": round(seconds, 1), "text": self.digest}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{run.name}: loss {loss:.4f}, {seconds:.0f} s", flush=True)

    def _told(self, teacher: str) -> np.ndarray:
        """Return the teacher's log probabilities over the students' text, made once."""
        path = self.out / f"logits-{teacher}.npy"
        if not path.is_file():
            for other in self.out.glob("logits-*.npy"):
                other.unlink()  # a gigabyte each; the runs of one teacher come together
            layers, width = SHAPES[teacher]
            model = Transformer(layers, width, VOCABULARY)
            model.load_state_dict(torch.load(self.out / f"teacher-{teacher}.weights"))
            most = max(Run("student", *student).sequences for student in STUDENTS)
            write_log_probabilities(model, self.text[STUDENT_TEXT : STUDENT_TEXT + most], path)
        return np.load(path, mmap_mode="r")


def pilot(laboratory: Laboratory) -> None:
    """Print the loss by learning rate of short supervised runs; their text is of the teachers'."""
    for shape in ("25k", "147k", "442k"):
        layers, width = SHAPES[shape]
        for factor in (0.5, 1.0, 2.0):
            torch.manual_seed(100)
            model = Transformer(layers, width, VOCABULARY)
            checkpoint = laboratory.out / "pilot.pt"
            train(model, laboratory.text[:3200], factor * learning_rate(width), checkpoint, float("inf"))
            loss = evaluate(model, laboratory.text[30_000:30_512])
            print(f"{shape}: {factor:g} x {learning_rate(width):.2g}: {loss:.4f}", flush=True)


def report(rows: dict[str, dict[str, Any]]) -> None:
    """Fit both laws and print the tables of the page."""
    first = [row for row in rows.values() if row["seed"] == 0]
    alone = [row for row in first if row["role"] != "student"]
    students = [row for row in first if row["role"] == "student"]
    teacher_loss = {row["shape"]: row["loss"] for row in alone if row["role"] == "teacher"}
    options = Options(resamples=1024)
    supervised = fit_supervised(SupervisedRuns(*_columns(alone, "params", "tokens", "loss")), options)
    params, tokens, loss = _columns(students, "params", "tokens", "loss")
    l_t = np.array([teacher_loss[row["teacher"]] for row in students])
    runs = DistillationRuns(params, tokens, l_t, loss)
    law = fit_distillation(runs, supervised, options)
    print(_losses(students, alone, teacher_loss))
    for name, fit in (("supervised", supervised), ("distillation", law)):
        print(f"\n{name}: {fit.points} runs; fitted {fit.rms_relative_error:.2%}, held out {fit.held_out_rms:.2%}, "
              f"largest fifth {fit.largest_rms:.2%}")  # fmt: skip
        for key, value in fit.coefficients.items():
            low, high = fit.intervals[key]
            print(f"  {key} {value:.4g} [{low:.4g}, {high:.4g}]")
        for note in fit.notes:
            print(f"  note: {note}")
    print("\nstudents of one teacher, foretold from the students of the others:")
    for teacher, value in teacher_loss.items():
        print(f"  {teacher} (L_T {value:.4f}): {_without_teacher(runs, supervised, value)}")
    print("\nthe U in each student, and the best teacher that the law sees:")
    print(_gaps(students, alone, teacher_loss, law))
    print(f"\n{_seeds(rows)}")


def _columns(rows: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    return [np.array([row[name] for row in rows], float) for name in names]


def _found(rows: list[dict[str, Any]], **wanted: Any) -> list[float]:
    return [row["loss"] for row in rows if all(row[name] == value for name, value in wanted.items())]


def _losses(students: list[dict[str, Any]], alone: list[dict[str, Any]], teacher_loss: dict[str, float]) -> str:
    heads = " | ".join(f"{name}, {value:.4f}" for name, value in teacher_loss.items())
    lines = [f"| student | tokens | alone | {heads} |", "|---" * (3 + len(teacher_loss)) + "|"]
    for shape, million in STUDENTS:
        same = {"shape": shape, "million": million}
        cells = _found(alone, role="supervised", **same)
        for teacher in teacher_loss:
            cells += _found(students, teacher=teacher, **same)
        lines.append(f"| {shape} | {million:g}M | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    return "\n".join(lines)


def _without_teacher(runs: DistillationRuns, supervised: Fit, value: float) -> str:
    rest = runs.teacher_loss != value
    kept = [one[rest] for one in (runs.params, runs.tokens, runs.teacher_loss, runs.loss)]
    try:
        law = fit_distillation(DistillationRuns(*kept), supervised, Options(resamples=0)).set
    except Exception as error:
        return f"cannot be fitted: {error}"
    own = law.supervised.loss(runs.params[~rest], runs.tokens[~rest])
    told = law.distilled.loss(runs.params[~rest], runs.tokens[~rest], runs.teacher_loss[~rest], own)
    errors = told / runs.loss[~rest] - 1
    return f"rms {np.sqrt(np.mean(errors**2)):.2%}, mean {errors.mean():+.2%}"


def _gaps(students: list[dict[str, Any]], alone: list[dict[str, Any]], teacher_loss: dict[str, float], law: Fit) -> str:
    from fractionate.planning.predict import lowest_teacher_loss

    heads = "| student | tokens | best teacher | second | strongest less best | the law's best L_T |"
    lines = [heads, "|---" * 6 + "|"]
    strongest = min(teacher_loss, key=lambda name: teacher_loss[name])
    for shape, million in STUDENTS:
        found = {row["teacher"]: row for row in students if (row["shape"], row["million"]) == (shape, million)}
        order = sorted(found, key=lambda name: found[name]["loss"])
        row = found[order[0]]
        best = float(lowest_teacher_loss(np.float64(row["params"]), np.float64(row["tokens"]), law.set))
        lines.append(
            f"| {shape} | {million:g}M | {order[0]} | {order[1]}, {found[order[1]]['loss'] - row['loss']:+.4f} | "
            f"{found[strongest]['loss'] - row['loss']:+.4f} | {best:.3f} |"
        )
    return "\n".join(lines)


def _seeds(rows: dict[str, dict[str, Any]]) -> str:
    shape, million, teacher = REPEATED
    said = []
    for role, whose in (("supervised", ""), ("student", teacher)):
        losses = _found(list(rows.values()), role=role, shape=shape, million=million, teacher=whose)
        said.append(f"{role} {shape} at {million:g}M: {len(losses)} seeds, sd {np.std(losses, ddof=1):.4f} nats")
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scaling-law"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; the next call goes on")
    parser.add_argument("--pilot", action="store_true", help="only compare learning rates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    laboratory = Laboratory(arguments.out, time.monotonic() + 60 * arguments.minutes)
    if arguments.pilot:
        pilot(laboratory)
        return
    missing = [run for run in plan() if run.name not in laboratory.rows()]
    try:
        for run in missing:
            laboratory.do(run)
    except SliceOver:
        done = len(laboratory.rows())
        print(f"{done} of {len(plan())} runs done; run again to go on")
        return
    report(laboratory.rows())


if __name__ == "__main__":
    main()
