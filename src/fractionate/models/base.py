"""What a model is to the rest of the house: a name, an identity and a way to complete requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from fractionate.types import Completion, Request

Style = Literal["instruct", "student"]
"""Which prompts a model gets: full instructions, or the short form that students are trained on."""


class Model(Protocol):
    """What every model has."""

    name: str
    """The name in the model grammar, as the user wrote it."""
    identity: str
    """What the store keys calls by: the name without secrets and, for local weights, their fingerprint."""
    style: Style
    paid: bool
    """Whether a call costs money at a provider (and so counts against a budget)."""

    def key(self, request: Request) -> str:
        """Return the store key of a request: equal keys are the same call."""

    async def close(self) -> None:
        """Release what the model holds."""


@runtime_checkable
class SingleModel(Model, Protocol):
    """A model that takes requests one by one, many at once (a server, recorded rows)."""

    async def complete(self, request: Request) -> Completion:
        """Send one request, once. Raises what `fractionate.models.faults` names; the engine retries."""


@runtime_checkable
class BatchModel(Model, Protocol):
    """A model that answers batches, in this process (local weights)."""

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Cut requests into batches: lists of positions. The same requests give the same batches."""

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer one planned batch, in order."""


def request_key(identity: str, request: Request) -> str:
    """Return the SHA-256 (hex) of all that decides a reply: model, messages, sampling and the sample's number."""
    body = [
        identity,
        [list(message) for message in request.messages],
        request.max_tokens,
        request.temperature,
        list(request.stop),
        request.response_format,
        request.sample,
    ]
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
