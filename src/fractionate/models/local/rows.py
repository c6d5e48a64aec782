"""A row of a batch: a prompt, the reply that grows behind it, and where it ends. Every runtime writes into these."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

_STOP_WINDOW = 32
"""Tokens at the end of a reply that are searched for stop strings at every step."""
_UNFINISHED = "�"
"""What a tokenizer shows for the first bytes of a character whose last ones are still to come."""


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

    `spoken` counts tokens generated, end-of-turn included; `shared` the prompt's tokens that were read for another row.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = "length"
    spoken: int = 0
    shared: int = 0


class Row:
    """A prompt and its reply under way."""

    def __init__(self, prompt: Prompt, tokenizer: Any) -> None:
        self.prompt, self.reply, self.ended = prompt, Reply(), False
        self.stream = random.Random(prompt.seed)
        self._tokenizer = tokenizer

    def take(self, token: int, ends: Collection[int]) -> None:
        """Add a token to the reply, and see whether it ends there. `ends` are the tokens that end one.

        A row that has ended takes no more.
        """
        if self.ended:
            return
        reply = self.reply
        reply.spoken += 1
        self.ended = reply.spoken >= self.prompt.max_tokens
        if token in ends:
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

    def sure_text(self) -> str:
        """Return the beginning of the text that no later token will change, for a reader who does not wait for its end.

        A character of which bytes are missing is held back, and so is what may be the beginning of a stop string.
        """
        text = _cut(self._text(self.reply.tokens), self.prompt.stop).rstrip(_UNFINISHED)
        held = max((_overlap(text, stop) for stop in self.prompt.stop), default=0)
        return text[: len(text) - held]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


class RowBatch(Protocol):
    """Rows that a runtime writes together, a token at a time. Used by one thread at a time."""

    rows: list[Row]
    """Those under way. One that ended may stand among them for a while."""

    @property
    def may_join(self) -> bool:
        """Whether rows can be taken in now."""

    def join(self, rows: Sequence[Row]) -> None:
        """Take new rows in. If that raises, the rows under way are as they were."""

    def step(self) -> None:
        """Write a token on the rows. Whoever marks a row as ended beforehand makes it leave."""

    def drop(self) -> None:
        """Let all rows go."""


def _cut(text: str, stop: tuple[str, ...]) -> str:
    """Return the text up to the first stop string in it."""
    cuts = [at for word in stop if (at := text.find(word)) >= 0]
    return text[: min(cuts)] if cuts else text


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the text's end are the beginning of a stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
