"""The words of a streamed answer as they are handed on: without thoughts, and without the key wherever it was cut."""

from __future__ import annotations

from collections.abc import Callable

from fractionate.models.openai.keys import KeyHider
from fractionate.models.openai.wire import clean

_OPEN, _CLOSE = "<think>", "</think>"


class Words:
    """Takes an answer piece by piece and hands it on; what may yet turn out to be a tag or the key is held back.

    `text` is what was handed on so far, `thoughts` what stood in a `<think>` block at the beginning. A block that the
    prompt opened (only its end is in the reply) cannot be told from an answer before it ends: it is handed on.
    """

    def __init__(self, on_text: Callable[[str], None], hider: KeyHider) -> None:
        self.text = ""
        self.thoughts = ""
        self._on_text = on_text
        self._hider = hider
        self._held = ""
        self._within = "start"

    def take(self, piece: str) -> None:
        """Take the next piece."""
        self._held += clean(piece)
        self._advance()

    def end(self) -> None:
        """Hand on what is left."""
        if self._within == "thoughts":
            self.thoughts, self._held = self.thoughts + self._held, ""
        elif self._within == "after":
            self._held = self._held.lstrip()
        self._within = "answer"
        self._hand_on(self._held)
        self._held = ""

    def _advance(self) -> None:
        if self._within == "start":
            begun = self._held.lstrip()
            if _OPEN.startswith(begun[: len(_OPEN)]) and len(begun) < len(_OPEN):
                return
            self._within = "thoughts" if begun.startswith(_OPEN) else "answer"
            self._held = begun[len(_OPEN) :] if self._within == "thoughts" else self._held
        if self._within == "thoughts":
            thoughts, closed, rest = self._held.partition(_CLOSE)
            if not closed:
                kept = len(_CLOSE) - 1
                self.thoughts, self._held = self.thoughts + self._held[:-kept], self._held[-kept:]
                return
            self.thoughts += thoughts
            self._held, self._within = rest, "after"
        if self._within == "after":
            self._held = self._held.lstrip()
            self._within = "answer" if self._held else "after"
        if self._within == "answer":
            kept = self._hider.begun_at_end(self._held)
            ready = self._held[: len(self._held) - kept]
            self._held = self._held[len(ready) :]
            self._hand_on(ready)

    def _hand_on(self, words: str) -> None:
        hidden = self._hider.hide(words)
        if hidden:
            self.text += hidden
            self._on_text(hidden)
