"""A real chat server on loopback that misbehaves on request, and counts.

A question may begin with its own faults: "[429,reset] How many?" gets a 429 the first time it is asked, a connection
reset the second time, and an answer from then on. The answer depends on the request alone. Runs in the test's event
loop (`async with ChatServer() as server`) or as a process (`python chat_server.py [--delay S]` prints its port).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sys
from collections import Counter
from typing import Any

from aiohttp import web

FAULTS = re.compile(r"^\[([\w,.-]+)\]")


class ChatServer:
    """`asked` counts requests by question, `answered` those that were paid for; `bodies` keeps what was sent."""

    notices_who_leaves = False
    host = "127.0.0.1"

    def __init__(
        self, *, delay_s: float = 0.0, concurrency: int | None = None, tls: Any = None, serves: str = "test"
    ) -> None:
        self.delay_s = delay_s
        self.concurrency = concurrency
        self.tls = tls
        self.serves = serves
        self.port = 0
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.redirected: list[str] = []
        self.active = 0
        self.peak = 0
        self.refused = 0
        self.billed_tokens = 0
        self.hanging: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> ChatServer:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/elsewhere", self.elsewhere)
        app.router.add_get("/count", self.count)
        self.add_routes(app)
        self.runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=self.notices_who_leaves
        )
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.host, self.port, ssl_context=self.tls)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for future in self.hanging:
            future.cancel()
        await self.runner.cleanup()

    async def die(self) -> None:
        """Go away as a killed process does: nobody listens, open connections are reset. `async with` brings it back."""
        assert self.runner.server is not None
        for site in list(self.runner.sites):
            await site.stop()
        for connection in self.runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self.runner.cleanup()

    def add_routes(self, app: web.Application) -> None:
        """For servers that speak more."""

    @property
    def base_url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}/v1"

    @property
    def name(self) -> str:
        return f"{self.base_url}#test"

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.serves, "object": "model"}]})

    async def count(self, request: web.Request) -> web.Response:
        return web.json_response({"asked": self.asked, "answered": self.answered, "peak": self.peak})

    async def elsewhere(self, request: web.Request) -> web.Response:
        self.redirected.append(request.headers.get("Authorization", ""))
        return web.json_response({})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.authorizations.append(request.headers.get("Authorization", ""))
        question = body["messages"][-1]["content"]
        self.asked[question] += 1
        if self.concurrency is not None and self.active >= self.concurrency:
            self.refused += 1
            return error(429, "slow down")
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await asyncio.sleep(self.delay_s)
            return await self.reply(request, body, question)
        finally:
            self.active -= 1

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        named = FAULTS.match(question)
        faults = named.group(1).split(",") if named else []
        times = self.asked[question]
        always = bool(faults) and faults[-1] == "always"
        fault = faults[0] if always else faults[times - 1] if times <= len(faults) else "ok"
        reply = answer(body)
        choice: dict[str, Any] = reply["choices"][0]
        match fault:
            case "hang":
                waiting = asyncio.get_running_loop().create_future()
                self.hanging.add(waiting)
                await waiting
            case "reset":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "half":
                text = json.dumps(reply)
                return web.Response(text=text[: len(text) // 2], content_type="application/json")
            case "cut":
                response = web.StreamResponse(headers={"Content-Length": "5000", "Content-Type": "application/json"})
                await response.prepare(request)
                await response.write(b'{"choices": [')
                assert request.transport is not None
                request.transport.abort()
                return response
            case "html":
                return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
            case "mistyped":
                self.paid(question, reply)
                return web.Response(text=json.dumps(reply), content_type="text/plain")
            case "empty":
                reply["choices"] = []
            case "notdict":
                return web.json_response([1, 2])
            case "nomessage":
                reply["choices"] = [{"index": 0}]
            case "inner":
                return web.json_response({"error": {"message": "upstream failed", "code": 502}})
            case "refusal":
                choice["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
            case "length":
                choice["finish_reason"] = "length"
            case "filter":
                choice["finish_reason"] = "content_filter"
                choice["message"]["content"] = ""
            case "think":
                choice["message"]["content"] = f"<think>Let me see.</think>\n\n{choice['message']['content']}"
            case "reasoning":
                choice["message"]["reasoning_content"] = "Let me see."
                reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
                reply["usage"]["prompt_tokens_details"] = {"cached_tokens": 5}
            case "usage-none":
                del reply["usage"]
            case "usage-wrong":
                reply["usage"] = {"prompt_tokens": -5, "completion_tokens": "many"}
            case "surrogate":
                choice["message"]["content"] = "half an emoji \ud83d"
            case "redirect":
                raise web.HTTPTemporaryRedirect("/elsewhere")
            case "401":
                return error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
            case "404":
                return error(404, "The model `test` does not exist", code="model_not_found")
            case "context":
                return error(400, "This model's maximum context length is 10 tokens", code="context_length_exceeded")
            case "policy":
                return error(400, "The response was filtered", code="content_filter")
            case "400":
                return error(400, "messages must be nicer")
            case "quota":
                return error(429, "You exceeded your current quota", code="insufficient_quota")
            case "429-after":
                return error(429, "slow down", headers={"Retry-After": "1"})
            case "429-ms":
                return error(429, "slow down", headers={"retry-after-ms": "50"})
            case "429-day":
                return error(429, "come back tomorrow", headers={"Retry-After": "86400"})
            case "limits":
                headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
                self.paid(question, reply)
                return web.json_response(reply, headers=headers)
            case "echo-key":
                choice["message"]["content"] = f"you sent {request.headers.get('Authorization')}"
            case "echo-key-error":
                return error(500, f"upstream said: Authorization: {request.headers.get('Authorization')}")
            case "no-format" if "response_format" in body:
                return error(400, "Unknown parameter: 'response_format'", param="response_format")
            case "no-limit" if "max_tokens" in body:
                return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
            case "no-limit" if "temperature" in body:
                return error(400, "Unsupported value: 'temperature' does not support 0.0", param="temperature")
            case "sse" | "sse-twice" | "sse-anonymous" | "sse-cut":
                self.paid(question, reply)
                return await stream(request, reply, fault)
            case "500" | "503" | "502" | "429" | "408":
                return error(int(fault), "as you wished")
        self.paid(question, reply)
        return web.json_response(reply)

    def paid(self, question: str, reply: dict[str, Any]) -> None:
        self.answered[question] += 1
        usage = reply.get("usage") or {}
        if isinstance(usage.get("completion_tokens"), int):
            self.billed_tokens += usage["prompt_tokens"] + usage["completion_tokens"]


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a body: its text depends on messages and temperature alone."""
    seen = json.dumps([body["messages"], body.get("temperature")], sort_keys=True)
    digest = hashlib.sha256(seen.encode()).hexdigest()
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or 16
    tokens = 1 + int(digest[:2], 16) % max(1, limit)
    words = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "id": "chatcmpl-" + digest[:8],
        "object": "chat.completion",
        "model": body.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": digest[:12]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": words + 4, "completion_tokens": tokens, "total_tokens": words + 4 + tokens},
    }


def error(status: int, message: str, *, headers: dict[str, str] | None = None, **fields: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "error", **fields}}, status=status, headers=headers)


async def stream(request: web.Request, reply: dict[str, Any], how: str) -> web.StreamResponse:
    """Send a reply as server-sent events, every event twice or without its end if asked."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    times = 2 if how in ("sse-twice", "sse-anonymous") else 1
    text = reply["choices"][0]["message"]["content"]
    chunks = [{"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in text]
    if how != "sse-cut":
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": reply["usage"]})
    for number, chunk in enumerate(chunks):
        marker = "" if how == "sse-anonymous" else f"id: {number}\n"
        event = f"{marker}data: {json.dumps(chunk)}\n\n".encode()
        await response.write(event * times)
    if how != "sse-cut":
        await response.write(b"data: [DONE]\n\n" * times)
    return response


async def main(delay_s: float) -> None:
    async with ChatServer(delay_s=delay_s) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    asyncio.run(main(parser.parse_args().delay))
