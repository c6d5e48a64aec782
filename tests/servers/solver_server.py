"""The chat server as a solver of whole prompts: faults by question, streaming, and a gate that holds replies."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from aiohttp import web

from servers.chat_server import FAULTS, ChatServer, answer, error


class SolverServer(ChatServer):
    """Replies "The answer is: WORD." by the last word of the question, streamed letter by letter where it is asked to.

    Faults stand at the beginning of the question, after "Question: ". "[slow] …" streams its first letter and then
    waits until `gate` is set; `holding` counts those, `gone` requests whose client went away. With `fail_every` = n
    every n-th request gets 500; a request that has one of `refused_fields` gets 400.
    """

    notices_who_leaves = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Event()
        self.holding = 0
        self.gone = 0
        self.fail_every = 0
        self.requests = 0
        self.refused_fields: tuple[str, ...] = ()

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        self.requests += 1
        if self.fail_every and self.requests % self.fail_every == 0:
            return error(500, "as you wished")
        for name in self.refused_fields:
            if name in body:
                return error(400, f"Unsupported parameter: '{name}'", param=name)
        bare = question.rpartition("Question: ")[2]
        self.asked[bare] = self.asked[question]
        named = FAULTS.match(bare)
        try:
            if named and named[1] == "slow":
                return await self.held(request, body, bare)
            if named:
                return await super().reply(request, body, bare)
            if body.get("stream"):
                return await self.generated(request, body, bare)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise
        return web.json_response(self.answered_by(body, bare))

    def answered_by(self, body: dict[str, Any], bare: str) -> dict[str, Any]:
        reply = answer(body)
        word = (bare.partition("\n")[0].rstrip("?. ").split() or ["nothing"])[-1]
        words = f"The answer is: {word}."
        for stop in body.get("stop") or []:
            words = words.partition(stop)[0]
        reply["choices"][0]["message"]["content"] = words
        return reply

    async def generated(self, request: web.Request, body: dict[str, Any], bare: str) -> web.StreamResponse:
        reply = self.answered_by(body, bare)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for letter in reply["choices"][0]["message"]["content"]:
            await response.write(chunk({"choices": [{"index": 0, "delta": {"content": letter}}]}))
        await response.write(chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(chunk({"choices": [], "usage": reply["usage"]}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def held(self, request: web.Request, body: dict[str, Any], bare: str) -> web.StreamResponse:
        self.holding += 1
        if not body.get("stream"):
            while not self.gate.is_set():
                await asyncio.sleep(0.01)
            return web.json_response(self.answered_by(body, bare))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk({"choices": [{"index": 0, "delta": {"content": "T"}}]}))
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
            await response.write(b": still here\n\n")
        await response.write(chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        await response.write(b"data: [DONE]\n\n")
        return response


def chunk(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
