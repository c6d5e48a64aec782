"""Any server that speaks OpenAI's chat protocol, over aiohttp.

`openai:NAME` takes its key from OPENAI_API_KEY and its address from OPENAI_BASE_URL; `http(s)://HOST:PORT/v1#NAME` has
the address in its name and needs a key only where the server does. The key lives in one request header and nowhere
else: a reply or an error that repeats it has it blotted out before anyone sees it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.models.openai.wire import (
    body_of,
    completion_of,
    encode,
    error_of,
    fault_of,
    join_events,
    one_line,
    rate_of,
    rejected_field,
)
from fractionate.types import Completion, Request

if TYPE_CHECKING:
    import aiohttp

OPENAI_URL = "https://api.openai.com/v1"
BLOT = "[key]"
FIRST_S, TOKENS_PER_S = 0.7, 60.0
"""Seconds until a hosted model begins to reply, and the tokens it then writes per second, where nothing is known."""
_JSON = {"Content-Type": "application/json"}
_TRANSPORT_FIELDS = ("stream", "stream_options")
"""Fields of extra_body that change how a reply travels, not what it says."""


class OpenAIModel(SingleModel):
    """One model behind a chat endpoint. Construction checks name and key and sends nothing.

    `rate` is what the server's x-ratelimit headers said last. Raises UsageError for a bad name or a missing key.
    """

    paid = True

    def __init__(self, name: str, options: ModelOptions | None = None) -> None:
        options = options or ModelOptions()
        self.name = name
        self.options = options
        base, self._model, key_variable, key_needed = _address(name, options)
        self._url = f"{base}/chat/completions"
        self.base_url = base
        self._key = _key(name, key_variable, key_needed)
        self._blots = _forms(self._key)
        self.identity = _identity(name, base, options)
        self.style = options.style or "instruct"
        self._dropped: frozenset[str] = frozenset()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r})"

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None

    def expected_seconds(self, output_tokens: float) -> float:
        """Return what a hosted model of middling speed takes."""
        return FIRST_S + output_tokens / TOKENS_PER_S

    async def complete(self, request: Request) -> Completion:
        """Send one request, once (again at once only where the server rejects a field it can do without).

        Raises what `fractionate.models.faults` names.
        """
        while True:
            dropped = self._dropped
            body = body_of(request, self._model, dropped, self.options.extra_body)
            started = perf_counter()
            status, data, headers = await self.post(self._url, encode(body))
            if status == 200:
                return self._completion(data, headers, request, perf_counter() - started)
            reply = _json(data)
            if status in (400, 422):
                message, _, _, param = error_of(reply)
                rejected = rejected_field(message, param, body)
                if rejected and rejected not in dropped:
                    self._dropped = self._dropped | {rejected}
                    continue
            raise self._named(fault_of(status, reply if reply is not None else one_line(_text(data), 120), headers))

    def body(self, request: Request) -> dict[str, object]:
        """Return the JSON body of a request, as a direct call would send it, streaming aside."""
        body = body_of(request, self._model, self._dropped, self.options.extra_body)
        return {field: value for field, value in body.items() if field not in _TRANSPORT_FIELDS}

    async def post(self, url: str, body: bytes) -> tuple[int, bytes, Any]:
        """Post JSON and return (status, bytes with the key blotted out, headers). Raises TransientFault."""
        return await self.send("POST", url, data=body)

    async def send(self, method: str, url: str, **content: Any) -> tuple[int, bytes, Any]:
        """Send an HTTP request with the key; redirects are never followed."""
        import aiohttp

        session = self._open_session()
        if isinstance(content.get("data"), bytes):
            content["headers"] = _JSON
        connected = False
        try:
            async with session.request(method, url, allow_redirects=False, **content) as response:
                connected = True
                data = await response.read()
                self.rate = rate_of(response.headers)
                return response.status, self.blot(data), response.headers
        except aiohttp.ClientSSLError as error:
            raise self._named(
                TransientFault(
                    "tls", f"TLS failure: {self._words(error)}: check the address and its certificate", systematic=True
                )
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise self._named(
                TransientFault("connect", f"cannot connect: {self._words(error.os_error)}", systematic=True)
            ) from None
        except aiohttp.InvalidURL:
            raise self._named(FatalFault("address", "the address is not valid")) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            cause = "cut short" if connected or isinstance(error, aiohttp.ClientPayloadError) else "connection lost"
            raise self._named(TransientFault(cause, f"{cause}: {self._words(error)}", maybe_paid=True)) from None

    def blot(self, data: bytes) -> bytes:
        """Blot the key out of a server's bytes."""
        for form in self._blots:
            if form in data:
                data = data.replace(form, BLOT.encode())
        return data

    def _completion(self, data: bytes, headers: Any, request: Request, latency_s: float) -> Completion:
        try:
            if headers.get("Content-Type", "").startswith("text/event-stream"):
                return completion_of(join_events(data), request, latency_s)
            reply = _json(data)
            if reply is None:
                kind = headers.get("Content-Type", "no content type").partition(";")[0]
                message = f"the reply is not whole JSON ({kind}, {len(data)} bytes)"
                raise TransientFault("bad body", message, maybe_paid=True)
            return completion_of(reply, request, latency_s)
        except Fault as fault:
            raise self._named(fault) from None

    def _named(self, fault: Fault) -> Fault:
        """Say which model a fault is about, and make sure that it does not hold the key."""
        message = self.blot(f"{self.name}: {fault.message}".encode()).decode()
        if fault.cause == "refused key":
            message += f": check {self.options.api_key_env or 'OPENAI_API_KEY'}"
        elif fault.cause == "redirect":
            message += ": give the final address as base_url (the key is not sent on)"
        fault.message = message
        fault.args = (message,)
        return fault

    def _words(self, error: BaseException) -> str:
        return one_line(self.blot(str(error).encode()).decode() or type(error).__name__, 160)

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the one session of this event loop. Its limits are the engine's, not the connector's."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            import aiohttp

            headers = {"Accept-Encoding": "identity", "User-Agent": "fractionate"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(self.base_url),
            )
            self._loop = loop
        return self._session


