"""What a training is judged by on the way: its loss on the dev split, the step that had the lowest, when to stop.

The loss is measured after given steps, in nats per target token over all rows. Measuring draws no random number, so a
training takes the same steps whether it is watched or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.students.group import ALONE, Group
from fractionate.students.reading import Reading
from fractionate.students.training_data import TrainingRows

_AT_ONCE = 512
"""Rows that are cut into parts together, when many are read."""


class DevLoss(NamedTuple):
    """The loss on the dev split after a step (from 1), in nats per target token."""

    step: int
    loss: float


class TrainingDivergedError(FractionateError):
    """A loss that is not a number: the learning rate was too high."""

    def __init__(self) -> None:
        super().__init__("training diverged (its loss is not a number): lower train.learning_rate")


@dataclass(frozen=True, slots=True)
class DevSplit:
    """The rows a training is judged by, after which steps, and how many failures in a row end it (0: none do)."""

    rows: TrainingRows
    steps: frozenset[int]
    patience: int

    def stops(self, losses: Sequence[DevLoss]) -> bool:
        """Return whether the last `patience` measurements all failed to reach a lower loss than those before them."""
        return 0 < self.patience <= len(losses) - 1 - losses.index(best_of(losses)) if losses else False


def best_of(losses: Sequence[DevLoss]) -> DevLoss:
    """Return the lowest of one or more losses, the first of equal ones."""
    return min(losses, key=lambda one: one.loss)


def check_steps(examples: int, settings: TrainConfig) -> frozenset[int]:
    """Return the steps after which the loss is measured: evenly spread over each epoch, and the last of all."""
    batches = math.ceil(examples / settings.batch_size)
    last = steps_of(examples, settings)
    apart = max(1.0, batches / settings.dev_checks)
    due = {round(number * apart) for number in range(1, math.floor(last / apart) + 1)}
    return frozenset({step for step in due if step < last} | {last})


def steps_of(examples: int, settings: TrainConfig) -> int:
    """Return the optimizer steps of a training that is not stopped early."""
    return max(1, math.ceil(math.ceil(examples / settings.batch_size) * settings.epochs))


def dev_loss(model: Any, rows: TrainingRows, reading: Reading, group: Group = ALONE) -> float:
    """Return the mean loss of a model over the target tokens of all rows, which a group of processes shares out."""
    import torch

    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0.0
    ordered = sorted(rows.rows, key=reading.order)[group.rank :: group.size]
    with torch.no_grad():
        for start in range(0, len(ordered), _AT_ONCE):
            for part in reading.parts(ordered[start : start + _AT_ONCE]):
                moved = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in part.items()}
                loss, count = reading.loss(model, moved)
                total, tokens = total + float(loss), tokens + count
    model.train(was_training)
    total, tokens = group.sum(total, tokens)
    return total / tokens
