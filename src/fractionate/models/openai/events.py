"""Server-sent events of a streamed reply, joined as they come: what is held is the reply's words, not its events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

from fractionate.models.faults import TransientFault
from fractionate.models.openai.reading import STREAM_FACTOR, too_long
from fractionate.models.openai.wire import fault_of, status_of, text_of

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def join_events(data: bytes) -> dict[str, Any]:
    """Join a whole stream into one reply. Raises TransientFault if it stops before its end."""
    stream = Stream(max(1, len(data)))
    stream.begin()
    stream.feed(data)
    return stream.reply()


class Stream:
    """The chunks of one streamed reply, from `begin` on, repeated events once; its words take at most `limit` bytes.

    Two equal neighbours may be two equal tokens, so a repetition shows by its SSE id, or by every event (the first and
    the last too, which a reply has once) coming twice. Until the end either may be so: both readings are kept.
    """

    takes_all = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.most_bytes = limit * STREAM_FACTOR

    def begin(self) -> None:
        """Begin a reply, forgetting what came before."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._edge = b""
        self._marker = b""
        self._count = 0
        self._odd: bytes | None = None
        self._in_pairs = True
        self._each = _Joined(self._limit)
        self._every_second = _Joined(self._limit)

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises TransientFault for an unreadable event, PermanentFault past the limit."""
        self._pieces.append(data)
        self._size += len(data)
        edge = self._edge + data
        self._edge = edge[-3:]
        if _BLANK_LINE.search(edge):
            *whole, rest = _BLANK_LINE.split(b"".join(self._pieces))
            self._pieces, self._size = [rest], len(rest)
            for block in whole:
                self._take(block)
        if self._size > self._limit:
            raise too_long(self._limit)

    def reply(self) -> dict[str, Any]:
        """Return the reply as an unstreamed one would be. Raises TransientFault if the stream stopped too soon."""
        self._take(b"".join(self._pieces))
        self._pieces = []
        twice = self._in_pairs and self._odd is None and self._count > 2
        return (self._every_second if twice else self._each).reply()

    def _take(self, block: bytes) -> None:
        lines = block.splitlines()
        event = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        marker = next((line for line in lines if line.startswith(b"id:")), b"")
        if not event or (marker and marker == self._marker):
            return
        self._marker = marker
        self._count += 1
        if self._in_pairs:
            if self._odd is None:
                self._odd = event
                self._every_second.take(event)
            elif self._odd == event:
                self._odd = None
            else:
                self._in_pairs = False
                self._every_second = _Joined(0)
        self._each.take(event)


class LiveStream(Stream):
    """A stream whose answer is handed on as it comes: an event without an id is taken as often as it is sent."""

    def __init__(self, limit: int, on_content: Callable[[str], None]) -> None:
        super().__init__(limit)
        self._on_content = on_content

    def begin(self) -> None:
        """Begin a reply."""
        super().begin()
        self._in_pairs = False
        self._each = _Joined(self._limit, self._on_content)


class _Joined:
    """The words of a stream's events so far; `on_content` is told those of the answer as they come."""

    def __init__(self, limit: int, on_content: Callable[[str], None] | None = None) -> None:
        self._limit = limit
        self._on_content = on_content
        self._size = 0
        self._words = {"content": StringIO(), "reasoning_content": StringIO(), "refusal": StringIO()}
        self._finish: object = None
        self._usage: object = None
        self._ended = False

    def take(self, event: bytes) -> None:
        if event == b"[DONE]":
            self._ended = True
            return
        chunk = _loads(event)
        if not isinstance(chunk, dict):
            raise TransientFault("bad body", "an event of the stream is no JSON object", maybe_paid=True)
        if chunk.get("error"):
            raise fault_of(status_of(chunk["error"]), chunk, {})
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._take_choice(choice)

    def reply(self) -> dict[str, Any]:
        if self._finish is None and not self._ended:
            raise TransientFault("cut short", "the stream ended before its last event", maybe_paid=True)
        message = {name: words.getvalue() for name, words in self._words.items()}
        return {"choices": [{"message": message, "finish_reason": self._finish}], "usage": self._usage}

    def _take_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if self._finish is None and isinstance(delta, dict):  # whatever follows the end is a repetition
            said = {
                "content": text_of(delta.get("content")),
                "reasoning_content": text_of(delta.get("reasoning_content") or delta.get("reasoning")),
                "refusal": text_of(delta.get("refusal")),
            }
            for name, words in said.items():
                self._words[name].write(words)
                self._size += len(words)
            if self._size > self._limit:
                raise too_long(self._limit)
            if self._on_content is not None and said["content"]:
                self._on_content(said["content"])
        self._finish = choice.get("finish_reason") or self._finish


def _loads(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
