"""The routes: HTTP in, HTTP out. Every error has OpenAI's shape, and no prompt is ever logged.

aiohttp's low-level server hands requests over directly: a table of paths replaces its router and middlewares.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from aiohttp import web

from fractionate.serve.admission import check_browser
from fractionate.serve.answer import Answered, Event, OnEvent
from fractionate.serve.errors import Refusal, bad
from fractionate.serve.formats import ChatFormatter, Formatter, ResponseFormatter, encoded, headers_of
from fractionate.serve.gateway import Gateway
from fractionate.serve.metrics import CONTENT_TYPE
from fractionate.serve.openapi import LEAST_DEADLINE_S, document
from fractionate.serve.plan import Plan
from fractionate.serve.record import Finished
from fractionate.serve.requests import ClientRequest, read_chat, read_feedback, read_response

LOG = logging.getLogger("fractionate.serve")
SLOW_READER_S = 30.0
"""Seconds past its deadline that a client has to read its stream."""
_JSON = "application/json"
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_PAGE = {
    "/": ("playground.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
}
_PAGE_HEADERS = {
    # Whatever an answer holds, only the page's own script runs, and it connects only to its own server.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class App:
    """Answers the HTTP requests of one gateway. `body_s` are the seconds that a request's body has to arrive."""

    def __init__(self, gateway: Gateway, body_s: float) -> None:
        self._gateway = gateway
        self._body_s = body_s
        self._document = b""
        self._routes: dict[str, tuple[str, Handler]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/responses": ("POST", self._response),
            "/v1/feedback": ("POST", self._feedback),
            "/v1/models": ("GET", self._models),
            "/healthz": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
            **dict.fromkeys(_PAGE, ("GET", self._page)),
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. Everything that goes wrong becomes an error in OpenAI's shape."""
        try:
            return await self._handler(request)(request)
        except Refusal as refusal:
            return self.refused(refusal)
        except web.HTTPRequestEntityTooLarge:
            return self.refused(
                Refusal(413, "the body is larger than this server accepts (--max-body-mb)", code="body_too_large")
            )
        except web.RequestPayloadError:
            return self.refused(bad("the body is not sent as its headers say", code="invalid_body"))
        except (ConnectionError, asyncio.CancelledError):
            self._gateway.metrics.gone.add()
            raise
        except Exception as error:
            # Only the kind and the place: messages of errors may hold what a client wrote.
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            LOG.error("unexpected %s at %s", type(error).__name__, place)
            return self.refused(Refusal(500, "the gateway failed: this is a defect of it", code="internal_error"))

    def refused(self, refusal: Refusal) -> web.Response:
        """Return the reply to a request that is not answered."""
        self._gateway.metrics.refused.add(refusal.code or str(refusal.status))
        return web.Response(
            body=encoded(refusal.body()), status=refusal.status, headers=refusal.headers(), content_type=_JSON
        )

    def _handler(self, request: web.BaseRequest) -> Handler:
        """Return the handler of a request. Raises Refusal (404, 405)."""
        method, handler = self._routes.get(request.raw_path) or self._found(request.path)
        if method not in (request.method, "*"):
            raise Refusal(405, "this path has another method: see /openapi.json", code="wrong_method", allow=method)
        return handler

    def _found(self, path: str) -> tuple[str, Handler]:
        if path in self._routes:  # with a query, or with escapes
            return self._routes[path]
        if path.startswith("/v1/models/") and path != "/v1/models/":
            return "GET", self._model
        if path.startswith("/v1/responses/") and path != "/v1/responses/":
            return "*", self._no_response
        raise Refusal(404, "no such path: see /openapi.json", code="unknown_path")

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._answer(request, read_chat, ChatFormatter)

    async def _response(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._answer(request, read_response, ResponseFormatter)

    async def _no_response(self, request: web.BaseRequest) -> web.StreamResponse:
        self._account(request)
        raise Refusal(404, "this server keeps no responses: there is nothing to fetch", code="not_kept")

    async def _answer(
        self,
        request: web.BaseRequest,
        read: Callable[[bytes, int], ClientRequest],
        make_formatter: Callable[[ClientRequest], Formatter],
    ) -> web.StreamResponse:
        gateway, loop = self._gateway, asyncio.get_running_loop()
        started = loop.time()
        account = self._account(request)
        client_request = read(await self._body(request), gateway.bounds.max_context)
        plan = gateway.plan(client_request)
        until = started + self._deadline_s(request)
        formatter = make_formatter(client_request)
        status = 500
        try:
            if client_request.stream:
                response: web.StreamResponse = await self._stream(request, formatter, plan, account, until)
            else:
                answered = await self._in_time(plan, account, until)
                headers = headers_of(plan, answered.deviations, degraded=answered.degraded)
                response = web.Response(body=encoded(formatter.whole(answered)), headers=headers, content_type=_JSON)
                self._record(formatter, answered, account, started)
            status = response.status
            return response
        except Refusal as refusal:
            status = refusal.status
            raise
        except (asyncio.CancelledError, ConnectionError):
            status = 499
            raise
        finally:
            gateway.metrics.requests.add(plan.pair.id, str(status))
            gateway.metrics.seconds.observe(loop.time() - started)

    async def _in_time(self, plan: Plan, account: str, until: float, on_event: OnEvent | None = None) -> Answered:
        """Answer by `until` (loop time). Raises Refusal where no answer is there by then."""
        try:
            async with asyncio.timeout_at(until):
                return await self._gateway.answer(plan, account, until, on_event)
        except TimeoutError:
            said = f"no answer by its deadline ({self._gateway.bounds.deadline_s:g} s at most: --deadline)"
            raise Refusal(504, said, code="deadline_passed") from None

    async def _stream(
        self, request: web.BaseRequest, formatter: Formatter, plan: Plan, account: str, until: float
    ) -> web.StreamResponse:
        """Send an answer as it is made. An error before its first piece is an ordinary reply; after it, an event."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        started = asyncio.get_running_loop().time()
        work = asyncio.ensure_future(self._in_time(plan, account, until, events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            first = await events.get()
            if first is None and work.exception() is not None:
                await work
            self._gateway.metrics.first_text.observe(asyncio.get_running_loop().time() - started)
            degraded = work.done() and not work.exception() and work.result().degraded
            response = web.StreamResponse(headers={**_STREAM, **headers_of(plan, plan.deviations, degraded=degraded)})
            await response.prepare(request)
            try:
                async with asyncio.timeout_at(until + SLOW_READER_S):
                    await _send_pieces(response, formatter, first, events)
                    await response.write(await self._ending(work, formatter, account, started))
            except TimeoutError:
                raise ConnectionResetError("the client does not read its stream") from None
            await response.write_eof()
            return response
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _ending(
        self, work: asyncio.Future[Answered], formatter: Formatter, account: str, started: float
    ) -> bytes:
        try:
            answered = await work
        except Refusal as refusal:
            self._gateway.metrics.refused.add(refusal.code)
            return formatter.failed(refusal)
        self._record(formatter, answered, account, started)
        return formatter.ending(answered)

    def _record(self, formatter: Formatter, answered: Answered, account: str, started: float) -> None:
        """Record an answer, where a record is kept, before its client can give feedback on it."""
        if self._gateway.traffic is not None:
            seconds = asyncio.get_running_loop().time() - started
            self._gateway.traffic.answered(Finished(formatter.id, answered, account, seconds))

    async def _feedback(self, request: web.BaseRequest) -> web.Response:
        account = self._account(request)
        feedback = read_feedback(await self._body(request))
        if self._gateway.traffic is None:
            raise Refusal(409, "this server keeps no record: start it with --record FILE", code="no_record")
        return _reply(await self._gateway.traffic.feedback(feedback, account))

    async def _models(self, request: web.BaseRequest) -> web.Response:
        self._account(request)
        catalog = self._gateway.catalog
        more = {"recorded": self._gateway.traffic is not None, "example": catalog.example}
        return _reply({**catalog.listing(), "fractionate": more})

    async def _model(self, request: web.BaseRequest) -> web.Response:
        self._account(request)
        return _reply(self._gateway.catalog.entry(request.path.removeprefix("/v1/models/")))

    async def _health(self, request: web.BaseRequest) -> web.Response:
        draining = self._gateway.admission.draining
        return _reply({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        self._account(request)
        return web.Response(body=self._gateway.metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _openapi(self, request: web.BaseRequest) -> web.Response:
        self._document = self._document or encoded(document(self._gateway))
        return web.Response(body=self._document, content_type=_JSON)

    async def _page(self, request: web.BaseRequest) -> web.Response:
        """Send a file of the playground. It holds no secret: the key is typed into it."""
        name, kind = _PAGE[request.path]
        return web.Response(body=_content(name), content_type=kind, charset="utf-8", headers=_PAGE_HEADERS)

    def _account(self, request: web.BaseRequest) -> str:
        """Return the account of a request. Raises Refusal (401, 403)."""
        if not self._gateway.keys:
            check_browser(request.headers)
        return self._gateway.keys.account(request.headers)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Return a request's body. Raises Refusal (408, 415)."""
        if request.content_type != _JSON:
            # A form on any page could send other types without a preflight request.
            raise Refusal(415, "the body must be sent as application/json", code="wrong_content_type")
        if request.content.is_eof():  # the body came with the headers, so reading waits for nothing
            return await request.read()
        try:
            async with asyncio.timeout(self._body_s):
                return await request.read()
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {self._body_s:g} s", code="body_late") from None

    def _deadline_s(self, request: web.BaseRequest) -> float:
        """Return the seconds that a request has: the server's, or fewer where the client says so."""
        most = self._gateway.bounds.deadline_s
        wanted = request.headers.get("x-fractionate-deadline-s")
        if wanted is None:
            return most
        try:
            seconds = float(wanted)
        except ValueError:
            seconds = 0.0
        if not LEAST_DEADLINE_S <= seconds < float("inf"):
            least = f"{LEAST_DEADLINE_S:g}"
            raise bad(f"the header x-fractionate-deadline-s must be a number of seconds, {least} or more")
        return min(most, seconds)


async def _send_pieces(
    response: web.StreamResponse, formatter: Formatter, first: Event | None, events: asyncio.Queue[Event | None]
) -> None:
    """Send pieces as they come. Pieces that have come in the meantime are sent together."""
    parts = [formatter.opening()]
    piece = first
    while piece is not None:
        parts.append(formatter.piece(piece))
        if events.empty():
            await response.write(b"".join(parts))
            parts = []
        piece = await events.get()
    await response.write(b"".join(parts))


def _reply(body: object, status: int = 200) -> web.Response:
    return web.Response(body=encoded(body), status=status, content_type=_JSON)


@cache
def _content(name: str) -> bytes:
    return (files("fractionate.serve") / "page" / name).read_bytes()
