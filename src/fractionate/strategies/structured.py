"""Structured output: the JSON that a model with `structured = true` is asked for, and how a reply is read back.

A reply that is not that JSON (a server without `response_format`, a model that ignores it) is left as it is: the
tolerant reading of plain text follows either way.
"""

from __future__ import annotations

import json
from typing import Any

from fractionate.types import Role

_FENCE = "```"
_STRINGS = {"type": "array", "items": {"type": "string"}}
_FIELDS: dict[Role, dict[str, Any]] = {
    "decomposer": {"subquestions": _STRINGS},
    "solver": {"sub_answers": _STRINGS, "answer": {"type": "string"}},
}


def response_format(role: Role) -> str:
    """Return the canonical JSON of an OpenAI `response_format` for a role."""
    fields = _FIELDS[role]
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": role, "strict": True, "schema": schema}}
    return json.dumps(wanted, sort_keys=True, separators=(",", ":"))


def as_text(reply: str) -> str:
    """Return the plain text that a structured reply stands for; any other reply as it is."""
    body = _unfenced(reply)
    if not body.startswith(("{", "[")):
        return reply
    try:
        return _written(json.loads(body)) or reply
    except (ValueError, RecursionError):
        return reply


def _unfenced(reply: str) -> str:
    """Return what stands between a Markdown fence's marks, or the reply, without blanks at its ends."""
    body = reply.strip()
    if len(body) >= 2 * len(_FENCE) and body.startswith(_FENCE) and body.endswith(_FENCE):
        body = body[len(_FENCE) : -len(_FENCE)].removeprefix("json").strip()
    return body


def _written(value: Any) -> str:
    """Return the lines that a JSON value of the role's form stands for, "" for any other."""
    if isinstance(value, list):
        value = {"subquestions": value}
    if not isinstance(value, dict):
        return ""
    if isinstance(subquestions := value.get("subquestions", value.get("questions")), list):
        return _numbered(subquestions) or "No decomposition"
    if "answer" in value:
        steps = value.get("sub_answers")
        lines = [_numbered(steps)] if isinstance(steps, list) else []
        return "\n".join([*lines, f"The answer is: {_plain(value['answer'])}"]).lstrip()
    return ""


def _numbered(items: list[Any]) -> str:
    return "\n".join(f"{number}. {_plain(item)}" for number, item in enumerate(items, 1))


def _plain(item: Any) -> str:
    if isinstance(item, dict):
        item = next((item[name] for name in ("question", "subquestion", "answer") if name in item), item)
    if isinstance(item, list):
        return "; ".join(str(one) for one in item)
    return str(item)
