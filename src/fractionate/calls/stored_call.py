"""The store's records and their SQLite rows: completed calls, amounts held of a budget, usage that was spent."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fractionate.files import encodable
from fractionate.types import CALL_ROLES, CallRole, Completion, Message, Request, Usage

REPLY = (
    "text, reasoning, finish_reason, error, calls, input_tokens, cached_input_tokens, output_tokens, "
    "reasoning_tokens, compute_s, counted, latency_s"
)
COLUMNS = f"key, model, identity, run, role, request, {REPLY}, created, paid"
WIDTH = COLUMNS.count(",") + 1
USAGE = "calls, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, counted"
"""The columns that one call's price depends on."""
_TEXTS, _NUMBERS = 4, 12


class DamagedRow(ValueError):  # noqa: N818 - a state, not an error
    """A row holds what no version has written: the file was edited, or the disk has failed."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One row: a request, the model it went to, the run that made it and what came back."""

    key: str
    model: str
    identity: str
    run: str
    request: Request
    completion: Completion
    created: float = field(default_factory=time.time)
    paid: bool = True
    """Whether it counts against the run's budget."""


class Amount(NamedTuple):
    """Dollars and tokens: spent, reserved or allocated for the calls of one role."""

    usd: float
    tokens: int

    @property
    def is_zero(self) -> bool:
        """Whether both are zero, or less by rounding."""
        return self.usd <= 0 and self.tokens <= 0

    def plus(self, other: Amount, times: int = 1) -> Amount:
        """Return the sum with another amount, taken so many times."""
        return Amount(self.usd + times * other.usd, self.tokens + times * other.tokens)


@dataclass(frozen=True, slots=True)
class Spent:
    """How many calls of a run used the same usage: what a budget reads at a resume. `usage` is one call's."""

    model: str
    role: CallRole
    usage: Usage
    rows: int


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def row_of(call: StoredCall) -> tuple[object, ...]:
    """Return a call as the values of `COLUMNS`."""
    request, reply, usage = call.request, call.completion, call.completion.usage
    body = {
        "messages": request.messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": request.stop,
        "sample": request.sample,
        "response_format": request.response_format,
    }
    return (
        call.key,
        call.model,
        call.identity,
        call.run,
        request.role,
        encodable(_encode(body)),
        encodable(reply.text),
        encodable(reply.reasoning),
        encodable(reply.finish_reason),
        encodable(reply.error),
        usage.calls,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.compute_s,
        usage.counted,
        reply.latency_s,
        call.created,
        int(call.paid),
    )


def completion_of(row: Sequence[Any]) -> Completion:
    """Return the completion in the values of `REPLY`. Raises DamagedRow."""
    text, reasoning, finish_reason, error, calls, inputs, cached, outputs, thought, compute_s, counted, latency_s = row
    if not (
        {type(value) for value in row[:_TEXTS]} == {str}
        and {type(value) for value in row[_TEXTS:_NUMBERS]} <= {int, float}
        and min(row[_TEXTS:_NUMBERS]) >= 0
    ):
        raise DamagedRow("a reply's columns are texts and then numbers, not negative")
    usage = Usage(calls, inputs, cached, outputs, thought, compute_s, counted)
    return Completion(text, finish_reason, usage, latency_s, reasoning, error)


def call_of(row: Sequence[Any]) -> StoredCall:
    """Return the call in the values of `COLUMNS`. Raises DamagedRow."""
    key, model, identity, run, role, body = row[:6]
    try:
        if not all(isinstance(value, str) for value in row[:6]) or role not in CALL_ROLES:
            raise ValueError(f"key, model, run, role and request are texts, not {row[:5]!r}")
        fields = json.loads(body)
        request = Request(
            messages=tuple(Message(_text(role), _text(content)) for role, content in fields["messages"]),
            role=role,
            max_tokens=fields["max_tokens"],
            temperature=fields["temperature"],
            stop=tuple(_text(word) for word in fields["stop"]),
            sample=fields["sample"],
            response_format=fields["response_format"],
        )
        created = float(row[18])
        datetime.fromtimestamp(created, UTC)
        return StoredCall(key, model, identity, run, request, completion_of(row[6:18]), created, bool(row[19]))
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as error:
        raise DamagedRow(" ".join(str(error).split())) from None


def billed(row: Sequence[Any]) -> tuple[str, CallRole, Usage] | None:
    """Return the model, role and usage in the values of `COLUMNS`, None for a call that no budget counts."""
    if not row[19]:
        return None
    return row[1], row[4], Usage(*row[10:17])


def spent_of(row: Sequence[Any]) -> Spent:
    """Return what was spent from model, role, `USAGE` and the number of rows. Raises DamagedRow."""
    model, role, *counts = row
    if not isinstance(model, str) or role not in CALL_ROLES or any(type(n) is not int or n < 0 for n in counts):
        raise DamagedRow(f"what a run has spent cannot be read: {row!r}")
    calls, inputs, cached, outputs, thought, counted, rows = counts
    return Spent(model, role, Usage(calls, inputs, cached, outputs, thought, 0.0, counted), rows)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is wanted, not {value!r}")
    return value
