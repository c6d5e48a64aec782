"""The routes: HTTP in, HTTP out. Every error leaves in OpenAI's shape, and no prompt is ever logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from fractionate.serve.answer import Answered, Event
from fractionate.serve.chat import LEAST_DEADLINE_S, Asked, read_chat
from fractionate.serve.gateway import Gateway
from fractionate.serve.keys import check_browser
from fractionate.serve.metrics import CONTENT_TYPE
from fractionate.serve.openapi import document
from fractionate.serve.plan import Plan
from fractionate.serve.refusals import Refusal, bad
from fractionate.serve.replies import DONE, Envelope, encoded, event, headers_of, model_of, models_of

LOG = logging.getLogger("fractionate.serve")
_JSON = "application/json"
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(gateway: Gateway) -> web.Application:
    """Return the web application of a gateway."""
    app = web.Application(client_max_size=int(gateway.bounds.body_mb * (1 << 20)), middlewares=[_errors(gateway)])
    routes = _Routes(gateway)
    app.router.add_post("/v1/chat/completions", routes.chat)
    app.router.add_get("/v1/models", routes.models, allow_head=False)
    app.router.add_get("/v1/models/{name:.+}", routes.model, allow_head=False)
    app.router.add_get("/healthz", routes.health, allow_head=False)
    app.router.add_get("/metrics", routes.metrics, allow_head=False)
    app.router.add_get("/openapi.json", routes.openapi, allow_head=False)
    return app


def _errors(gateway: Gateway) -> Any:
    """Turn everything that goes wrong into an error in OpenAI's shape."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _refused(gateway, refusal)
        except web.HTTPException as error:
            return _refused(gateway, _of_http(error), {k: v for k, v in error.headers.items() if k == "Allow"})
        except TimeoutError:
            return _refused(gateway, _too_late(gateway))
        except web.RequestPayloadError:
            return _refused(gateway, bad("the body is not sent as its headers say", code="invalid_body"))
        except (ConnectionError, asyncio.CancelledError):
            gateway.metrics.gone.add()
            raise
        except Exception as error:
            # The kind and the place alone: messages of errors may hold what a client wrote.
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            LOG.error("unexpected %s at %s", type(error).__name__, place)
            return _refused(gateway, Refusal(500, "the gateway failed: this is a defect of it", code="internal_error"))

    return middleware


def _refused(gateway: Gateway, refusal: Refusal, more: dict[str, str] | None = None) -> web.Response:
    gateway.metrics.refused.add(refusal.code or str(refusal.status))
    headers = {**refusal.headers(), **(more or {})}
    return web.Response(body=encoded(refusal.body()), status=refusal.status, headers=headers, content_type=_JSON)


def _of_http(error: web.HTTPException) -> Refusal:
    if error.status == 413:
        return Refusal(413, "the body is larger than this server takes (--max-body-mb)", code="body_too_large")
    if error.status == 404:
        return Refusal(404, "no such path: see /openapi.json", code="unknown_path")
    if error.status == 405:
        return Refusal(405, "this path takes another method: see /openapi.json", code="wrong_method")
    return Refusal(error.status, error.reason, code="http_error")


def _too_late(gateway: Gateway) -> Refusal:
    return Refusal(504, f"no answer within {gateway.bounds.deadline_s:g} s (--deadline)", code="deadline_passed")


class _Routes:
    """What answers each path."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._document: bytes = b""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        gateway = self._gateway
        started = asyncio.get_running_loop().time()
        account = self._let_in(request)
        if request.content_type != _JSON:
            # Other types could be sent by a form on any page, without asking first.
            raise Refusal(415, "the body must be sent as application/json", code="wrong_content_type")
        asked = read_chat(await request.read(), gateway.bounds.max_context)
        plan = gateway.plan(asked)
        until = started + self._deadline(request)
        status = 500
        try:
            async with asyncio.timeout_at(until):
                if asked.stream:
                    response: web.StreamResponse = await self._stream(request, asked, plan, account, until)
                else:
                    response = self._whole(asked, await gateway.answer(plan, account, until))
            status = response.status
            return response
        except Refusal as refusal:
            status = refusal.status
            raise
        except TimeoutError:
            status = 504
            raise
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            gateway.metrics.requests.add(plan.pair.id, str(status))
            gateway.metrics.seconds.observe(asyncio.get_running_loop().time() - started)

    def _whole(self, asked: Asked, answered: Answered) -> web.Response:
        body = encoded(Envelope(asked.model).whole(answered))
        headers = headers_of(answered.plan, answered.unlike, degraded=answered.degraded)
        self._tell(answered)
        return web.Response(body=body, headers=headers, content_type=_JSON)

    async def _stream(
        self, request: web.Request, asked: Asked, plan: Plan, account: str, until: float
    ) -> web.StreamResponse:
        """Send an answer as it is made. Until its first piece an error is an ordinary reply; after it, an event."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        started = asyncio.get_running_loop().time()
        work = asyncio.ensure_future(self._gateway.answer(plan, account, until, events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            first = await events.get()
            if first is None and work.exception() is not None:
                await work
            self._gateway.metrics.first_words.observe(asyncio.get_running_loop().time() - started)
            degraded = work.done() and not work.exception() and work.result().degraded
            response = web.StreamResponse(headers={**_STREAM, **headers_of(plan, plan.unlike, degraded=degraded)})
            await response.prepare(request)
            envelope = Envelope(asked.model)
            piece = first
            while piece is not None:
                parts = [event(envelope.chunk(piece))]
                while not events.empty() and (piece := events.get_nowait()) is not None:
                    parts.append(event(envelope.chunk(piece)))
                await response.write(b"".join(parts))
                if piece is not None:
                    piece = await events.get()
            await response.write(await self._ending(work, envelope, asked))
            await response.write_eof()
            return response
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _ending(self, work: asyncio.Future[Answered], envelope: Envelope, asked: Asked) -> bytes:
        try:
            answered = await work
        except Refusal as refusal:
            self._gateway.metrics.refused.add(refusal.code)
            return event(refusal.body())
        self._tell(answered)
        chunks = envelope.ending(answered, include_usage=asked.include_usage)
        return b"".join([*(event(chunk) for chunk in chunks), DONE])

    def _tell(self, answered: Answered) -> None:
        for tell in self._gateway.on_answered:
            tell(answered)

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        self._let_in(request)
        return _json(models_of(self._gateway.catalog))

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/NAME."""
        self._let_in(request)
        return _json(model_of(self._gateway.catalog, request.match_info["name"]))

    async def health(self, request: web.Request) -> web.Response:
        """GET /healthz."""
        draining = self._gateway.admission.draining
        return _json({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        self._let_in(request)
        return web.Response(body=self._gateway.metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: web.Request) -> web.Response:
        """GET /openapi.json."""
        self._document = self._document or encoded(document(self._gateway))
        return web.Response(body=self._document, content_type=_JSON)

    def _let_in(self, request: web.Request) -> str:
        """Return whose request it is. Raises Refusal (401, 403) where it is nobody's."""
        if not self._gateway.keys:
            check_browser(request.headers)
        return self._gateway.keys.account(request.headers)

    def _deadline(self, request: web.Request) -> float:
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


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=encoded(body), status=status, content_type=_JSON)
