"""One student trained by one process and by several: the same loss in every step, and the time it takes.

    python benchmarks/train_workers.py [--workers 2] [--examples 40] [--batch 8] [--threads 1] [--share]

SmolLM2-135M learns from examples of atlas (S-A: passage and question in, worked solution out), with LoRA, by one
process and by `--workers` processes of a Ray that this command starts, all with the same batches. Every process has
`--threads` threads. Exits with 1 if a step's loss differs by more than 1e-4 of it. Seconds are those of the steps after
the first; more processes than cores only share the cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from gpu import examples_of

MODEL = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
MOST = 1e-4


def train(workers: int, chosen: argparse.Namespace) -> tuple[list[float], float]:
    """Train once; returns the loss of every step, and the seconds of a step."""
    import torch

    from fractionate.cluster.training import train_over_workers
    from fractionate.config import TrainConfig
    from fractionate.students.train import train_student

    settings = TrainConfig(
        batch_size=chosen.batch, learning_rate=2e-3, workers=workers, share_passages=chosen.share, epochs=chosen.epochs
    )
    losses: list[float] = []
    times: list[float] = []

    def note(_: int, __: int, loss: float) -> None:
        losses.append(loss)
        times.append(time.perf_counter())

    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        learn = train_student if workers == 1 else train_over_workers
        learn(MODEL, examples_of(chosen.examples), Path(folder) / "student", settings, 0, note)
    return losses, (times[-1] - times[0]) / max(1, len(times) - 1)


def main() -> None:
    """Train twice and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", action="store_true", help="with train.share_passages")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    alone, seconds = train(1, chosen)
    together, seconds_together = train(chosen.workers, chosen)
    if len(alone) != len(together):
        sys.exit(f"one process took {len(alone)} steps, {chosen.workers} took {len(together)}")
    print(f"| step | loss, 1 worker | loss, {chosen.workers} workers | difference |")
    print("| --- | --- | --- | --- |")
    for step, (one, other) in enumerate(zip(alone, together, strict=True), 1):
        print(f"| {step} | {one:.6f} | {other:.6f} | {abs(one - other):.1e} |")
    most = max(abs(one - other) / one for one, other in zip(alone, together, strict=True))
    print(f"most: {most:.1e} of the loss")
    print(f"seconds a step: {seconds:.1f} by 1 worker, {seconds_together:.1f} by {chosen.workers}")
    sys.exit(most > MOST)


if __name__ == "__main__":
    main()
