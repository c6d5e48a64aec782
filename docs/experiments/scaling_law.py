"""Does the distillation law hold for tiny transformers, trained from scratch here? See scaling-law.md.

    python docs/experiments/scaling_law.py [--out DIR] [--minutes 9]     # repeat until it prints the tables
    python docs/experiments/scaling_law.py --pilot                       # the learning rates
    python docs/experiments/scaling_law.py --grid gpu --estimate         # the cost of the larger grid

Trains teachers, then students of several sizes and token counts: without a teacher, and on the whole softmax of each
teacher. The text is the source code of Python's standard library (without its tests), tokenised into 512 kinds of byte
pairs; students and teachers see different text, each text once, and the loss is of files that no model saw. The script
writes one JSON line per finished run; a run that does not fit into --minutes is saved and continued. After the last run
it fits both laws with `fractionate.planning`, holds runs out, prints the tables and draws the capacity gap (gap.png).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scaling_grids import CPU, GRIDS, Grid, Run
from tiny_transformer import (
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


class Laboratory:
    """Does runs and records them."""

    def __init__(self, out: Path, deadline: float, grid: Grid = CPU, device: str = "cpu", bf16: bool = False) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.deadline, self.grid, self.device, self.bf16 = out, deadline, grid, device, bf16
        self.text, self.held_out, self.digest = grid.corpus(out)
        self._file = out / "runs.jsonl"

    def rows(self) -> dict[str, dict[str, Any]]:
        if not self._file.is_file():
            return {}
        rows = [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
        return {row["name"]: row for row in rows}

    def do(self, run: Run) -> None:
        """Train, measure and record one run."""
        grid, sequences = self.grid, self.grid.sequences(run)
        layers, width = grid.shapes[run.shape]
        torch.manual_seed(run.seed)
        model = self._model(run.shape)
        teacher = self._teacher(run.teacher) if run.teacher else None
        begin = 0 if run.role == "teacher" else grid.student_text
        text = self.text[begin : begin + sequences]
        if len(text) < sequences:
            raise SystemExit(f"{run.name}: the text is too short by {sequences - len(text)} sequences")
        if run.seed:
            # Another seed also uses another order of the text.
            order = np.random.default_rng(run.seed).permutation(sequences)
            text, teacher = text[order], teacher[order] if isinstance(teacher, np.ndarray) else teacher
        checkpoint = self.out / f"{run.name}.pt"
        seconds = train(model, text, learning_rate(width), checkpoint, self.deadline, teacher, grid.batch, self.bf16)
        loss = evaluate(model, self.held_out)
        if run.role == "teacher":
            torch.save(model.state_dict(), self.out / f"teacher-{run.shape}.weights")
        row = {"name": run.name, **asdict(run), "params": size(layers, width), "tokens": sequences * grid.context}
        row |= {"loss": loss, "seconds": round(seconds, 1), "text": self.digest}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{run.name}: loss {loss:.4f}, {seconds:.0f} s", flush=True)

    def _model(self, shape: str) -> Transformer:
        return Transformer(*self.grid.shapes[shape], self.grid.vocabulary, self.grid.context).to(self.device)

    def _teacher(self, teacher: str) -> np.ndarray | Transformer:
        """Return the teacher itself if it is evaluated online, else its log probabilities over the students' text."""
        if not self.grid.online:
            return self._stored(teacher)
        model = self._model(teacher).requires_grad_(False)
        model.load_state_dict(torch.load(self.out / f"teacher-{teacher}.weights", map_location=self.device))
        return model

    def _stored(self, teacher: str) -> np.ndarray:
        path = self.out / f"logits-{teacher}.npy"
        if not path.is_file():
            for other in self.out.glob("logits-*.npy"):
                other.unlink()  # a gigabyte each; the runs of one teacher are consecutive
            model = self._model(teacher)
            model.load_state_dict(torch.load(self.out / f"teacher-{teacher}.weights"))
            write_log_probabilities(model, self.text[self.grid.student_text : self.grid.most_sequences()], path)
        return np.load(path, mmap_mode="r")


