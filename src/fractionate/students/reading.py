"""How the examples of a step are read: in parts that bound the memory, singly and padded, or packed behind passages.

Both give the same losses, and so the same gradient; packed, a passage that several examples share is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from fractionate.config import TrainConfig
from fractionate.students.packing import pack
from fractionate.students.precision import exact
from fractionate.students.shared_attention import inputs_of, packed_losses, reads_alike, shared_attention
from fractionate.students.training_data import IGNORED, Collator, TrainingRows, check_mask

PART_TOKENS = {"cpu": 600, "cuda": 16_000}
"""Tokens read at once on the way to a step, by device: activations of SmolLM2-135M take about 1.5 MB a token, and a CPU
is no faster on more (steps of 1,700 tokens took as long read in parts of 550 as whole, in 2.3 instead of 5.7 GB)."""

Part = dict[str, Any]
"""What a model reads at once: tensors, and what says how to read them."""


class Reading(Protocol):
    """How rows become parts, and a part a loss."""

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[Part]:
        """Return what is to be read of rows (`input_ids`, `labels`), together, in parts."""

    def loss(self, model: Any, part: Part) -> tuple[Any, int]:
        """Return a part's summed cross-entropy over its targets, a scalar tensor with its graph, and their number."""

    def of(self, model: Any) -> AbstractContextManager[None]:
        """Let a model read in this way for a while."""

    def order(self, row: dict[str, Any]) -> Any:
        """Return what to sort many rows by so that reading them all takes little."""


class Single:
    """Every example is a row of its own, padded on the left to the longest of its part."""

    def __init__(self, tokenizer: Any, at_once: int) -> None:
        self._collate = Collator(tokenizer)
        self._at_once = at_once

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[Part]:
        """Return padded batches of as many rows as are read at once."""
        return [self._collate(rows[at : at + self._at_once]) for at in range(0, len(rows), self._at_once)]

    def loss(self, model: Any, part: Part) -> tuple[Any, int]:
        """Return a batch's summed loss and its targets."""
        from torch.nn.functional import cross_entropy

        # Targets end together, so the last logits are all that is needed: over a prompt of 200 tokens and a vocabulary
        # of 49,152, TRL's own loss computes six times as many on a CPU.
        labels = part["labels"]
        keep = int((labels != IGNORED).sum(1).max()) + 1
        inputs = {name: part[name] for name in ("input_ids", "attention_mask", "position_ids")}
        logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, :-1].float()
        wanted = labels[:, -keep + 1 :]
        total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
        return total, int((wanted != IGNORED).sum())

    def of(self, model: Any) -> AbstractContextManager[None]:
        """Change nothing: any model reads so."""
        return nullcontext()

    def order(self, row: dict[str, Any]) -> int:
        """Rows of like length together are padded little."""
        return len(row["input_ids"])


class Packed:
    """Examples stand one after another in rows of at most `most` tokens, a passage that some share before them once."""

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._end = Collator(tokenizer).end
        self._most = most

    def parts(self, rows: Sequence[dict[str, Any]]) -> list[Part]:
        """Return packed rows. Raises FractionateError where a row's mask was lost."""
        check_mask([row["labels"] for row in rows], self._end)
        return [inputs_of(one) for one in pack(rows, self._most)]

    def loss(self, model: Any, part: Part) -> tuple[Any, int]:
        """Return a packed row's summed loss and its targets."""
        losses = packed_losses(model, part)
        return losses.sum(), losses.numel()

    def of(self, model: Any) -> AbstractContextManager[None]:
        """Let the model attend within stretches."""
        return shared_attention(model)

    def order(self, row: dict[str, Any]) -> list[int]:
        """Rows that begin alike stand together."""
        return list(row["input_ids"])


def reading_of(model: Any, tokenizer: Any, sets: Sequence[TrainingRows], settings: TrainConfig) -> Reading:
    """Return how a model is to read sets of rows: packed where settings and, as a try shows, the model allow it."""
    device = model.device.type
    if settings.share_passages:
        with exact(model):
            alike = reads_alike(model, [row for rows in sets for row in rows.rows])
        if alike:
            return Packed(tokenizer, part_tokens(device))
    return Single(tokenizer, min(examples_at_once(rows, settings, device) for rows in sets))


def part_tokens(device: str) -> int:
    """Return how many tokens are read at once on a device ("cpu", "cuda")."""
    return PART_TOKENS.get(device, 16_000)


def examples_at_once(rows: TrainingRows, settings: TrainConfig, device: str) -> int:
    """Return how many examples are read at once, each a row: a divisor of a worker's share that keeps within bounds."""
    longest = max(len(row["input_ids"]) for row in rows.rows)
    most = min(settings.share, part_tokens(device) // longest)
    return max((size for size in range(1, most + 1) if settings.share % size == 0), default=1)


def largest_part(rows: TrainingRows, settings: TrainConfig, device: str) -> tuple[int, int]:
    """Return the most tokens, and the most targets, that are read at once; those of a packed row are an upper bound."""
    longest = max(len(row["input_ids"]) for row in rows.rows)
    targets = max(sum(label != IGNORED for label in row["labels"]) for row in rows.rows)
    if settings.share_passages:
        tokens = max(longest, min(part_tokens(device), settings.share * longest))
        return tokens, min(tokens, settings.share * targets)
    at_once = examples_at_once(rows, settings, device)
    return at_once * longest, at_once * targets
