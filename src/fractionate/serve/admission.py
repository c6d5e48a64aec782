"""Which requests are admitted: bearer keys, other sites' pages in a browser, in-flight slots and a bounded queue."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from urllib.parse import urlsplit

from fractionate.errors import UsageError
from fractionate.serve.errors import Refusal

VARIABLE = "FRACTIONATE_KEYS"
EVERYBODY = "everybody"
"""The account of every request to a server without keys."""


class Keys:
    """The keys of one server, as digests. Without keys, every request is admitted. Raises UsageError for a bad list."""

    def __init__(self, listed: str) -> None:
        keys = [key.strip() for key in listed.split(",")] if listed.strip() else []
        for number, key in enumerate(keys, 1):
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError(f"{VARIABLE}: key {number} is empty or has characters that no header can hold")
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    @property
    def accounts(self) -> list[str]:
        """The name of each key in ledgers and messages, which reveals nothing about the key."""
        return [_account(digest) for digest in self._digests] or [EVERYBODY]

    def account(self, headers: Mapping[str, str]) -> str:
        """Return the account of a request. Raises Refusal (401) for a missing or unknown key."""
        if not self._digests:
            return EVERYBODY
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = ""
        for digest in self._digests:  # compares all of them, so that timing reveals nothing
            if hmac.compare_digest(digest, given):
                found = _account(digest)
        if scheme.lower() != "bearer" or not found:
            what = "the key is unknown" if key else "a key is needed: Authorization: Bearer KEY"
            raise Refusal(401, what, code="invalid_api_key")
        return found

    def ownership_token(self, account: str, text: str) -> str:
        """Return a hash of an account's key and a text (hex, 128 bits), "" for an account without a key.

        It shows later that a request comes with the same key, and reveals nothing about the key.
        """
        digest = next((digest for digest in self._digests if _account(digest) == account), None)
        return hmac.new(digest, text.encode(), hashlib.sha256).hexdigest()[:32] if digest else ""


def check_browser(headers: Mapping[str, str]) -> None:
    """Refuse a request that a page of another site sends through its visitor's browser to a server without keys.

    A page may post to any address. By a host name of its own that resolves to this machine it could read the answer.
    """
    if not _is_loopback_url(f"//{headers.get('Host', '')}"):
        raise Refusal(403, "without keys this server answers as localhost or 127.0.0.1 only", code="wrong_host")
    origin = headers.get("Origin")
    if origin and origin.partition("//")[2] != headers.get("Host"):
        raise Refusal(403, "without keys this server accepts no requests from other sites' pages", code="wrong_origin")


@lru_cache(maxsize=256)
def _is_loopback_url(url: str) -> bool:
    return is_loopback(_host_of(url))


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, keys: Keys) -> None:
    """Raise UsageError for an address that other machines reach where no keys are set."""
    if not is_loopback(host) and not keys:
        raise UsageError(
            f"--host {host} can be reached from other machines: set {VARIABLE} (comma-separated keys) first, "
            "or stay on 127.0.0.1"
        )


class Admission:
    """At most `slots` requests in flight and `queue` waiting, in order of arrival; `async with` takes a slot.

    `seconds` is a moving average of the time that requests take, from which Retry-After is estimated.
    """

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.queue = queue
        self.inside = 0
        self.draining = False
        self.seconds = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        return len(self._waiting)

    def finished(self, seconds: float) -> None:
        """Note the seconds that an answered request took."""
        self.seconds += 0.1 * (seconds - self.seconds)

    async def __aenter__(self) -> None:
        if self.draining:
            raise Refusal(503, "the server is shutting down", code="shutting_down", after_s=5)
        if self.inside < self.slots:
            self.inside += 1
            return
        if len(self._waiting) >= self.queue:
            wait = max(1.0, self.seconds * (1 + len(self._waiting) / self.slots))
            said = f"{self.inside} requests are in flight and {len(self._waiting)} wait: try again in {wait:.0f} s"
            raise Refusal(429, said, code="server_full", after_s=wait)
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._leave()
            with suppress(ValueError):
                self._waiting.remove(slot)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Pass the slot on to the request that has waited longest."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self.inside -= 1


def _account(digest: bytes) -> str:
    return f"key-{digest.hex()[:8]}"