def pilot(laboratory: Laboratory) -> None:
    """Print the loss by learning rate of short supervised runs; their text is from the teachers' part."""
    grid = laboratory.grid
    shapes = ("25k", "147k", "442k") if grid is CPU else ("0.5M", "6.3M", "59M")
    for shape in shapes:
        _, width = grid.shapes[shape]
        for factor in (0.5, 1.0, 2.0):
            torch.manual_seed(100)
            model = laboratory._model(shape)
            peak, checkpoint = factor * learning_rate(width), laboratory.out / "pilot.pt"
            train(model, laboratory.text[:3200], peak, checkpoint, float("inf"), None, grid.batch, laboratory.bf16)
            loss = evaluate(model, laboratory.text[30_000:30_512])
            print(f"{shape}: {factor:g} x {learning_rate(width):.2g}: {loss:.4f}", flush=True)


def report(rows: dict[str, dict[str, Any]], grid: Grid = CPU) -> None:
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
    print(_losses(students, alone, teacher_loss, grid))
    for name, fit in (("supervised", supervised), ("distillation", law)):
        print(f"\n{name}: {fit.points} runs; fitted {fit.rms_relative_error:.2%}, held out {fit.held_out_rms:.2%}, "
              f"largest fifth {fit.largest_rms:.2%}")  # fmt: skip
        for key, value in fit.coefficients.items():
            low, high = fit.intervals.get(key, (float("nan"), float("nan")))
            print(f"  {key} {value:.4g} [{low:.4g}, {high:.4g}]")
        for note in fit.notes:
            print(f"  note: {note}")
    print("\nstudents of one teacher, predicted from the students of the others:")
    for teacher, value in teacher_loss.items():
        print(f"  {teacher} (L_T {value:.4f}): {_without_teacher(runs, supervised, value)}")
    print("\nthe capacity gap of each student, and the best teacher according to the law:")
    print(_gaps(students, teacher_loss, law, grid))
    print(f"\n{_seeds(rows, grid)}")


