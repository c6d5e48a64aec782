"""The hub endpoints that an upload needs, on loopback: committed files are in `files`."""

from __future__ import annotations

import base64
import hashlib
import json

from aiohttp import web

TOKEN = "hf_right"


class HubServer:
    """A hub that takes uploads with the right token: small files in the commit, large ones by git-lfs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}
        self.url = ""

    async def __aenter__(self) -> HubServer:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._authorized])
        app.router.add_post("/api/repos/create", self._create)
        app.router.add_post("/api/validate-yaml", self._yaml)
        app.router.add_post("/api/models/{org}/{name}/preupload/{revision}", self._preupload)
        app.router.add_post("/{org}/{name}.git/info/lfs/objects/batch", self._batch)
        app.router.add_put("/stored/{oid}", self._store)
        app.router.add_post("/api/models/{org}/{name}/commit/{revision}", self._commit)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _authorized(self, request: web.Request, handler: object) -> web.StreamResponse:
        if request.method == "POST" and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "Invalid credentials"}, status=401)
        return await handler(request)  # type: ignore[operator,no-any-return]

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        self.private[name] = asked.get("private") or asked.get("visibility") == "private"
        return web.json_response({"url": f"{self.url}/{name}", "id": name, "name": name})

    async def _yaml(self, request: web.Request) -> web.Response:
        assert (await request.json())["content"].startswith("---\n")
        return web.json_response({"errors": [], "warnings": []})

    async def _preupload(self, request: web.Request) -> web.Response:
        files = (await request.json())["files"]
        told = [
            {"path": f["path"], "uploadMode": "lfs" if f["size"] > 50_000 else "regular", "shouldIgnore": False}
            for f in files
        ]
        return web.json_response({"files": told})

    async def _batch(self, request: web.Request) -> web.Response:
        asked = (await request.json())["objects"]
        objects = [
            {"oid": one["oid"], "size": one["size"], "actions": {"upload": {"href": f"{self.url}/stored/{one['oid']}"}}}
            for one in asked
        ]
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _store(self, request: web.Request) -> web.Response:
        content = await request.read()
        oid = request.match_info["oid"]
        assert hashlib.sha256(content).hexdigest() == oid
        self.stored[oid] = content
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        for line in (await request.text()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]
        where = f"{self.url}/{request.match_info['org']}/{request.match_info['name']}/commit/{'0' * 40}"
        return web.json_response({"success": True, "commitUrl": where, "commitOid": "0" * 40})
