"""Reads a server's replies within bounds: a limit of decompressed bytes, regardless of the headers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from fractionate.models.faults import Fault, PermanentFault, TransientFault

if TYPE_CHECKING:
    import aiohttp

MEGABYTE = 1 << 20
STREAM_FACTOR = 16
"""How much longer than its text a streamed reply may be: every token comes in an event of some 200 bytes."""
ERROR_BYTES = 64 << 10
"""Bytes of an error's body that are read; its message stands at the beginning."""
_PART = 16 << 10


async def read_all(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a reply's bytes. Raises PermanentFault where there are more than `limit`."""
    encoding = _encoding(response)
    if not encoding and response.content_length is not None and response.content_length <= limit:
        return await response.read()
    return b"".join([part async for part in read_parts(response, limit)])


async def read_start(response: aiohttp.ClientResponse, limit: int = ERROR_BYTES) -> bytes:
    """Return the beginning of a reply's bytes, at most `limit`."""
    parts: list[bytes] = []
    size = 0
    async for part in read_parts(response, limit + _PART):
        parts.append(part)
        size += len(part)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


async def read_parts(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    """Yield a reply's bytes as they come, in small parts. Raises PermanentFault where there are more than `limit`.

    The event loop has its turn after each: what a server sends as fast as it can holds up no other call, nor Ctrl-C.
    """
    unpack = _unpacker(_encoding(response))
    received = unpacked = 0
    async for raw in response.content.iter_chunked(_PART):
        received += len(raw)
        for part in unpack(raw):
            unpacked += len(part)
            if max(received, unpacked) > limit:
                raise too_long(limit)
            yield part
            await asyncio.sleep(0)
        if received > limit:
            raise too_long(limit)


def too_long(limit: int) -> Fault:
    """Return the fault of a reply that goes on past a limit of bytes: asked again, it would be paid for again."""
    return PermanentFault("too long", f"the reply is longer than {limit / MEGABYTE:g} MB (reply_mb)", maybe_paid=True)


def _encoding(response: aiohttp.ClientResponse) -> str:
    named = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if named == "identity" else named


def _unpacker(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return what turns received bytes into plain ones, in parts of bounded size."""
    if not encoding:
        return _as_it_is
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise TransientFault("bad body", f"the reply is encoded as {encoding[:20]!a}, unasked", maybe_paid=True)
    return _Inflater().feed


def _as_it_is(raw: bytes) -> Iterator[bytes]:
    yield raw


class _Inflater:
    """gzip and zlib, told apart by their first bytes, decompressed a part at a time."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def feed(self, raw: bytes) -> Iterator[bytes]:
        while raw and not self._inner.eof:
            try:
                part = self._inner.decompress(raw, _PART)
            except zlib.error:
                raise TransientFault("bad body", "the reply's compression is broken", maybe_paid=True) from None
            raw = self._inner.unconsumed_tail
            if part:
                yield part
