"""Any server that speaks OpenAI's chat protocol, over aiohttp.

`openai:NAME` takes its key from OPENAI_API_KEY and its address from OPENAI_BASE_URL; `http(s)://HOST:PORT/v1#NAME` has
the address in its name and is sent a key only where `api_key_env` names one. (Several addresses: `replicas`.) The key
lives in one request header and nowhere else: it is hidden in replies and errors that repeat it (`keys`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from fractionate.config import ModelOptions
from fractionate.config.addresses import check_base
from fractionate.errors import UsageError, without_secrets
from fractionate.models.base import SingleModel
from fractionate.models.faults import FatalFault, Fault, TransientFault
from fractionate.models.openai.keys import KeyHider, read_key
from fractionate.models.openai.reading import MEGABYTE, read_all, read_parts, read_start
from fractionate.models.openai.streams import LiveStream, Stream, TextStream
from fractionate.models.openai.wire import (
    PASSED_ON,
    TRANSPORT_FIELDS,
    body_of,
    check_extra,
    check_known_cost,
    completion_of,
    encode,
    fault_of,
    one_line,
    rate_of,
    unsupported_field,
)
from fractionate.types import Completion, Request, Usage

if TYPE_CHECKING:
    import aiohttp

OPENAI_URL = "https://api.openai.com/v1"
FIRST_S, TOKENS_PER_S = 0.7, 60.0
"""Seconds until a hosted model begins to reply, and the tokens it then writes per second, where nothing is known."""
CONNECT_S = 30.0
"""Seconds that a connection has to come about."""
_WITHOUT_EFFECT = frozenset({"max_tokens", "stream_options"})
"""Fields whose absence changes no reply: `max_tokens` goes by its newer name, `stream_options` asks for usage alone."""
HEALTH_CHECK_S = 10.0
"""Seconds that a server has to answer a health check."""
_SHOWN = 5
_JSON = {"Content-Type": "application/json"}
_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


class Sink(Protocol):
    """What takes a reply's bytes as they come: a stream of events, or (`takes_all`) any reply."""

    takes_all: bool
    most_bytes: int

    def begin(self) -> None:
        """Forget what came before: a reply begins."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises Fault."""


