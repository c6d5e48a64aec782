"""The name of a model on servers: `http(s)://HOST:PORT/v1#MODEL`, or several addresses that all serve it.

Several are written one after another, the model once, at the end: `http://a:8000/v1,http://b:8000/v1#MODEL`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from fractionate.errors import UsageError, without_secrets

T = TypeVar("T")

TOOL = "tool:"
"""How the name of a tool begins where a model may stand."""
FORM = "http://HOST:PORT/v1,http://HOST:PORT/v1#NAME"
_SECRETS = "holds a user, a password or a query: give the key in a variable (api_key_env)"
_ANOTHER = re.compile(r",\s*https?://")


_WITH_TOOLS = re.compile(r"(?P<model>.*[^\[,\s])\[(?P<tools>[^\[\]]*)\]", re.DOTALL)


def split_tools(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the model of `MODEL[NAME,…]` and the names of its tools; (NAME, ()) of a model without tools."""
    match = _WITH_TOOLS.fullmatch(name)
    if match is None:
        return name, ()
    return match["model"], tuple(tool.strip() for tool in match["tools"].split(","))


def tools_of(name: str) -> tuple[str, ...]:
    """Return the names of the tools that a model's name names: those of `MODEL[NAME,…]`, or the one of `tool:NAME`."""
    model, tools = split_tools(name)
    return (*tools, model.removeprefix(TOOL)) if model.startswith(TOOL) else tools


def is_on_servers(name: str) -> bool:
    """Whether a model's name begins with the address of a server."""
    return name.startswith(("http://", "https://"))


def split_name(name: str) -> tuple[tuple[str, ...], str]:
    """Return (addresses, model) of a name on servers, as they are written. Raises UsageError for a malformed list.

    A single address is taken as it is: who opens it checks it (`check_base`).
    """
    listed, _, model = name.partition("#")
    if _ANOTHER.search(model):
        raise UsageError(
            f"{without_secrets(name)!r} names a model more than once: its servers all serve one model, which stands at "
            f"the end: write {FORM}"
        )
    addresses = tuple(listed.split(","))
    if len(addresses) > 1:
        _check_list(name, addresses, model)
    return addresses, model


def check_list(name: str) -> None:
    """Raise UsageError for a malformed list of addresses in the name of a model on servers, `openai:` ones too."""
    if is_on_servers(name):
        split_name(name)
    elif _ANOTHER.search(name):
        raise UsageError(f"{without_secrets(name)!r}: every address of a list is an http(s) address: write {FORM}")


def check_base(shown: str, base: str) -> None:
    """Raise UsageError, naming `shown`, for a base URL that is no address or holds more than one."""
    if not _is_address(base):
        raise UsageError(
            f"{shown}: the base URL is not an http(s) address with a host: give base_url or OPENAI_BASE_URL"
        )
    if _holds_secrets(base):
        raise UsageError(f"{shown}: the base URL {_SECRETS}")
    if "," in base:
        raise UsageError(f"{shown}: the base URL holds a comma: several addresses stand in a model's name, as {FORM}")


def find_for(table: Mapping[str, T], name: str) -> T | None:
    """Return what a table keyed by model names holds for a model, None if nothing.

    What is written under one address of a list holds for the list, and what is written under the list for each of its
    addresses, so that a server more or less changes neither options nor prices. The exact name comes first.
    """
    found = table.get(name)
    if found is not None or not is_on_servers(name):
        return found
    addresses, model = split_name(name)
    others = {other: split_name(other) for other in table if is_on_servers(other)}
    for server in map(_server, addresses):
        for other, (theirs, its_model) in others.items():
            if its_model == model and len(addresses) + len(theirs) > 2 and server in map(_server, theirs):
                return table[other]
    return None


def _check_list(name: str, addresses: tuple[str, ...], model: str) -> None:
    shown = without_secrets(name)
    if not model:
        raise UsageError(f"the model name {shown!r} names no model: write {FORM}")
    seen: set[tuple[str, ...]] = set()
    for number, address in enumerate(addresses, 1):
        which = f"{shown!r}: address {number} of {len(addresses)}"
        if not address.strip():
            raise UsageError(f"{which} is empty: take the comma out")
        if not is_on_servers(address):
            raise UsageError(f"{which} does not begin with http:// or https://: write {FORM}")
        if not _is_address(address):
            raise UsageError(f"{which} is not an http(s) address with a host: write {FORM}, without spaces")
        if _holds_secrets(address):
            raise UsageError(f"{which} {_SECRETS}")
        if _server(address) in seen:
            raise UsageError(f"{which} stands there twice: name each server once")
        seen.add(_server(address))


def _is_address(base: str) -> bool:
    try:
        parts = urlsplit(base)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and base.isprintable() and " " not in base


def _holds_secrets(base: str) -> bool:
    parts = urlsplit(base)
    return bool("@" in parts.netloc or parts.query or parts.fragment)


def _server(address: str) -> tuple[str, ...]:
    """Return what tells a server's address from another's, however it is spelt."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return (address,)
    return parts.scheme, parts.hostname or "", str(port), parts.path.rstrip("/")
