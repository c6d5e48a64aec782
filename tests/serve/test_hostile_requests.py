"""Ten thousand malformed requests, and requests generated from the schema: no 5xx, no leak, no memory growth."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from typing import Any

import aiohttp
from serving import Measured, through

from fractionate.serve.gateway import Gateway

SECRET = "only-the-first-client-knows-7301"
COUNT = 10_000
_GOOD = {"model": "fractionate/single:none+teacher", "messages": [{"role": "user", "content": "How far is 7?"}]}


def body(draw: random.Random) -> bytes:
    """Return a body that is wrong in one of many ways."""
    junk: list[Any] = [None, True, -1, 1e308, "", "x" * 2000, [], {}, [[]], {"a": {}}, "\x00", "\u202e", 2**70, [None]]
    good = json.loads(json.dumps(_GOOD))
    kind = draw.randrange(8)
    if kind == 0:
        return draw.randbytes(draw.randrange(200))
    if kind == 1:
        text = json.dumps(good).encode()
        return text[: draw.randrange(len(text))]
    if kind == 2:
        text = bytearray(json.dumps(good).encode())
        text[draw.randrange(len(text))] = draw.randrange(256)
        return bytes(text)
    if kind == 3:
        good[draw.choice([*good, "temperature", "n", "stop", "stream_options", "fractionate", "tools"])] = draw.choice(
            junk
        )
    elif kind == 4:
        good["messages"][0][draw.choice(["role", "content", "name", "tool_calls"])] = draw.choice(junk)
    elif kind == 5:
        good["messages"] = [draw.choice([*junk, *good["messages"]]) for _ in range(draw.randrange(5))]
    elif kind == 6:
        return b"[" * draw.randrange(1, 50_000)
    else:
        good[draw.choice(["", "модель", "a" * 500, "n\n", "__proto__"])] = draw.choice(junk)
    return json.dumps(good).encode()


def raw(draw: random.Random, payload: bytes) -> bytes:
    """Return bytes on the wire that are no good HTTP, or only just."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return draw.choice(
        [
            lambda: draw.randbytes(300) + b"\r\n\r\n",
            lambda: b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
            lambda: head + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
            lambda: head + b"Content-Length: -5\r\n\r\n" + payload,
            lambda: head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + payload,
            lambda: head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + payload,
            lambda: head + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + payload,
            lambda: head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload,
            lambda: b"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
            lambda: b"GET /v1/models/%ff%00..%2f HTTP/1.1\r\nHost: localhost\r\n\r\n",
            lambda: b"POST /v1/chat/completions HTTP/9.9\r\nHost: localhost\r\n\r\n",
            lambda: b"GET /v1/models HTTP/1.1\r\nHost: \xff\xfe[::\r\nAuthorization: \xff\r\n\r\n",
        ]
    )()


async def on_the_wire(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """Send bytes and return all that comes back; `ends` says that nothing more will be sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if ends:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 120)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_ten_thousand_malformed_requests(run: Measured) -> None:
    draw = random.Random(0)

    async def work(url: str, gateway: Gateway) -> None:
        port = int(url.rpartition(":")[2])
        statuses: dict[int, int] = {}
        answers: list[bytes] = []

        async def send(session: aiohttp.ClientSession, count: int) -> None:
            for _ in range(count):
                payload = body(draw)
                if draw.random() < 0.15:
                    reply = await on_the_wire(port, raw(draw, payload))
                    status = int(reply.split()[1]) if reply.startswith(b"HTTP/") else 0
                else:
                    headers = {"Content-Type": "application/json"}
                    async with session.post(f"{url}/v1/chat/completions", data=payload, headers=headers) as got:
                        status, reply = got.status, await got.read()
                        assert got.content_type == "application/json"
                        assert status == 200 or json.loads(reply)["error"]["message"]
                statuses[status] = statuses.get(status, 0) + 1
                answers.append(reply)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            first = {**_GOOD, "messages": [{"role": "user", "content": SECRET}]}
            async with session.post(f"{url}/v1/chat/completions", json=first) as reply:
                assert SECRET in await reply.text()
            await asyncio.gather(*(send(session, 50) for _ in range(20)))  # what is made once is there now
            answers.clear()
            gc.collect()
            before = len(gc.get_objects())
            statuses.clear()
            for _ in range(9):
                await asyncio.gather(*(send(session, 50) for _ in range(20)))
                assert not any(SECRET.encode() in answer for answer in answers)
                assert not any(b"Traceback" in answer or b".py" in answer for answer in answers)
                answers.clear()
            gc.collect()
            grown = len(gc.get_objects()) - before
            assert (await (await session.get(f"{url}/healthz")).json()) == {"status": "ok"}
        assert sum(statuses.values()) == COUNT - 1000
        assert not [status for status in statuses if status >= 500], statuses
        assert statuses[400] > COUNT / 2
        assert grown < COUNT / 10, f"{grown} objects more after {COUNT} requests"
        assert SECRET not in gateway.metrics.text()
        assert gateway.admission.inside == 0

    through(run, work)