class OpenAIModel(SingleModel):
    """One model behind a chat endpoint. Construction checks name and key and sends nothing.

    `rate` is what the server's x-ratelimit headers said last, `served_name` what the server calls the model. Raises
    UsageError for a bad name or a missing key.
    """

    paid = True
    takes = PASSED_ON

    def __init__(self, name: str, options: ModelOptions | None = None) -> None:
        options = options or ModelOptions()
        self.name = name
        self.options = options
        base, self.served_name, key_variable = _address(name, options)
        check_extra(name, options.extra_body)
        self._url = f"{base}/chat/completions"
        self.base_url = base
        self._key_variable = key_variable
        self._key = read_key(name, key_variable)
        self._hider = KeyHider(self._key)
        self._extra_bytes = len(encode(options.extra_body)) if options.extra_body else 0
        self._limit = int(options.reply_mb * MEGABYTE)
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

    def most_usage(self, request: Request) -> Usage:
        """Return the most that one call can use: the content of extra fields may be read as part of the prompt."""
        check_known_cost(self.name, self.options.extra_body)
        most = super().most_usage(request)
        return replace(most, input_tokens=most.input_tokens + self._extra_bytes)

    async def complete(self, request: Request) -> Completion:
        """Send one request, once (again at once only where the server rejects a field it can do without).

        Raises what `fractionate.models.faults` names.
        """
        return await self._ask(request, Stream(self._limit), {})

    async def stream(self, request: Request, on_text: Callable[[str], None]) -> Completion:
        """Send one request, once, and hand over the answer as the server writes it; thoughts are kept apart.

        A server that does not stream hands it over whole. Cancelling closes the connection. Raises what
        `fractionate.models.faults` names.
        """
        answer = TextStream(on_text, self._hider)
        completion = await self._ask(request, LiveStream(self._limit, answer.take), _STREAMED)
        answer.end()
        if text := answer.text:
            return replace(
                completion, text=text, reasoning=completion.reasoning or self._hider.hide(answer.thoughts.strip())
            )
        if completion.text:
            on_text(completion.text)
        return completion

    async def _ask(self, request: Request, stream: Stream, how: Mapping[str, Any]) -> Completion:
        """Send a request; `how` are the fields that say how the reply travels.

        A field that the server names as unsupported is left out at once. That holds for later requests only where this
        one then succeeds: else the error was about something else.
        """
        dropped = self._dropped
        while True:
            body = body_of(request, self.served_name, dropped, self.options.extra_body)
            body.update({field: value for field, value in how.items() if field not in dropped})
            started = perf_counter()
            status, data, headers = await self.send("POST", self._url, stream, data=encode(body))
            if status == 200:
                if not dropped <= self._dropped:
                    self._dropped |= dropped
                return self._completion(data, stream, headers, request, perf_counter() - started)
            reply = self.parsed(data)
            if status in (400, 422):
                field = unsupported_field(reply, body)
                insisted = json.loads(request.further) if request.further else {}
                if field and field not in dropped and field not in insisted:
                    dropped |= {field}
                    continue
            said = reply if reply is not None else self.shown(_text(data), 120)
            raise self.named(fault_of(status, said, headers))

    @property
    def left_out(self) -> frozenset[str]:
        """Fields of the request that the server does not support, so that they are no longer sent."""
        return self._dropped - _WITHOUT_EFFECT

    def body(self, request: Request) -> dict[str, object]:
        """Return the JSON body of a request, as a direct call would send it, streaming aside."""
        body = body_of(request, self.served_name, self._dropped, self.options.extra_body)
        return {field: value for field, value in body.items() if field not in TRANSPORT_FIELDS}

    async def send(self, method: str, url: str, into: Sink | None = None, **content: Any) -> tuple[int, bytes, Any]:
        """Send an HTTP request with the key and return (status, bytes, headers); redirects are never followed.

        The bytes are at most `reply_mb`, decompressed, of an error the first ones alone. `into` is fed a stream of
        events as it comes (then there are no bytes), or any reply where it says so. Raises Fault.
        """
        import aiohttp

        session = self._open_session()
        if isinstance(content.get("data"), bytes):
            content["headers"] = _JSON
        connected = False
        try:
            async with session.request(method, url, allow_redirects=False, **content) as response:
                connected = True
                self.rate = rate_of(response.headers)
                if response.status != 200:
                    return response.status, await read_start(response), response.headers
                if into is not None and (into.takes_all or _is_stream(response.headers)):
                    into.begin()
                    async for part in read_parts(response, into.most_bytes):
                        into.feed(part)
                    return response.status, b"", response.headers
                return response.status, await read_all(response, self._limit), response.headers
        except Fault as fault:
            raise self.named(fault) from None
        except aiohttp.ClientSSLError as error:
            raise self.named(
                TransientFault(
                    "tls",
                    f"TLS failure: {self._message(error)}: check the address and its certificate",
                    systematic=True,
                )
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise self.named(
                TransientFault("connect", f"cannot connect: {self._message(error.os_error)}", systematic=True)
            ) from None
        except aiohttp.ConnectionTimeoutError:
            raise self.named(
                TransientFault("connect", f"cannot connect: no answer within {CONNECT_S:g} s", systematic=True)
            ) from None
        except aiohttp.InvalidURL:
            raise self.named(FatalFault("address", "the address is not valid")) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            cause = "cut short" if connected or isinstance(error, aiohttp.ClientPayloadError) else "connection lost"
            # aiohttp shows what it could not read, cut off anywhere: within a key that was sent back, say.
            unreadable = aiohttp.ClientResponseError | aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError
            said = "the reply is no whole HTTP message" if isinstance(error, unreadable) else self._message(error)
            raise self.named(TransientFault(cause, f"{cause}: {said}", maybe_paid=True)) from None

    def parsed(self, data: bytes) -> object:
        """Return the JSON in a server's bytes without the key, None if it is none."""
        try:
            text = data.decode(json.detect_encoding(data), "surrogatepass")
            parsed: object = json.loads(self._hider.hide(text))
            return parsed
        except (ValueError, RecursionError):
            return None

    def hide_key(self, completion: Completion) -> Completion:
        """Return a completion whose text does not hold the key."""
        return self._hider.hide_in(completion)

    def _completion(self, data: bytes, stream: Stream, headers: Any, request: Request, latency_s: float) -> Completion:
        try:
            reply = stream.reply() if _is_stream(headers) else self.parsed(data)
            if reply is None:
                kind = self.shown(headers.get("Content-Type", "no content type").partition(";")[0], 60)
                message = f"the reply is not whole JSON ({kind}, {len(data)} bytes)"
                raise TransientFault("bad body", message, maybe_paid=True)
            return self.hide_key(completion_of(reply, request, latency_s))
        except Fault as fault:
            raise self.named(fault) from None

    def named(self, fault: Fault) -> Fault:
        """Return a fault that says which model it is about and does not hold the key."""
        message = self._hider.hide_cut(f"{self.name}: {fault.message}")
        if fault.cause == "refused key":
            message += f": check {self._key_variable}" if self._key else ": name the key's variable with api_key_env"
        elif fault.cause == "redirect":
            message += ": give the final address as base_url (the key is not sent on)"
        fault.message = message
        fault.args = (message,)
        return fault

    def _message(self, error: BaseException) -> str:
        return self.shown(str(error) or type(error).__name__, 160)

    def shown(self, said: object, length: int = 300) -> str:
        """Return what a server said as one line of bounded length, without the key."""
        return one_line(self._hider.hide(str(said)), length)

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
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                headers=headers,
                auto_decompress=False,  # `reading` does it, a bounded part at a time
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(self.base_url),
            )
            self._loop = loop
        return self._session


