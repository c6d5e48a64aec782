"""A chat server whose model calls tools by the OpenAI protocol, on loopback."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from servers.chat_server import ChatServer


class ToolCallingServer(ChatServer):
    """A model that looks its question up and repeats what it finds; its `habit` says what else it may do.

    "use" calls the first tool once; "loop" calls it every time that it may; "stubborn" even where it may not; "invent"
    first calls a tool that there is none of; "garble" first sends arguments that are no JSON; "both" calls two at once.
    """

    def __init__(self, habit: str = "use") -> None:
        super().__init__()
        self.habit = habit

    async def reply(self, request: web.Request, body: dict[str, Any], question: str) -> web.StreamResponse:
        if "lone" in self.habit or not body.get("tools"):
            return web.json_response(said("The answer is: nothing"))
        found = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        may = body.get("tool_choice") != "none"
        function = body["tools"][0]["function"]
        name, argument = function["name"], next(iter(function["parameters"]["properties"]))
        asked = next(message["content"] for message in body["messages"] if message["role"] == "user")
        text = asked.splitlines()[-1].partition(": ")[2]
        arguments = json.dumps({argument: text})
        if self.habit == "stubborn" or (self.habit == "loop" and may):
            return web.json_response(calling((name, json.dumps({argument: f"{text} {len(found)}"}))))
        if not found and self.habit == "invent":
            return web.json_response(calling(("nothing_of_the_kind", arguments)))
        if not found and self.habit == "garble":
            return web.json_response(calling((name, "{")))
        if not found and self.habit == "both":
            return web.json_response(calling((name, arguments), (name, json.dumps({argument: "Who?"}))))
        if len(found) < 1 + (self.habit in ("invent", "garble")):
            return web.json_response(calling((name, arguments)))
        known = [line.rpartition("? ")[2] for line in asked.splitlines() if line[:1].isdigit()]
        answer = found[0] if self.habit == "both" else found[-1]
        return web.json_response(
            said(f"The answer is: {known[-1] if known and answer.startswith('Error') else answer}")
        )


def said(text: str) -> dict[str, Any]:
    return _reply({"role": "assistant", "content": text}, "stop")


def calling(*calls: tuple[str, str]) -> dict[str, Any]:
    listed = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return _reply({"role": "assistant", "content": None, "tool_calls": listed}, "tool_calls")


def _reply(message: dict[str, Any], finish: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
