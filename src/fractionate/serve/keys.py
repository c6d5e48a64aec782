"""Who may ask: bearer keys, compared in constant time, and pages of other sites kept from asking through a browser."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from fractionate.errors import UsageError
from fractionate.serve.refusals import Refusal

VARIABLE = "FRACTIONATE_KEYS"
EVERYBODY = "everybody"
"""The account of those who need no key."""


class Keys:
    """The keys of one server, as digests; no keys let everybody in who reaches it. Raises UsageError for a bad list."""

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
        """What each key is called in books and messages: it tells keys apart and tells nothing of them."""
        return [_account(digest) for digest in self._digests] or [EVERYBODY]

    def account(self, headers: Mapping[str, str]) -> str:
        """Return whose request it is. Raises Refusal (401) where no key, or no right one, is given."""
        if not self._digests:
            return EVERYBODY
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = ""
        for digest in self._digests:  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, given):
                found = _account(digest)
        if scheme.lower() != "bearer" or not found:
            what = "the key is not known here" if key else "a key is needed: Authorization: Bearer KEY"
            raise Refusal(401, what, code="invalid_api_key")
        return found


def check_browser(headers: Mapping[str, str]) -> None:
    """Refuse what a page of another site sends through its visitor's browser to a server without keys.

    A page may post to any address; and by a name that it controls and lets point here it may even read the answer.
    """
    if not is_loopback(_host_of(f"//{headers.get('Host', '')}")):
        raise Refusal(403, "without keys this server is asked as localhost or 127.0.0.1 only", code="wrong_host")
    origin = headers.get("Origin")
    if origin and origin.partition("//")[2] != headers.get("Host"):
        raise Refusal(403, "without keys this server takes no requests of other sites' pages", code="wrong_origin")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, which no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, keys: Keys) -> None:
    """Raise UsageError for an address that others reach while nobody needs a key."""
    if not is_loopback(host) and not keys:
        raise UsageError(
            f"--host {host} can be reached from other machines: set {VARIABLE} (comma-separated keys) first, "
            "or stay on 127.0.0.1"
        )


def _account(digest: bytes) -> str:
    return f"key-{digest.hex()[:8]}"