def _columns(rows: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    return [np.array([row[name] for row in rows], float) for name in names]


def _found(rows: list[dict[str, Any]], **wanted: Any) -> list[float]:
    return [row["loss"] for row in rows if all(row[name] == value for name, value in wanted.items())]


def _losses(
    students: list[dict[str, Any]], alone: list[dict[str, Any]], teacher_loss: dict[str, float], grid: Grid
) -> str:
    heads = " | ".join(f"{name}, {value:.4f}" for name, value in teacher_loss.items())
    lines = [f"| student | tokens | alone | {heads} |", "|---" * (3 + len(teacher_loss)) + "|"]
    for shape, million in grid.students:
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
    predicted = law.distilled.loss(runs.params[~rest], runs.tokens[~rest], runs.teacher_loss[~rest], own)
    errors = predicted / runs.loss[~rest] - 1
    return f"rms {np.sqrt(np.mean(errors**2)):.2%}, mean {errors.mean():+.2%}"


def _gaps(students: list[dict[str, Any]], teacher_loss: dict[str, float], law: Fit, grid: Grid) -> str:
    from fractionate.planning.predict import lowest_teacher_loss

    heads = "| student | tokens | best teacher | second | strongest minus best | the law's best L_T |"
    lines = [heads, "|---" * 6 + "|"]
    strongest = min(teacher_loss, key=lambda name: teacher_loss[name])
    for shape, million in grid.students:
        found = {row["teacher"]: row for row in students if (row["shape"], row["million"]) == (shape, million)}
        order = sorted(found, key=lambda name: found[name]["loss"])
        row = found[order[0]]
        best = float(lowest_teacher_loss(np.float64(row["params"]), np.float64(row["tokens"]), law.set))
        lines.append(
            f"| {shape} | {million:g}M | {order[0]} | {order[1]}, {found[order[1]]['loss'] - row['loss']:+.4f} | "
            f"{found[strongest]['loss'] - row['loss']:+.4f} | {best:.3f} |"
        )
    return "\n".join(lines)


def _seeds(rows: dict[str, dict[str, Any]], grid: Grid) -> str:
    shape, million, teacher = grid.repeated
    said = []
    for role, whose in (("supervised", ""), ("student", teacher)):
        losses = _found(list(rows.values()), role=role, shape=shape, million=million, teacher=whose)
        said.append(f"{role} {shape} at {million:g}M: {len(losses)} seeds, sd {np.std(losses, ddof=1):.4f} nats")
    return "; ".join(said)


GO_ON = 75
"""The exit status of a piece of the GPU's grid (see gpu/pieces.py)."""
LAUNCH_S = 10e-6
"""Estimated seconds of a GPU operation that is too small to fill it."""


def draw_gap(rows: dict[str, dict[str, Any]], grid: Grid, path: Path) -> None:
    """Draw every student's loss above its lowest, by its teacher's loss; a panel per student size."""
    from matplotlib.figure import Figure

    first = [row for row in rows.values() if row["seed"] == 0]
    losses = {row["shape"]: row["loss"] for row in first if row["role"] == "teacher"}
    shapes = list(dict.fromkeys(shape for shape, _ in grid.students))
    figure = Figure(figsize=(3.1 * len(shapes), 3.4), layout="constrained")
    for axes, shape in zip(np.atleast_1d(figure.subplots(1, len(shapes), sharey=True)), shapes, strict=True):
        for million in [tokens for student, tokens in grid.students if student == shape]:
            found = sorted(
                (losses[row["teacher"]], row["loss"])
                for row in first
                if (row["role"], row["shape"], row["million"]) == ("student", shape, million)
            )
            least = min(loss for _, loss in found)
            axes.plot(
                [teacher for teacher, _ in found], [loss - least for _, loss in found], "o-", label=f"{million:g}M"
            )
        axes.set_title(f"student of {shape}", fontsize=10)
        axes.set_xlabel("teacher's loss (nats)")
        axes.invert_xaxis()
        axes.set_ylim(-0.02, 0.4)
        axes.legend(frameon=False, fontsize=8, title="tokens", title_fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("student's loss above its best (nats)")
    figure.savefig(path, dpi=110)


def estimate(grid: Grid) -> str:
    """Return the cost of the grid: runs, tokens, operations, steps, and estimated GPU hours.

    A step is estimated as 45 small operations a layer, and 15 of a teacher's, at LAUNCH_S each, or as the arithmetic at
    100 TFLOP/s, whichever is longer.
    """
    plan, hours, flops, tokens, steps = grid.plan(), 0.0, 0.0, 0, 0
    for run in plan:
        count = grid.sequences(run) // grid.batch
        layers = 45 * grid.shapes[run.shape][0] + (15 * grid.shapes[run.teacher][0] if run.teacher else 0)
        hours += max(count * (layers + 50) * LAUNCH_S, grid.flops(run) / 1e14) / 3600
        flops, tokens, steps = flops + grid.flops(run), tokens + grid.sequences(run) * grid.context, steps + count
    return (
        f"{len(plan)} runs, {tokens / 1e6:,.0f} million tokens, {steps:,} steps, {flops:.2g} FLOP, about {hours:.1f} "
        f"hours; text of {grid.most_sequences() * grid.context / 1e6:.1f} million tokens"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=tuple(GRIDS), default="cpu", help="the grid of runs (cpu)")
    parser.add_argument("--out", type=Path, help="runs/scaling-law, or runs/scaling-law-gpu")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after this many minutes; the next call continues"
    )
    parser.add_argument("--pilot", action="store_true", help="only compare learning rates")
    parser.add_argument("--device", default="", help="cpu, or cuda for the gpu grid")
    parser.add_argument("--estimate", action="store_true", help="only print the estimated cost of the grid")
    parser.add_argument("--runs", type=int, help="run only the first N runs, as a trial")
    arguments = parser.parse_args()
    grid = GRIDS[arguments.grid]
    if arguments.estimate:
        print(estimate(grid))
        return
    device = arguments.device or ("cuda" if grid.online else "cpu")
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * arguments.minutes
    laboratory = Laboratory(arguments.out or Path(grid.out), deadline, grid, device, device.startswith("cuda"))
    if arguments.pilot:
        pilot(laboratory)
        return
    plan = grid.plan()[: arguments.runs]
    missing = [run for run in plan if run.name not in laboratory.rows()]
    try:
        for run in missing:
            laboratory.do(run)
    except SliceOver:
        done = len(laboratory.rows())
        print(f"{done} of {len(plan)} runs done; run again to go on")
        if grid.online:
            raise SystemExit(GO_ON) from None
        return
    if arguments.runs is None:
        report(laboratory.rows(), grid)
        draw_gap(laboratory.rows(), grid, laboratory.out / "gap.png")


if __name__ == "__main__":
    main()
