"""Connections without a request and malformed bytes: bounded, and answered with errors of one shape."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Measured, through
from test_hostile_requests import on_the_wire

from fractionate.serve import server
from fractionate.serve.gateway import Bounds, Gateway

DESCRIPTORS = 256
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = json.dumps(
    {"model": "fractionate/single:none+teacher", "messages": [{"role": "user", "content": "How far is 7?"}]}
).encode()
REQUEST = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY


@contextmanager
def few_descriptors(folder: Path, log: Path) -> Iterator[int]:
    """Serve with so few file descriptors; yields the port. What the server says goes to `log`."""
    command = [sys.executable, "-m", "fractionate", "serve", str(folder), "--port", "0"]
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}));"
    code += f"import os; os.execv({sys.executable!r}, {command!r})"
    with log.open("w") as errors:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().partition("/v1")[0].rpartition(":")[2])
        finally:
            process.kill()
            process.wait()


def test_half_requests_do_not_keep_others_out(run: Measured, tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1000:
        pytest.skip("this process may open too few sockets to try it")
    log = tmp_path / "log.txt"
    with few_descriptors(run.folder, log) as port, ExitStack() as sockets:
        for number in range(600):
            half = sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.sendall(HEAD if number % 2 else b"PO")
            if number % 100 == 99:  # among ever more of them, each real request is answered
                with socket.create_connection(("127.0.0.1", port), timeout=120) as real:
                    real.sendall(REQUEST)
                    assert real.makefile("rb").readline().split()[1] == b"200"
    assert log.stat().st_size < 2_000, log.read_text()[:500]


def test_the_bound_leaves_descriptors_for_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed(files: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
        return server.most_connections(Bounds(concurrency=64))

    assert allowed(256) == 256 - 48 - 64
    assert allowed(1024) == 1024 - 48 - 64
    assert allowed(64) == 16


def test_where_every_connection_is_in_use_a_new_one_is_refused(run: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda _: 2)
    slow = BODY.replace(b"How far", b"[slow] How far").replace(b"none+teacher", b"none+" + run.solver.encode())

    async def work(url: str, gateway: Gateway) -> None:
        port = int(url.rpartition(":")[2])
        request = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(slow) + slow
        busy = [asyncio.ensure_future(on_the_wire(port, request, ends=False)) for _ in range(2)]
        while run.server.holding < 2:
            await asyncio.sleep(0.005)
        head, body = (await on_the_wire(port, REQUEST, ends=False)).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert json.loads(body)["error"]["code"] == "no_connection"
        run.server.gate.set()
        for reply in await asyncio.gather(*busy):
            assert reply.startswith(b"HTTP/1.1 200")
        assert (await on_the_wire(port, REQUEST, ends=False)).startswith(b"HTTP/1.1 200")

    through(run, work)


def test_headers_and_bodies_that_do_not_come_end(run: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_S", 0.05)
    monkeypatch.setattr(server, "BODY_S", 0.05)

    async def work(url: str, gateway: Gateway) -> None:
        port = int(url.rpartition(":")[2])
        for half in (b"", b"PO", HEAD):
            assert await on_the_wire(port, half, ends=False) == b""
        monkeypatch.undo()  # a real request may take its time, on any machine
        reply = await on_the_wire(port, HEAD + b"Content-Length: 100\r\n\r\n{", ends=False)
        assert reply.startswith(b"HTTP/1.1 408")
        assert error_in(reply)["code"] == "body_late"
        assert (await on_the_wire(port, REQUEST, ends=False)).startswith(b"HTTP/1.1 200")

    through(run, work)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400, "invalid_http"),
        (b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", 400, "invalid_http"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431, "header_too_large"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431, "header_too_large"),
        (b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "unknown_path"),
        (b"PUT /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "wrong_method"),
        (b"GET /v1/chat/completions?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "wrong_method"),
        (HEAD + b"Content-Length: 2000000\r\n\r\n" + b" " * 2_000_000, 413, "body_too_large"),
    ],
)
def test_every_error_has_openais_shape(run: Measured, data: bytes, status: int, code: str) -> None:
    async def work(url: str, gateway: Gateway) -> None:
        data_that_ends = data.replace(b"Host: localhost\r\n", b"Host: localhost\r\nConnection: close\r\n")
        reply = await on_the_wire(int(url.rpartition(":")[2]), data_that_ends, ends=False)
        assert int(reply.split()[1]) == status
        assert b"content-type: application/json" in reply.lower()
        error = error_in(reply)
        assert error["code"] == code
        assert set(error) == {"message", "type", "param", "code"}
        assert (b"allow: " in reply.lower()) == (status == 405)

    through(run, work)


def error_in(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
