"""A server with arbitrary replies: status × headers × body × timing, as raw bytes on real connections.

`behaviours(count, seed)` draws from all combinations; before those it gives every body and every header once. A body
may repeat the key that was sent, in any disguise: `KEY` stands for it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

KEY = "sk-hostile-0123-ABC_xyz+456789"
"""The key that the attacks call with."""


def reply(text: Any, **fields: Any) -> dict[str, Any]:
    """Return a chat completion that says `text`."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage, **fields}


def stream_of(*deltas: dict[str, Any], end: bytes = b"data: [DONE]\n\n") -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + end


def escaped(text: str) -> str:
    """Return text with every character as a JSON escape."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


ECHOES: dict[str, bytes] = {
    "plain": json.dumps(reply(f"you sent Bearer {KEY}")).encode(),
    "json escapes": b'{"choices":[{"message":{"content":"you sent %s"}}]}' % escaped(KEY).encode(),
    "one escape": b'{"choices":[{"message":{"content":"%s"}}]}' % KEY.replace("-", "\\u002d").encode(),
    "escapes within the text": json.dumps(reply(f"you sent {escaped(KEY)}")).encode(),
    "python escapes": json.dumps(reply("".join(f"\\x{ord(letter):02x}" for letter in KEY))).encode(),
    "utf-16": json.dumps(reply(f"you sent {KEY}")).encode("utf-16"),
    "utf-32": json.dumps(reply(f"you sent {KEY}")).encode("utf-32"),
    "utf-16 as text": json.dumps(reply("\0".join(KEY))).encode(),
    "parts": json.dumps(reply([{"type": "text", "text": part} for part in (KEY[:9], KEY[9:20], KEY[20:])])).encode(),
    "reasoning": json.dumps(reply("4", message={"reasoning_content": f"key {KEY}"})).encode(),
    "escaped reasoning": json.dumps(reply("4", message={"reasoning": escaped(KEY)})).encode(),
    "thoughts": json.dumps(reply(f"<think>{KEY}</think>4")).encode(),
    "refusal": json.dumps(reply(None, message={"refusal": f"not with {KEY}"})).encode(),
    "base64": json.dumps(reply(base64.b64encode(f"Bearer {KEY}".encode()).decode())).encode(),
    "base64 again": json.dumps(reply(base64.b64encode(f"x{KEY}y".encode()).decode())).encode(),
    "hexadecimal": json.dumps(reply(KEY.encode().hex())).encode(),
    "url": json.dumps(reply("".join(f"%{ord(letter):02X}" for letter in KEY))).encode(),
    "url quoted": json.dumps(reply(quote(KEY, safe=""))).encode(),
    "html": json.dumps(reply("".join(f"&#{ord(letter)};" for letter in KEY))).encode(),
    "html hexadecimal": json.dumps(reply("".join(f"&#x{ord(letter):X};" for letter in KEY))).encode(),
    "error": json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY, "type": KEY}}).encode(),
    "long error": json.dumps({"error": {"message": "x" * 275 + KEY}}).encode(),
    "error text": b"x" * 100 + KEY.encode(),
    "escaped error": b'{"error":{"message":"%s"}}' % escaped(KEY).encode(),
    "cut error, one letter a line": json.dumps({"error": {"message": "x" * 255 + "\n".join(KEY)}}).encode(),
    "spaced": json.dumps(reply(" ".join(KEY))).encode(),
    "one letter a line": json.dumps(reply("\n".join(KEY))).encode(),
    "backwards": json.dumps(reply(KEY[::-1])).encode(),
    "usage": json.dumps({**reply("4"), "usage": KEY}).encode(),
    "finish": json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": KEY}]}).encode(),
}
"""Replies that repeat the key, by how they disguise it."""
STREAMED_ECHOES: dict[str, bytes] = {
    "deltas": stream_of(*({"content": letter} for letter in KEY)),
    "reasoning deltas": stream_of(*({"reasoning_content": letter} for letter in KEY), {"content": "4"}),
    "escaped deltas": stream_of(*({"content": escaped(letter)} for letter in KEY)),
    "refusal deltas": stream_of(*({"refusal": letter} for letter in KEY)),
    "spaced deltas": stream_of(*({"content": f"{letter} "} for letter in KEY)),
    "deltas backwards": stream_of(*({"content": letter} for letter in reversed(KEY))),
    "cut streamed error": b'data: {"error": {"message": "%s"}}\n\n' % (b"x" * 275 + KEY.encode()),
    "streamed error": b'data: {"error": {"message": "%s"}}\n\n' % escaped(KEY).encode(),
}
DEEP = b"[" * 100_000
BODIES: dict[str, bytes] = {
    "good": json.dumps(reply("It is four.")).encode(),
    "good stream": stream_of({"content": "It is "}, {"content": "four."}),
    "nothing": b"",
    "null": b"null",
    "number": b"1e999",
    "long number": b'{"usage": {"prompt_tokens": %s}}' % (b"9" * 10_000),
    "deep": DEEP,
    "deep object": b'{"a":' * 100_000,
    "deep content": b'{"choices":[{"message":{"content":' + DEEP,
    "deep stream": b"data: " + DEEP + b"\n\n",
    "deep error": b'{"error":' + DEEP,
    "html": b"<html>\x1b[2J\x1b]0;owned\x07bad gateway</html>",
    "terminal escapes": json.dumps({"error": {"message": "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202eback"}}).encode(),
    "escaped content": json.dumps(reply("\x1b[2Jclear\x00\x07\x9b")).encode(),
    "not utf-8": b'{"choices":[{"message":{"content":"\xff\xfe\xfa"}}]}',
    "surrogate": b'{"choices":[{"message":{"content":"\\ud83d"}}]}',
    "half": json.dumps(reply("It is four.")).encode()[:40],
    "text choices": b'{"choices":"four"}',
    "no message": b'{"choices":[{}]}',
    "list content": b'{"choices":[{"message":{"content":[1,null,{"text":5},{"text":"4"}]}}]}',
    "absurd usage": json.dumps({**reply("4"), "usage": {"prompt_tokens": 10**30, "completion_tokens": 1e300}}).encode(),
    "negative usage": json.dumps({**reply("4"), "usage": {"prompt_tokens": -5, "completion_tokens": -1}}).encode(),
    "text usage": json.dumps({**reply("4"), "usage": {"prompt_tokens": "many", "total_tokens": []}}).encode(),
    "inner error": b'{"error":{"message":"upstream","code":502}}',
    "odd error": b'{"error":{"message":["a",{"b":1}],"code":{"c":2},"param":[],"type":7}}',
    "error of errors": b'{"error":"max_tokens temperature stop response_format"}',
    "rejects a field": b'{"error":{"message":"temperature is not supported","param":"temperature"}}',
    "stream without end": stream_of({"content": "a"}, end=b""),
    "stream of nothing": b": keep-alive\n\n" * 100,
    "stream of numbers": b"data: 5\n\ndata: [DONE]\n\n",
    "stream of odd deltas": b'data: {"choices":[5,{"delta":[]},{"delta":{"content":{"a":1}}}]}\n\ndata: [DONE]\n\n',
    "blank lines": b"\n" * 50_000,
    "carriage returns": b"\r\n\r\n" * 20_000,
    "one line": b"data: " + b"x" * 100_000,
    "zeros": bytes(50_000),
    **{f"echo: {name}": body for name, body in ECHOES.items()},
    **{f"echo in a stream: {name}": body for name, body in STREAMED_ECHOES.items()},
}
HEADERS: dict[str, list[bytes]] = {
    "plain": [b"Content-Type: application/json"],
    "stream": [b"Content-Type: text/event-stream; charset=utf-8"],
    "none": [],
    "odd type": [b"Content-Type: \xff\xfe\x80/\xc3\x28"],
    "escaped type": [b"Content-Type: text/\x1b[2Jhtml"],
    "long type": [b"Content-Type: " + b"x" * 5000],
    "odd charset": [b"Content-Type: application/json; charset=klingon"],
    "retry soon": [b"Content-Type: application/json", b"Retry-After: 0"],
    "retry at no date": [b"Retry-After: Wed, 21 Oct 99999 07:28:00 GMT"],
    "retry out of range": [b"Retry-After: Mon, 01 Jan 0001 00:00:00 -2359"],
    "retry in 9999": [b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359"],
    "retry never": [b"Retry-After: 1e308"],
    "retry in digits": [b"Retry-After: " + b"9" * 4000],
    "retry before": [b"Retry-After: -5", b"retry-after-ms: -1e300"],
    "retry in bytes": [b"Retry-After: \xff\xfe"],
    "retry nan": [b"retry-after-ms: nan", b"Retry-After: inf"],
    "limits": [b"x-ratelimit-remaining-requests: 0", b"x-ratelimit-reset-requests: 5ms"],
    "odd limits": [b"x-ratelimit-remaining-requests: 1e999", b"x-ratelimit-reset-requests: " + b"9" * 3000 + b"h"],
    "byte limits": [b"x-ratelimit-remaining-tokens: \xb2", b"x-ratelimit-reset-tokens: \xff"],
    "gzip, not": [b"Content-Encoding: gzip"],
    "deflate, not": [b"Content-Encoding: deflate"],
    "brotli": [b"Content-Encoding: br"],
    "unknown encoding": [b"Content-Encoding: \xff\x00klingon"],
    "long header": [b"X-Long: " + b"x" * 20_000],
    "many headers": [b"X-%d: y" % number for number in range(2000)],
    "no colon": [b"this is no header"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 7"],
    "negative length": [b"Content-Length: -5"],
    "huge length": [b"Content-Length: 99999999999999999999"],
    "chunked, not": [b"Transfer-Encoding: chunked"],
    "location": [b"Location: http://127.0.0.1:9/elsewhere"],
    "cookie": [b"Set-Cookie: session=" + KEY.encode()],
    "key": [b"X-Key: " + KEY.encode(), b"Content-Type: text/" + KEY.encode()],
}
STATUSES = (
    *(b"200 OK", b"200 OK", b"200 OK", b"201 Created", b"204 No Content", b"206 Partial", b"301 Moved", b"304 Same"),
    *(b"400 Bad", b"401 No", b"402 Pay", b"403 No", b"404 Gone", b"408 Slow", b"409 Odd", b"413 Big", b"422 Odd"),
    *(b"429 Busy", b"500 Oops", b"502 Gate", b"503 Busy", b"504 Slow", b"529 Busy", b"599 Odd", b"999 Odd"),
    *(b"099 Odd", b"20x OK", b"", b"200 \xff\xfe\x1b[2J"),
)
TIMINGS = ("at once", "in pieces", "cut in the middle", "reset", "stalled", "twice")
PACKED = {"gzip": gzip.compress, "deflate": zlib.compress}


@dataclass(frozen=True)
class Behaviour:
    """One way to answer. `name` says which, so that a failure can be repeated."""

    name: str
    status: bytes
    headers: list[bytes]
    body: bytes
    timing: str

    def raw(self) -> bytes:
        """Return the whole answer; it ends with the connection unless a header says where."""
        return b"\r\n".join([b"HTTP/1.1 " + self.status, *self.headers, b"Connection: close", b"", b""]) + self.body


def behaviour(status: bytes, headers: str, body: str, timing: str, packed: str = "") -> Behaviour:
    data, lines = BODIES[body], list(HEADERS[headers])
    if packed:
        data = PACKED[packed](data)
        lines.append(b"Content-Encoding: " + packed.encode())
    name = f"{status!r}, headers {headers!r}, body {body!r}, {timing}{packed and ', '}{packed}"
    return Behaviour(name, status, lines, data, timing)


def behaviours(count: int, seed: int) -> Iterator[Behaviour]:
    """Yield every body and every header once with what they go with, then `count` combinations drawn by `seed`."""
    for body in BODIES:
        stream = "stream" if "stream" in body else "plain"
        yield behaviour(b"200 OK", stream, body, "at once")
        yield behaviour(b"500 Oops", stream, body, "at once")
    for headers in HEADERS:
        yield behaviour(b"200 OK", headers, "good", "at once")
        yield behaviour(b"429 Busy", headers, "error of errors", "at once")
    draw = random.Random(seed)
    for _ in range(count):
        yield behaviour(
            draw.choice(STATUSES),
            draw.choice(list(HEADERS)),
            draw.choice(list(BODIES)),
            draw.choice(TIMINGS),
            draw.choice(["", "", "", "gzip", "deflate"]),
        )


class Hostile:
    """Answers the path /N/… with behaviour N. `authorizations` keeps what keys it was sent."""

    def __init__(self, known: list[Behaviour]) -> None:
        self.known = known
        self.authorizations: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Hostile:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def base_url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.port}/{number}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields.get(b"Content-Length", b"0")))
            self.authorizations.append(fields.get(b"Authorization", b"").decode())
            await self._answer(self.known[int(head.split(b"/")[1])], writer)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, how: Behaviour, writer: asyncio.StreamWriter) -> None:
        raw = how.raw()
        if how.timing == "reset":
            writer.transport.abort()
            return
        if how.timing == "in pieces":
            for start in range(0, min(len(raw), 200), 7):
                writer.write(raw[start : start + 7])
                await asyncio.sleep(0)
            writer.write(raw[203:] if len(raw) > 200 else b"")
        elif how.timing in ("cut in the middle", "stalled"):
            writer.write(raw[: len(raw) // 2])
        else:
            writer.write(raw * (2 if how.timing == "twice" else 1))
        await writer.drain()
        if how.timing == "stalled":
            await asyncio.sleep(600)
