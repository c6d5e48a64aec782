"""Rows of a batch on any runtime: a prompt, the reply that grows behind it, where it ends, and shared prefixes."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from fractionate.errors import FractionateError

_STOP_WINDOW = 32
"""Tokens at the end of a reply that are searched for stop strings at every step."""
_UNFINISHED = "�"
"""How a tokenizer decodes the first bytes of a character whose last bytes are still to come."""
SHARED_TOKENS = 32
"""The shortest common prefix, in tokens, that is worth a forward pass of its own."""


class InterruptedBatchError(FractionateError):
    """Generation was asked to stop between two tokens; nothing of the batch is kept."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to continue: token ids, at most `max_tokens` new ones, sampled at `temperature` (0: the likeliest)."""

    tokens: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(slots=True)
class Reply:
    """The new tokens (without the end-of-turn token), their text cut at the first stop string, and why it ended.

    `generated` counts new tokens, the end-of-turn token included; `shared` the prompt's tokens that were prefilled for
    another row.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = "length"
    generated: int = 0
    shared: int = 0


class Row:
    """A prompt and its reply under way."""

    def __init__(self, prompt: Prompt, tokenizer: Any) -> None:
        self.prompt, self.reply, self.ended = prompt, Reply(), False
        self.stream = random.Random(prompt.seed)
        self._tokenizer = tokenizer

    def take(self, token: int, eos_ids: Collection[int]) -> None:
        """Add a token to the reply, and note whether it ends there. `eos_ids` are the tokens that end one.

        A row that has ended takes no more.
        """
        if self.ended:
            return
        reply = self.reply
        reply.generated += 1
        self.ended = reply.generated >= self.prompt.max_tokens
        if token in eos_ids:
            reply.finish_reason, self.ended = "stop", True
            return
        reply.tokens.append(token)
        if self.prompt.stop:
            tail = self._text(reply.tokens[-_STOP_WINDOW:])
            if any(stop in tail for stop in self.prompt.stop):
                reply.finish_reason, self.ended = "stop", True

    def finish(self) -> Reply:
        """Return the reply with its text."""
        self.reply.text = _cut(self._text(self.reply.tokens), self.prompt.stop)
        return self.reply

    def stable_text(self) -> str:
        """Return the part of the text that no later token will change, for streaming.

        A character of which bytes are missing is held back, and so is what may be the start of a stop string.
        """
        text = _cut(self._text(self.reply.tokens), self.prompt.stop).rstrip(_UNFINISHED)
        withheld = max((_overlap(text, stop) for stop in self.prompt.stop), default=0)
        return text[: len(text) - withheld]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class RowBatch(Protocol):
    """Rows that a runtime generates together, a token at a time. Used by one thread at a time."""

    rows: list[Row]
    """The rows being generated. A row that ended may stand among them for some steps."""

    @property
    def may_join(self) -> bool:
        """Whether rows can join now."""

    def join(self, rows: Sequence[Row]) -> None:
        """Add new rows. If that raises, the rows of the batch are as they were."""

    def step(self) -> None:
        """Generate a token on every row. A row that was marked as ended beforehand leaves."""

    def drop(self) -> None:
        """Remove all rows."""


def run_to_end(batch: RowBatch, rows: Sequence[Row], stopped: Callable[[], bool]) -> list[Reply]:
    """Generate rows to their ends on any runtime. Raises InterruptedBatchError once `stopped()` is true."""
    if rows:
        batch.join(rows)
    while batch.rows:
        if stopped():
            batch.drop()
            raise InterruptedBatchError("generation was interrupted")
        batch.step()
    return [row.finish() for row in rows]


def _cut(text: str, stop: tuple[str, ...]) -> str:
    """Return the text up to the first stop string in it."""
    cuts = [at for word in stop if (at := text.find(word)) >= 0]
    return text[: min(cuts)] if cuts else text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the text's end are the start of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)


# ---------------------------------------------------------------- shared prefixes


def share_groups(prompts: Sequence[Sequence[int]], minimum: int = SHARED_TOKENS) -> list[tuple[int, list[int]]]:
    """Group prompts (token ids) so that prefilling each group's common prefix once saves the most tokens.

    Returns (tokens in common, positions in `prompts`) for each group; a prompt alone has 0 in common. At least one
    token of every prompt stays outside the prefix, because its output is the first new token. Neighbours in the result
    have common prefixes.
    """
    # Sorted, the common prefix of any group is that of its first and last prompt, so groups are ranges.
    order = sorted(range(len(prompts)), key=lambda position: list(prompts[position]))
    shared = [
        min(_common_prefix(prompts[a], prompts[b]), len(prompts[a]) - 1, len(prompts[b]) - 1)
        for a, b in pairwise(order)
    ]
    _, groups = _best_groups(0, len(order), shared, minimum)
    return [(common, order[start:end]) for common, start, end in groups]


def _best_groups(start: int, end: int, shared: list[int], minimum: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Return (tokens saved, groups) for sorted prompts start … end-1: one group, or parts with longer prefixes."""
    if end - start == 1:
        return 0, [(0, start, end)]
    least = min(shared[start : end - 1])
    cuts = [start, *(at + 1 for at in range(start, end - 1) if shared[at] == least), end]
    whole = (end - start - 1) * least if least >= minimum else -1
    if len(cuts) == end - start + 1:
        parts = (0, [(0, at, at + 1) for at in range(start, end)])
    else:
        split = [_best_groups(a, b, shared, minimum) for a, b in pairwise(cuts)]
        parts = (sum(saved for saved, _ in split), [group for _, groups in split for group in groups])
    return (whole, [(least, start, end)]) if whole >= parts[0] else parts


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    return bisect.bisect_left(range(length), True, key=lambda at: a[: at + 1] != b[: at + 1])
