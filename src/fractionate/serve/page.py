"""The playground: a page that asks the endpoint it comes from, and may load nothing from anywhere else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from aiohttp import web

FILES = {
    "/": ("playground.html", "text/html"),
    "/playground.css": ("playground.css", "text/css"),
    "/playground.js": ("playground.js", "text/javascript"),
}
_HEADERS = {
    # Whatever an answer holds, nothing but the page's own script runs and nobody but its own server is asked.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def _content(name: str) -> bytes:
    return (files("fractionate.serve") / "page" / name).read_bytes()


async def page(request: web.Request) -> web.Response:
    """GET /, and the two files of the page. It holds no secret: the key is typed into it."""
    name, kind = FILES[request.path]
    return web.Response(body=_content(name), content_type=kind, charset="utf-8", headers=_HEADERS)