def _address(name: str, options: ModelOptions) -> tuple[str, str, str, bool]:
    """Return (base URL, model, the key's variable, whether it must be set). Raises UsageError."""
    if name.startswith("openai:"):
        model = name.removeprefix("openai:")
        base = options.base_url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI_URL
        variable, needed = options.api_key_env or "OPENAI_API_KEY", True
    else:
        base, _, model = name.partition("#")
        base = options.base_url or base
        variable, needed = options.api_key_env or "OPENAI_API_KEY", bool(options.api_key_env)
    if not model:
        form = "openai:NAME" if name.startswith("openai:") else "http://HOST:PORT/v1#NAME"
        raise UsageError(f"the model name {name!r} names no model: write {form}")
    try:
        parts = urlsplit(base)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{name}: the base URL is not an http(s) address with a host: give base_url or OPENAI_BASE_URL"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"{name}: the base URL holds a user, a password or a query: give the key in a variable (api_key_env)"
        )
    return base.rstrip("/"), model, variable, needed


def _key(name: str, variable: str, needed: bool) -> str:
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UsageError(
            f"{name} needs a key: set {variable} in the environment, or name another variable with api_key_env"
        )
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{name}: the key in {variable} has characters that no header can hold: set it again")
    return key


def _proxy(url: str) -> str | None:
    """Return the environment's proxy for an address. (aiohttp's own look-up takes a thread for every request.)"""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _forms(key: str) -> list[bytes]:
    """Return how a key may stand in a server's reply: as it is, or escaped in JSON."""
    if not key:
        return []
    return sorted({key.encode(), json.dumps(key)[1:-1].encode()}, key=len, reverse=True)


def _identity(name: str, base: str, options: ModelOptions) -> str:
    """Return the name, the address where the name does not say it, and a digest of the extra body fields."""
    identity = name
    if (name.startswith("openai:") and base != OPENAI_URL) or (not name.startswith("openai:") and options.base_url):
        identity += f"@{base}"
    extra = {field: value for field, value in options.extra_body.items() if field not in _TRANSPORT_FIELDS}
    if extra:
        digest = hashlib.sha256(json.dumps(extra, sort_keys=True).encode()).hexdigest()[:16]
        identity += f"+{digest}"
    return identity


def _json(data: bytes) -> object:
    """Return parsed JSON, None if it is none."""
    try:
        parsed: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return parsed


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