async def health_check(model: OpenAIModel) -> list[str] | None:
    """Check that a server is reachable and takes the key, without asking for a reply (`GET /models`).

    Returns the names of the models that it lists, None where it keeps no list. Raises Fault where it cannot be reached
    in time or refuses the key.
    """
    try:
        async with asyncio.timeout(HEALTH_CHECK_S):
            status, data, _ = await model.send("GET", f"{model.base_url}/models")
    except TimeoutError:
        raise model.named(TransientFault("timeout", f"nothing within {HEALTH_CHECK_S:g} s")) from None
    if status in (401, 403):
        raise model.named(FatalFault("refused key", f"the server refuses the key (HTTP {status})"))
    listed = model.parsed(data) if status == 200 else None
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    return [model.shown(entry["id"]) for entry in entries if isinstance(entry, dict) and entry.get("id")]


def unlisted(model: OpenAIModel, listed: list[str] | None) -> str:
    """Return a line that says that a server's list lacks a model; "" if it has it or the server keeps no list."""
    if listed is None or model.served_name in listed:
        return ""
    shown = ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
    return f"{model.name}: the server does not list {model.served_name!r} (it has: {shown or 'nothing'})"


def _address(name: str, options: ModelOptions) -> tuple[str, str, str]:
    """Return (base URL, model, the key's variable: "" where no key is sent). Raises UsageError."""
    shown = without_secrets(name)
    if name.startswith("openai:"):
        model = name.removeprefix("openai:")
        base = options.base_url or os.environ.get("OPENAI_BASE_URL", "") or OPENAI_URL
        variable = options.api_key_env or "OPENAI_API_KEY"
    else:
        base, _, model = name.partition("#")
        base = options.base_url or base
        variable = options.api_key_env
    if not model:
        form = "openai:NAME" if name.startswith("openai:") else "http://HOST:PORT/v1#NAME"
        raise UsageError(f"the model name {shown!r} names no model: write {form}")
    check_base(shown, base)
    return base.rstrip("/"), model, variable


def _proxy(url: str) -> str | None:
    """Return the environment's proxy for an address. (aiohttp's own look-up takes a thread for every request.)"""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _identity(name: str, base: str, options: ModelOptions) -> str:
    """Return the name, the address where the name does not say it, and a digest of the extra body fields."""
    identity = name
    if (name.startswith("openai:") and base != OPENAI_URL) or (not name.startswith("openai:") and options.base_url):
        identity += f"@{base}"
    extra = {field: value for field, value in options.extra_body.items() if field not in TRANSPORT_FIELDS}
    if extra:
        digest = hashlib.sha256(json.dumps(extra, sort_keys=True).encode()).hexdigest()[:16]
        identity += f"+{digest}"
    return identity


def _is_stream(headers: Any) -> bool:
    return str(headers.get("Content-Type", "")).startswith("text/event-stream")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
