"""Losses on the dev split during a training, and checkpoints to resume from.

The dev loss is measured after given steps, in nats per target token over all rows. Measuring draws no random number,
so a training takes the same steps with and without it.

A checkpoint gets its complete marker (`seal.json`, with each file's digest) when all of it is written. A checkpoint
that was cut off, or damaged on disk since, is set aside, and an earlier one is resumed.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fractionate.config import TrainConfig
from fractionate.errors import FractionateError
from fractionate.files import packed, unpack
from fractionate.students.batching import Batcher
from fractionate.students.group import ALONE, Group
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


def dev_loss(model: Any, rows: TrainingRows, batcher: Batcher, group: Group = ALONE) -> float:
    """Return the mean loss of a model over the target tokens of all rows, which a group of processes shares out."""
    import torch

    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0.0
    ordered = sorted(rows.rows, key=batcher.sort_key)[group.rank :: group.size]
    with torch.no_grad():
        for start in range(0, len(ordered), _AT_ONCE):
            for part in batcher.parts(ordered[start : start + _AT_ONCE]):
                moved = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in part.items()}
                loss, count = batcher.loss(model, moved)
                total, tokens = total + float(loss), tokens + count
    model.train(was_training)
    total, tokens = group.sum(total, tokens)
    return total / tokens


MARKER = "seal.json"
"""The complete marker of a checkpoint. The name is that of 0.1, so that checkpoints of that version are resumed."""
ASIDE = "damaged-"


class Checkpoints:
    """The checkpoints of one training, in the folder `partial`. `plan` is the digest of all that decides its result.

    What another training left there is cleared away. Raises FractionateError where the folder cannot be written.
    """

    def __init__(self, partial: Path, plan: str) -> None:
        self.folder = partial
        note = partial / "plan.txt"
        with suppress(OSError):
            if note.is_file() and note.read_bytes() == plan.encode():
                return
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            note.write_text(plan, encoding="utf-8")
        except OSError as error:
            raise FractionateError(f"cannot write to {partial}: {error.strerror}") from None

    def last(self) -> Path | None:
        """Return the last checkpoint that is whole, None if there is none; set aside those that are not."""
        found = [path for path in self.folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
        for checkpoint in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2])):
            if self._is_whole(checkpoint):
                return checkpoint
            self.set_aside(checkpoint)
        return None

    def of_step(self, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self.folder / f"checkpoint-{step}"

    def losses(self, checkpoint: Path) -> list[float]:
        """Return the loss of every step up to a checkpoint."""
        return [float(loss) for loss in json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["losses"]]

    def seconds(self, checkpoint: Path) -> float:
        """Return the seconds of training up to a checkpoint, in all processes that worked on it."""
        return float(json.loads((checkpoint / MARKER).read_text(encoding="utf-8")).get("seconds", 0.0))

    def dev_losses(self, checkpoint: Path) -> list[DevLoss]:
        """Return the losses on the dev split that were measured up to a checkpoint."""
        marker = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return [DevLoss(int(step), float(loss)) for step, loss in marker.get("dev_losses", [])]

    def mark_complete(
        self, checkpoint: Path, losses: Sequence[float], dev_losses: Sequence[DevLoss] = (), seconds: float = 0.0
    ) -> None:
        """Write the marker of a checkpoint whose files are all written, with the losses and the seconds up to it."""
        marker = {
            "losses": list(losses),
            "dev_losses": list(dev_losses),
            "seconds": seconds,
            "files": _digests(checkpoint),
        }
        (checkpoint / f"{MARKER}.part").write_text(json.dumps(marker), encoding="utf-8")
        (checkpoint / f"{MARKER}.part").replace(checkpoint / MARKER)

    def set_aside(self, checkpoint: Path) -> None:
        """Rename a checkpoint so that it is not resumed. It is deleted with the folder after the training."""
        aside = checkpoint.with_name(ASIDE + checkpoint.name)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            checkpoint.rename(aside)
        except OSError as error:
            raise FractionateError(f"{checkpoint} is damaged and cannot be moved away: {error.strerror}") from None

    def clear(self) -> None:
        """Delete the folder: the student is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_whole(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is there, all of it, and the best one before it, which it cannot do without."""
        try:
            marker = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
            whole = bool(marker["files"] == _digests(checkpoint) and self.losses(checkpoint))
            best = self.of_step(best_of(self.dev_losses(checkpoint) or [DevLoss(0, 0.0)]).step)
            return whole and (best in (self.of_step(0), checkpoint) or self._is_whole(best))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return False


class GroupCheckpoints(Checkpoints):
    """Checkpoints of a group: the first process writes and chooses them, and sends the others the files they lack."""

    def __init__(self, partial: Path, plan: str, group: Group) -> None:
        self._group = group
        if group.first:
            super().__init__(partial, plan)
        group.wait()
        if not group.first:
            super().__init__(partial, plan)

    def last(self) -> Path | None:
        """Return the last checkpoint that is whole, the same in all processes."""
        found = super().last() if self._group.first else None
        name = self._group.broadcast(found.name if found else "")
        if not name:
            return None
        checkpoint = self.of_step(int(name.rpartition("-")[2]))
        [without] = self._group.sum(float(not (checkpoint / MARKER).is_file()))
        if without:  # not all share the first one's disk
            content = self._group.broadcast(packed(checkpoint) if self._group.first else b"")
            if not self._group.first:
                unpack(content, checkpoint)
        return checkpoint

    def mark_complete(
        self, checkpoint: Path, losses: Sequence[float], dev_losses: Sequence[DevLoss] = (), seconds: float = 0.0
    ) -> None:
        """Note that all of a checkpoint is written, by all: each writes the state of its random numbers."""
        self._group.wait()
        if self._group.first:
            super().mark_complete(checkpoint, losses, dev_losses, seconds)

    def set_aside(self, checkpoint: Path) -> None:
        """Keep all processes from going on from a checkpoint, whichever of them come to do it."""
        with suppress(FractionateError):
            super().set_aside(checkpoint)
        if checkpoint.exists():
            raise FractionateError(f"{checkpoint} is damaged and cannot be moved away")

    def clear(self) -> None:
        """Delete the folder once all processes are done with it."""
        self._group.wait()
        super().clear()


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (MARKER, f"{MARKER}.part"):
            with path.open("rb") as file:
                digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
