"""What a server keeps of what it answers: an answered request, a mark of one, a shadow's answer to one; a line each.

No key, header or account stands in it. Whether a later request comes from who asked is told by a seal: a hash of the
asker's key and the answer's id, which says nothing about the key and is another one for every answer. The lines are
read by `datasets/traffic.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from fractionate.errors import without_secrets
from fractionate.serve.answer import Answered, Choice
from fractionate.serve.catalog import Served
from fractionate.types import Answer, Component, Decomposition, Usage

_USAGE = tuple(field.name for field in fields(Usage))
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that was answered: the answer's id, whose request it was, and the seconds that it took."""

    id: str
    answered: Answered
    account: str
    seconds: float


def answer_line(finished: Finished, scorer: str, seal: str) -> bytes:
    """Return the line of an answered request; `scorer` is the run's `data.scorer`."""
    answered = finished.answered
    asked = answered.plan.asked
    row = {
        "id": finished.id,
        "time": _now(),
        "question": asked.question,
        "context": asked.context,
        "dataset": answered.plan.dataset.name,
        "scorer": scorer if answered.plan.dataset.name == "jsonl" else "",
        **({"system": asked.system} if asked.system else {}),
        **({"history": [message._asdict() for message in asked.history]} if asked.history else {}),
        **({"asked": dict(asked.given)} if asked.given else {}),
        **answering_row(answered, finished.seconds),
        "measured": not answered.unlike,
        "unlike": answered.unlike,
        "degraded": answered.degraded,
        **({"seal": seal} if seal else {}),
    }
    return encoded(row)


def answering_row(answered: Answered, seconds: float) -> dict[str, Any]:
    """Return what a pair made of a question: its replies, and what they took."""
    plan, usd = answered.plan, answered.usd
    known = [cost for cost in usd.values() if cost is not None]
    return {
        **pair_row(plan.pair),
        "replies": [_reply(choice) for choice in answered.choices],
        "usage": {role: {name: getattr(usage, name) for name in _USAGE} for role, usage in answered.usage.items()},
        "usd": {**usd, "total": sum(known) if len(known) == len(usd) else None},
        "latency_s": round(seconds, 4),
    }


def pair_row(pair: Served) -> dict[str, Any]:
    """Return who answered."""
    return {
        "pair": _shown(pair.id),
        "strategy": pair.strategy.name,
        "decomposer": _part(pair.decomposer),
        "solver": _part(pair.solver),
    }


def feedback_line(id: str, right: bool, answers: tuple[Answer, ...]) -> bytes:
    """Return the line of a mark; `answers` are the right ones, where they were given."""
    return encoded({"feedback": id, "time": _now(), "right": right, **({"answers": answers} if answers else {})})


def shadow_line(id: str, row: Mapping[str, Any], *, same: bool | None, failed: str = "") -> bytes:
    """Return the line of a shadow's answer; `same` says whether it is the one that was sent, None where one is unread.

    `failed` says why there is none.
    """
    return encoded({"shadow": id, "time": _now(), **row, "same": same, **({"failed": failed} if failed else {})})


def encoded(row: Mapping[str, Any]) -> bytes:
    """Return a line as it is written. What is no text (half a character) stands as a question mark."""
    return _ENCODE(row).encode("utf-8", "replace")


def _reply(choice: Choice) -> dict[str, Any]:
    return {
        "output": choice.refusal or choice.content,
        "answer": choice.answer,
        "decomposition": _decomposition(choice.decomposition),
        "sub_answers": list(choice.sub_answers),
        "finish_reason": "refusal" if choice.refusal else choice.finish_reason,
        "cut_off": choice.cut_off,
        "degraded": choice.degraded,
    }


def _decomposition(made: Decomposition | None) -> dict[str, Any] | None:
    if made is None:
        return None
    return {
        "subquestions": list(made.subquestions),
        "status": made.status,
        "dropped": made.dropped,
        "raw": made.raw,
    }


def _part(component: Component) -> dict[str, str]:
    return {"name": _shown(component.name), "kind": component.kind, "model": _shown(component.model)}


_shown = lru_cache(maxsize=1000)(without_secrets)


def _now() -> float:
    return round(time.time(), 3)
