"""Which learning rate keeps the classes of block-types separate? The trials behind knowledge-matters.md.

    python docs/experiments/knowledge_matters_rates.py [--only TRIAL]

Data of seed 0 that no reported run saw, initial weights 100 and up, some minutes of one core. For each trial it prints
after how many samples 3,000 validation images were nearly all correct twice in a row, or the accuracy at the end of the
budget.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fractionate.testbeds.pentomino.generator import Pentomino
from fractionate.testbeds.pentomino.nets import BlockTypes

BATCH, LOOK, BLOCK = 128, 25_000, 8192
APART = 7_000_000
"""Samples between the starts of two seeds' training streams."""


@dataclass(frozen=True)
class Trial:
    """`rate` is Adam's; types learn at `types` times it. `noise` is added to their weights, in standard deviations."""

    rate: float
    seeds: tuple[int, ...]
    types: float = 1.0
    noise: float = 0.0
    most: int = 1_000_000


TRIALS = {
    "3e-3": Trial(3e-3, (100, 101, 102), most=1_500_000),
    "3e-4": Trial(3e-4, (101, 102)),
    "2e-4": Trial(2e-4, (100, 101, 102), most=800_000),
    "types-1e-4": Trial(1e-3, (101, 102), types=0.1),
    "noise": Trial(1e-3, (101,), noise=0.2),
}
NOISE_EVERY = 50_000


class Stream:
    """The training samples of a seed, generated block by block."""

    def __init__(self) -> None:
        self._made, self._start = Pentomino(0, "train"), -1

    def take(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._start < 0 or start + BATCH > self._start + BLOCK:
            block = self._made.take(start, BLOCK)
            self._start, self._images, self._labels = start, *tensors(block)
        at = start - self._start
        return self._images[at : at + BATCH], self._labels[at : at + BATCH]


def tensors(block: object) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = (torch.from_numpy(np.asarray(getattr(block, name))) for name in ("images", "labels"))
    return images, labels.long()


def run(trial: Trial, seed: int) -> tuple[int, float]:
    """Train, and return (samples, validation accuracy)."""
    images, labels = tensors(Pentomino(0, "validation").take(0, 3000))
    torch.manual_seed(seed)
    model, stream = BlockTypes(), Stream()
    groups = [
        {"params": model.perceive.parameters(), "lr": trial.rate * trial.types},
        {"params": model.relate.parameters(), "lr": trial.rate},
    ]
    adam = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(seed)
    samples, accuracy, certain = 0, 0.0, 0
    while samples < trial.most and certain < 2:
        batch, truth = stream.take(seed * APART + samples)
        loss = functional.cross_entropy(model(batch), truth)
        adam.zero_grad()
        loss.backward()
        adam.step()
        before, samples = samples, samples + BATCH
        if trial.noise and samples // NOISE_EVERY > before // NOISE_EVERY:
            with torch.no_grad():
                for weights in model.perceive.parameters():
                    weights.add_(torch.randn(weights.shape, generator=generator) * weights.std() * trial.noise)
        if samples // LOOK > before // LOOK:
            with torch.no_grad():
                accuracy = float((model(images).argmax(1) == labels).float().mean())
            certain = certain + 1 if accuracy >= 0.9995 else 0
    return samples, accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(TRIALS), help="run only this trial")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    for name, trial in TRIALS.items():
        for seed in trial.seeds if only in (None, name) else ():
            samples, accuracy = run(trial, seed)
            print(f"{name}, weights {seed}: {accuracy:.2%} after {samples:,} samples", flush=True)


if __name__ == "__main__":
    main()
