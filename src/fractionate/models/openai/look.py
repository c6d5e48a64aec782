"""A look at a server that is asked for no reply: whether it is there, takes the key and lists the model."""

from __future__ import annotations

import asyncio

from fractionate.models.faults import FatalFault, TransientFault
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.wire import one_line

LOOK_S = 10.0
"""Seconds that a server has to show that it is there."""
_SHOWN = 5


async def look_at(model: OpenAIModel) -> list[str] | None:
    """Return the names of the models that a model's server lists (`GET /models`), None where it keeps no list.

    Raises Fault where it cannot be reached in time or refuses the key.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            status, data, _ = await model.send("GET", f"{model.base_url}/models")
    except TimeoutError:
        raise model.named(TransientFault("timeout", f"nothing within {LOOK_S:g} s")) from None
    if status in (401, 403):
        raise model.named(FatalFault("refused key", f"the server refuses the key (HTTP {status})"))
    listed = model.parsed(data) if status == 200 else None
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    return [one_line(entry["id"]) for entry in entries if isinstance(entry, dict) and entry.get("id")]


def lacks(model: OpenAIModel, listed: list[str] | None) -> str:
    """Return what a server's list says against a model, in words; "" if it lists it or keeps no list."""
    if listed is None or model.served_name in listed:
        return ""
    shown = ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
    return f"{model.name}: the server does not list {model.served_name!r} (it has: {shown or 'nothing'})"
