"""Small factories for the engine's tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from fractionate.calls.drive import Call
from fractionate.models.base import Model
from fractionate.types import Message, Request

KEY = "sk-test-0123456789-secret"
"""The key that the engine's tests call with, and look for where it must not be."""


def ask(text: str, **fields: Any) -> Request:
    """Return a solver's request with one user message."""
    fields = {"max_tokens": 16, "role": "solver", **fields}
    return Request(messages=(Message("user", text),), **fields)


def asking(model: Model, *texts: str) -> Generator[Any, Any, str]:
    """Ask one question after another; the value is what came back, joined."""
    heard = []
    for text in texts:
        (completion,) = yield [Call(model, ask(text))]
        heard.append(completion.text)
    return " ".join(heard)


class FlatPricing:
    """Dollars per token, the same for every model whose name it knows."""

    def __init__(self, per_token: float, *unknown: str) -> None:
        self.per_token = per_token
        self.unknown = unknown

    def usd(self, model_name: str, usage: Any) -> float | None:
        if model_name in self.unknown:
            return None
        return self.per_token * (usage.input_tokens + usage.output_tokens)
