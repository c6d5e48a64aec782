"""Streamed replies: server-sent events joined as they come, and the text of the answer as it is handed on.

Memory holds the text of a reply, not its events. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

from fractionate.models.faults import TransientFault
from fractionate.models.openai.keys import KeyHider
from fractionate.models.openai.reading import STREAM_FACTOR, too_long
from fractionate.models.openai.wire import clean, fault_in_reply, text_of

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_OPEN, _CLOSE = "<think>", "</think>"


class Stream:
    """One streamed reply, from `begin` on, repeated events taken once; its text has at most `limit` bytes.

    Some servers send every event twice. Two equal neighbours may also be two equal tokens, so a repetition is known
    only by its SSE id, or by all events (the first and the last too, which a reply has once) coming twice. That shows
    at the end, so both readings are kept until then.
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
        lines = block.removeprefix(codecs.BOM_UTF8).splitlines()
        event = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        if event and any(line[6:].strip() == b"error" for line in lines if line.startswith(b"event:")):
            if self._each.is_whole:
                return
            said = _loads(event)
            named = isinstance(said, dict) and said.get("error")
            raise fault_in_reply({"error": named or said or event.decode("utf-8", "replace")})
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
    """A stream whose answer is handed on as it comes; an event without an id is taken as often as it is sent."""

    def __init__(self, limit: int, on_content: Callable[[str], None]) -> None:
        super().__init__(limit)
        self._on_content = on_content

    def begin(self) -> None:
        """Begin a reply."""
        super().begin()
        self._in_pairs = False
        self._each = _Joined(self._limit, self._on_content)


class _Joined:
    """The text of a stream's events so far; `on_content` is called with that of the answer as it comes."""

    def __init__(self, limit: int, on_content: Callable[[str], None] | None = None) -> None:
        self._limit = limit
        self._on_content = on_content
        self._size = 0
        self._texts = {"content": StringIO(), "reasoning_content": StringIO(), "refusal": StringIO()}
        self._tool_calls: dict[object, dict[str, Any]] = {}
        self._finish: object = None
        self._usage: object = None
        self._ended = False
        self._begun = False

    @property
    def is_whole(self) -> bool:
        """Whether the answer has come to its end. An error after that is no reason to pay for the answer again."""
        return self._finish not in (None, "error")

    def take(self, event: bytes) -> None:
        if event == b"[DONE]":
            self._ended = True
            return
        chunk = _loads(event)
        if not isinstance(chunk, dict):
            raise TransientFault("bad body", "an event of the stream is no JSON object", maybe_paid=True)
        if chunk.get("error") or chunk.get("object") == "error":
            if self.is_whole:
                return
            raise fault_in_reply(chunk if chunk.get("error") else {"error": chunk})
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._begun = True
                self._take_choice(choice)

    def reply(self) -> dict[str, Any]:
        if self._finish is None and not self._ended:
            raise TransientFault("cut short", "the stream ended before its last event", maybe_paid=True)
        message: dict[str, Any] = {name: text.getvalue() for name, text in self._texts.items()}
        message["tool_calls"] = list(self._tool_calls.values())
        choices = [{"message": message, "finish_reason": self._finish}] if self._begun else []
        return {"choices": choices, "usage": self._usage}

    def _take_choice(self, choice: dict[str, Any]) -> None:
        if choice.get("error"):
            raise fault_in_reply(choice)
        delta = choice.get("delta")
        if self._finish is None and isinstance(delta, dict):  # anything after the end is a repetition
            said = {
                "content": text_of(delta.get("content")),
                "reasoning_content": text_of(delta.get("reasoning_content") or delta.get("reasoning")),
                "refusal": text_of(delta.get("refusal")),
            }
            for name, text in said.items():
                self._texts[name].write(text)
                self._size += len(text)
            self._take_tool_calls(delta.get("tool_calls"))
            if self._size > self._limit:
                raise too_long(self._limit)
            if self._on_content is not None and said["content"]:
                self._on_content(said["content"])
        self._finish = choice.get("finish_reason") or self._finish

    def _take_tool_calls(self, pieces: object) -> None:
        """Take the next pieces of calls of tools: the first piece of a call names it, all hold arguments."""
        for piece in pieces if isinstance(pieces, list) else []:
            function = piece.get("function") if isinstance(piece, dict) else None
            if not isinstance(function, dict):
                continue
            call = self._tool_calls.setdefault(piece.get("index"), {"function": {"name": "", "arguments": ""}})
            call["id"] = piece.get("id") or call.get("id")
            for name in ("name", "arguments"):
                text = text_of(function.get(name))
                call["function"][name] += text
                self._size += len(text)


def _loads(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class TextStream:
    """The answer of a streamed reply: takes it piece by piece and hands it on, without thoughts and without the key.

    The tail that may yet turn out to be a tag or an escaped form of the key is held back. `thoughts` is the content of
    a `<think>` block at the beginning. A block that the prompt opened (the reply has only its end) cannot be told from
    an answer before it ends, so it is handed on.
    """

    def __init__(self, on_text: Callable[[str], None], hider: KeyHider) -> None:
        self.thoughts = ""
        self._on_text = on_text
        self._hider = hider
        self._answer = StringIO()
        self._held = ""
        self._within = "start"

    @property
    def text(self) -> str:
        """The answer so far, with the key hidden in it as a whole: what is recorded."""
        return self._hider.hide(self._answer.getvalue())

    def take(self, piece: str) -> None:
        """Take the next piece."""
        piece = clean(piece)
        if self._within == "answer":
            self._hand_on(piece)
            return
        self._held += piece
        self._advance()

    def end(self) -> None:
        """Hand on what is left."""
        if self._within == "thoughts":
            self.thoughts, self._held = self.thoughts + self._held, ""
        elif self._within != "answer":
            rest, self._held = self._held.lstrip() if self._within == "after" else self._held, ""
            self._hand_on(rest)
        if left := self._hider.hide(self._held):
            self._on_text(left)
        self._held, self._within = "", "answer"

    def _advance(self) -> None:
        if self._within == "start":
            begun = self._held.lstrip()
            if _OPEN.startswith(begun[: len(_OPEN)]) and len(begun) < len(_OPEN):
                return
            if begun.startswith(_OPEN):
                self._held, self._within = begun[len(_OPEN) :], "thoughts"
            else:
                self._begin_answer()
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
            if self._held:
                self._begin_answer()

    def _begin_answer(self) -> None:
        begun, self._held, self._within = self._held, "", "answer"
        self._hand_on(begun)

    def _hand_on(self, piece: str) -> None:
        self._answer.write(piece)
        ready, self._held = self._hider.split(self._held + piece)
        if ready:
            self._on_text(ready)
