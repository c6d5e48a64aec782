"""What a student trains on, as tokens: the prompt it will be asked with, then the target, which alone bears loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import Style
from fractionate.models.local.chat import end_of_turn, render, render_target
from fractionate.types import Example

IGNORED = -100
"""The label of a token that bears no loss (PyTorch's cross-entropy and transformers agree on it)."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Tokenized examples: `input_ids` and `labels` of equal length each; how many were too long; the data's digest."""

    rows: list[dict[str, list[int]]]
    left_out: int
    digest: str

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts included."""
        return sum(len(row["input_ids"]) for row in self.rows)

    @property
    def trained_tokens(self) -> int:
        """Tokens that bear loss."""
        return sum(label != IGNORED for row in self.rows for label in row["labels"])


def training_rows(
    tokenizer: Any, examples: Sequence[Example], max_length: int, style: Style = "student", vocabulary: int = 0
) -> TrainingRows:
    """Tokenize examples with the rendering that generation uses. Rows over `max_length` tokens are left out, counted.

    Raises UsageError if there is no example, none is short enough, a target is empty, or a token is not in the model's
    `vocabulary` (number of embedding rows; 0 skips the check).
    """
    if not examples:
        raise UsageError("no examples to train on: the screen kept none, or the training data is empty")
    rows, longest = [], 0
    for example in examples:
        if not example.target.strip():
            raise UsageError(f"example {example.problem_id or '(no id)'} has an empty target: leave it out")
        prompt, target = render(tokenizer, example.messages, style), render_target(tokenizer, example.target)
        longest = max(longest, len(prompt) + len(target))
        if len(prompt) + len(target) <= max_length:
            rows.append({"input_ids": prompt + target, "labels": [IGNORED] * len(prompt) + target})
    if not rows:
        raise UsageError(
            f"all {len(examples)} examples are longer than train.max_length = {max_length} tokens "
            f"(the longest has {longest}): raise it"
        )
    highest = max(max(row["input_ids"]) for row in rows)
    if vocabulary and highest >= vocabulary:
        raise UsageError(
            f"the tokenizer does not belong to the model: it makes token {highest}, the model has {vocabulary} tokens"
        )
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    return TrainingRows(rows, len(examples) - len(rows), digest)


class Collator:
    """Stack rows into a batch, padded on the left so that targets end together: only their logits are computed."""

    def __init__(self, tokenizer: Any) -> None:
        self.end = end_of_turn(tokenizer)
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return `input_ids`, `attention_mask`, `position_ids`, `labels`: int64 tensors of (rows, longest row)."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        pads = [width - len(row["input_ids"]) for row in rows]
        labels = [[IGNORED] * pad + list(row["labels"]) for pad, row in zip(pads, rows, strict=True)]
        check_mask(labels, self.end)
        positions = torch.arange(width)[None, :] - torch.tensor(pads)[:, None]
        return {
            "input_ids": torch.tensor([[self.pad] * p + list(r["input_ids"]) for p, r in zip(pads, rows, strict=True)]),
            "attention_mask": (positions >= 0).long(),
            "position_ids": positions.clamp(min=0),
            "labels": torch.tensor(labels),
        }


def check_mask(labels: Sequence[Sequence[int]], end: int) -> None:
    """Raise FractionateError unless every row bears loss on some words and, last of all, on the end of turn.

    A lost mask goes unnoticed otherwise (https://github.com/huggingface/trl/issues/7230): the loss still falls.
    """
    for row in labels:
        trained = [label for label in row if label != IGNORED]
        if len(trained) < 2:
            raise FractionateError("a training row has no token that bears loss: its mask was lost")
        if row[-1] != end:
            raise FractionateError("a training row does not end with the end of turn: the student would never stop")
        if len(trained) == len(row):
            raise FractionateError("a training row bears loss on its prompt: its mask was lost")
