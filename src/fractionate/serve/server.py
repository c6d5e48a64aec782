"""A gateway as a process: it listens, bounds its connections, and ends after its last answer.

Connections are bounded in number and in time, since each one takes a file descriptor, and a process without descriptors
can neither accept a client nor reach a solver.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from fractionate.errors import FractionateError, UsageError
from fractionate.serve.app import App
from fractionate.serve.errors import Refusal
from fractionate.serve.gateway import Bounds, Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOG = logging.getLogger("fractionate.serve")
MOST_HEADER = 8190
"""Bytes of a request's first line, and of each header."""
HEADER_S = 15.0
"""Seconds that a new connection has to send the headers of its first request."""
BODY_S = 30.0
"""Seconds that a request's body has to arrive."""
IDLE_S = 75.0
"""Seconds that a connection may stay without a request, or within the headers of a further one."""
_RESERVED_FILES = 48
"""Descriptors kept for the store, the ledger, the record, weights and the interpreter."""
_FEWEST_CONNECTIONS = 16
_SHUTDOWN_S = 2.0
"""Seconds that connections have after the last answer."""
_FULL = Refusal(503, "the server has no connection left: try again", code="no_connection", after_s=1)


def most_connections(bounds: Bounds) -> int:
    """Return how many clients may be connected at once, by the descriptors that this process may open.

    Each request that is answered may need a connection to a solver as well.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 4096
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return 1 << 16
    return max(_FEWEST_CONNECTIONS, files - _RESERVED_FILES - min(bounds.concurrency, files // 4))


class _Connection(web.RequestHandler):
    """One client's connection: bounded in time until its first request, with errors in OpenAI's shape."""

    __slots__ = ("_late", "_server", "requests")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.requests = 0
        self._server = server
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._late = self._loop.call_later(HEADER_S, self._without_request)
        self._server.make_room(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the reply to bytes that are no request."""
        if isinstance(exc, LineTooLong):
            most = f"{MOST_HEADER:,} bytes"
            refusal = Refusal(431, f"the first line or a header is longer than {most}", code="header_too_large")
        elif status == 400:
            refusal = Refusal(400, "the request is not valid HTTP", code="invalid_http")
        else:
            refusal = Refusal(status, "the gateway failed: this is a defect of it", code="internal_error")
        response = self._server.app.refused(refusal)
        response.force_close()
        return response

    def _without_request(self) -> None:
        if not self.requests:
            self.force_close()


class _Server(web.Server):
    """Accepts connections up to a bound. Beyond it, a new connection replaces an idle one."""

    def __init__(self, app: App, most: int, body_bytes: int) -> None:
        super().__init__(self._handle, request_factory=self._request, handler_cancellation=True)
        self.app = app
        self._most = most
        self._body_bytes = body_bytes
        self._busy: set[object] = set()
        silent = logging.getLogger("fractionate.serve.http")
        silent.setLevel(logging.CRITICAL)  # it would quote what it could not read
        self._options: dict[str, Any] = {
            "loop": asyncio.get_running_loop(),
            "logger": silent,
            "access_log": None,
            "keepalive_timeout": IDLE_S,
            "max_line_size": MOST_HEADER,
            "max_field_size": MOST_HEADER,
        }

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, **self._options)

    def make_room(self, new: _Connection) -> None:
        """Close an idle connection where there are too many: the oldest one that never sent a request comes first.

        Where every other connection is in use, the new one is refused.
        """
        connections = self.connections
        if len(connections) <= self._most:
            return
        idle = [one for one in connections if one is not new and one not in self._busy and one.transport is not None]
        if idle:
            min(idle, key=lambda one: bool(getattr(one, "requests", 0))).force_close()
            return
        reply = self.app.refused(_FULL)
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {reply.content_type}\r\nRetry-After: 1\r\n"
        body = reply.body if isinstance(reply.body, bytes) else b""
        if isinstance(new.transport, asyncio.Transport):
            new.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        new.force_close()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = self._options["loop"]
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=self._body_bytes)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection: Any = request.protocol
        connection.requests += 1
        self._busy.add(connection)
        try:
            return await self.app(request)
        finally:
            self._busy.discard(connection)


@asynccontextmanager
async def listening(gateway: Gateway, host: str, port: int) -> AsyncIterator[str]:
    """Listen while the block runs; yields the server's URL. Raises UsageError for an address that cannot be used."""
    bounds = gateway.bounds
    server = _Server(App(gateway, BODY_S), most_connections(bounds), int(bounds.body_mb * (1 << 20)))
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
    asyncio.get_running_loop().set_exception_handler(_log_briefly())
    await runner.setup()
    try:
        # A short backlog: where descriptors run out all the same, asyncio logs an error for each connection in it.
        site = web.TCPSite(runner, host, port, backlog=128)
        try:
            await site.start()
        except OSError as error:
            raise _no_address(host, port, error) from None
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{bound}"
    finally:
        await runner.cleanup()
        await gateway.close()


async def serve(gateway: Gateway, host: str, port: int, say: Callable[[str], None], *, check: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was begun, within `drain_s`. A second signal ends at once."""
    loop = asyncio.get_running_loop()
    asked_to_end, at_once = asyncio.Event(), asyncio.Event()

    def end() -> None:
        (at_once if asked_to_end.is_set() else asked_to_end).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if check:
        try:
            await gateway.check_models()
            await gateway.load_models()
        except FractionateError:
            await gateway.close()
            raise
    async with listening(gateway, host, port) as url:
        say(url)
        await asked_to_end.wait()
        await _drain(gateway, at_once)


async def _drain(gateway: Gateway, at_once: asyncio.Event) -> None:
    """Begin nothing new and wait for what was begun."""
    gateway.admission.draining = True
    end = asyncio.get_running_loop().time() + gateway.bounds.drain_s
    while gateway.admission.inside and not at_once.is_set() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.02)


def _log_briefly() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return a handler of the event loop's own errors: one line for each kind, without a traceback, at most 100."""
    counts: dict[str, int] = {}

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        kind = f"{context['message']} ({type(context.get('exception')).__name__})"
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] == 1 and len(counts) <= 100:
            LOG.error("the event loop reports: %s; further reports of this kind are left out", kind)

    return handle


def _no_address(host: str, port: int, error: OSError) -> FractionateError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of {host} is in use: stop what listens there, or take another with --port")
    return UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}")
