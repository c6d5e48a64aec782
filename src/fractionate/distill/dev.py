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
from fractionate.distill.training_data import IGNORED, Collator, TrainingRows
from fractionate.errors import FractionateError


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


def target_loss(model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """Return a batch's summed cross-entropy over target tokens, a scalar tensor with its graph, and their number.

    Targets end together (the collator pads on the left), so the last logits are all that is needed: over a prompt of
    200 tokens and a vocabulary of 49,152, TRL's own loss computes six times as many on a CPU.
    """
    from torch.nn.functional import cross_entropy

    labels = inputs.pop("labels")
    keep = int((labels != IGNORED).sum(1).max()) + 1
    logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, :-1].float()
    wanted = labels[:, -keep + 1 :]
    total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (wanted != IGNORED).sum()


def dev_loss(model: Any, rows: TrainingRows, collate: Collator, at_once: int) -> float:
    """Return the mean loss of a model over the target tokens of all rows, `at_once` of them read together."""
    import torch

    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    ordered = sorted(rows.rows, key=lambda row: len(row["input_ids"]))  # of like length together: little padding
    with torch.no_grad():
        for start in range(0, len(ordered), at_once):
            batch = collate(ordered[start : start + at_once])
            loss, count = target_loss(model, {key: value.to(model.device) for key, value in batch.items()})
            total, tokens = total + float(loss), tokens + int(count)
    model.train(was_training)
    return total / tokens
