"""An OpenAI-compatible chat server in its own process, for measurements of clients.

Without a delay it answers at once. With a delay, a reply takes that long, and requests above its concurrency get 429 at
once. When its input ends, it prints how many requests it served and refused, when each served one arrived (seconds of
the machine's monotonic clock), and how many it served about each "Passage N" that prompts name.

It implements just enough HTTP/1.1 to be faster than any client here, so that a measurement shows the client.

    python benchmarks/server.py            prints its port, then serves until its input ends or it is killed
    python benchmarks/server.py --delay 0.2 --concurrency 100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter

REPLY = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Q1: How many apples are there? Q2: How many are eaten?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 57, "completion_tokens": 16, "total_tokens": 73},
}
BODY = json.dumps(REPLY).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
OK = HEAD % len(BODY) + BODY
PASSAGE = re.compile(rb"Passage (\d+)")
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Counts requests; with a delay, at most `concurrency` are served at once, and further ones get 429."""

    def __init__(self, delay_s: float, concurrency: int) -> None:
        self.delay_s = delay_s
        self.concurrency = concurrency
        self.active = 0
        self.peak = 0
        self.served = 0
        self.refused = 0
        self.arrivals: list[float] = []
        self.passages: Counter[str] = Counter()


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        server = self.server
        if not server.delay_s:
            server.served += 1
            self.transport.write(OK)
        elif server.active >= server.concurrency:
            server.refused += 1
            self.transport.write(BUSY)
        else:
            server.active += 1
            server.peak = max(server.peak, server.active)
            loop = asyncio.get_running_loop()
            server.arrivals.append(loop.time())
            if (named := PASSAGE.search(body)) is not None:
                server.passages[named[1].decode()] += 1
            loop.call_later(server.delay_s, self.finish)

    def finish(self) -> None:
        self.server.active -= 1
        self.server.served += 1
        if not self.transport.is_closing():
            self.transport.write(OK)


async def serve(delay_s: float, concurrency: int, port: int) -> None:
    state = Server(delay_s, concurrency)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    counts = {"served": state.served, "refused": state.refused, "peak": state.peak, "arrivals": state.arrivals}
    counts["passages"] = state.passages
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds per reply")
    parser.add_argument(
        "--concurrency", type=int, default=1_000_000, help="requests served at once; further ones get 429"
    )
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.delay, arguments.concurrency, arguments.port))
