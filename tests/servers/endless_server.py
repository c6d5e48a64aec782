"""A chat server with endless replies: /KIND/v1/chat/completions sends KIND until the client disconnects.

Runs as a process (`python endless_server.py` prints its port), so that what it holds is not the client's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress

PART = 1 << 16
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def plain() -> Iterator[bytes]:
    yield OK + b'\r\n{"choices":[{"message":{"content":"'
    while True:
        yield b"x" * PART


def sized() -> Iterator[bytes]:
    yield OK + b"Content-Length: 1000000000\r\n\r\n"
    while True:
        yield b"[" * PART


def chunked() -> Iterator[bytes]:
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"%x\r\n" % PART + b"x" * PART + b"\r\n"


def bomb() -> Iterator[bytes]:
    """A thousandth of what it unpacks to."""
    yield OK + b"Content-Encoding: gzip\r\n\r\n"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    while True:
        yield packer.compress(zeros) + packer.flush(zlib.Z_SYNC_FLUSH)


def stream() -> Iterator[bytes]:
    yield STREAM
    event = b"data: " + json.dumps({"choices": [{"delta": {"content": "ab"}}]}).encode() + b"\n\n"
    while True:
        yield event * (PART // len(event))


def distinct_events() -> Iterator[bytes]:
    """Every event with an id and wide characters of its own."""
    yield STREAM
    number = 0
    while True:
        events = []
        for _ in range(500):
            number += 1
            chunk = {"choices": [{"delta": {"content": f"\N{GRINNING FACE}{number}"}}]}
            events.append(f"id: {number}\ndata: {json.dumps(chunk)}\n\n".encode())
        yield b"".join(events)


def keep_alive() -> Iterator[bytes]:
    yield STREAM
    while True:
        yield b": still there\n\n" * 4000


def one_event() -> Iterator[bytes]:
    yield STREAM + b"data: "
    while True:
        yield b"x" * PART


def headers() -> Iterator[bytes]:
    yield OK
    while True:
        yield b"X-More: y\r\n" * 4000


def one_header() -> Iterator[bytes]:
    yield OK + b"X-More: "
    while True:
        yield b"y" * PART


def informational() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 1000


def error() -> Iterator[bytes]:
    yield b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n"
    while True:
        yield b"x" * PART


KINDS = {
    maker.__name__: maker
    for maker in (
        *(plain, sized, chunked, bomb, stream, distinct_events),
        *(keep_alive, one_event, headers, one_header, informational, error),
    )
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        for part in KINDS[head.split(b"/")[1].decode()]():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
    writer.transport.abort()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
