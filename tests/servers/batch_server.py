"""The chat server with OpenAI's batch endpoint: files, batches, output and error files."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from servers.chat_server import FAULTS, ChatServer, answer


class BatchServer(ChatServer):
    """Answers a batch after `polls` looks at it. A question "[fail] …" fails in its first batch, "[drop] …" is never
    answered there, "[reject] …" is always rejected. `submitted` counts requests by question.
    """

    def __init__(self, polls: int = 2) -> None:
        super().__init__()
        self.polls = polls
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.created = 0
        self.fail_create = False
        self.lose_reply = False

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.list)
        app.router.add_get("/v1/batches/{id}", self.look)

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        return web.json_response({"id": self.keep(form["file"].file.read())})  # type: ignore[union-attr]

    def keep(self, data: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return name

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.fail_create:
            return web.json_response({"error": {"message": "billing limit"}}, status=400)
        self.created += 1
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        batch = {
            "id": f"batch_{self.created}",
            "status": "validating",
            "metadata": body["metadata"],
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        for line in lines:
            self.asked[line["body"]["messages"][-1]["content"]] += 1
        self.batches[batch["id"]] = {"batch": batch, "lines": lines, "looks": 0}
        if self.lose_reply:
            self.lose_reply = False
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(batch)

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [entry["batch"] for entry in self.batches.values()]})

    async def look(self, request: web.Request) -> web.Response:
        entry = self.batches[request.match_info["id"]]
        entry["looks"] += 1
        if entry["looks"] >= self.polls and entry["batch"]["status"] != "completed":
            self.finish(entry)
        return web.json_response(entry["batch"])

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]])

    def finish(self, entry: dict[str, Any]) -> None:
        good, bad = [], []
        for line in entry["lines"]:
            question = line["body"]["messages"][-1]["content"]
            named = FAULTS.match(question)
            fault = named.group(1) if named else ""
            first = self.asked[question] == 1
            row: dict[str, Any] = {"id": "r", "custom_id": line["custom_id"], "error": None}
            if fault == "drop" and first:
                continue
            if fault == "expire" and first:
                row |= {"response": None, "error": {"code": "batch_expired", "message": "expired"}}
                bad.append(row)
            elif fault == "fail" and first:
                row["response"] = {"status_code": 500, "body": {"error": {"message": "oops"}}}
                bad.append(row)
            elif fault == "reject":
                row["response"] = {"status_code": 400, "body": {"error": {"message": "no", "code": "bad"}}}
                bad.append(row)
            else:
                row["response"] = {"status_code": 200, "body": answer(line["body"])}
                good.append(row)
        for field, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                entry["batch"][field] = self.keep("\n".join(json.dumps(row) for row in reversed(rows)).encode())
        entry["batch"]["status"] = "completed"
        entry["batch"]["request_counts"]["completed"] = len(good)
