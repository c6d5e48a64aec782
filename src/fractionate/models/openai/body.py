"""Which further fields of the request body a user may send (`extra_body`), and what a budget can know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractionate.errors import UsageError

TRANSPORT_FIELDS = ("stream", "stream_options")
"""Fields that change how a reply travels, not what it says."""
PASSED_ON = frozenset(
    {
        *("max_tokens", "stop", "temperature", "seed", "top_p", "presence_penalty", "frequency_penalty"),
        *("response_format", "reasoning_effort", "verbosity"),
    }
)
"""Sampling fields of a served request that are handed on to the server."""
_OWN = {
    "model": "the model's name says it",
    "messages": "the strategy writes them",
    "max_tokens": "set max_tokens of the model's options instead, which the budget knows",
    "max_completion_tokens": "set max_tokens of the model's options instead, which the budget knows",
    "max_output_tokens": "set max_tokens of the model's options instead, which the budget knows",
    "max_new_tokens": "set max_tokens of the model's options instead, which the budget knows",
    "n": "one reply is read, and all are paid for",
    "best_of": "one reply is read, and all are paid for",
}
"""Fields that fractionate sends itself, and fields that multiply what a call costs."""
_ONE = ("n", "best_of")
_UNBOUNDED = (
    *("web_search_options", "search_parameters", "enable_search", "plugins", "mcp_servers"),
    *("models", "route", "prediction", "audio", "modalities"),
)
"""Fields by which a call may come to cost more than its own words: searches, other models, drafts, other media."""


def check_extra(model: str, extra: Mapping[str, Any]) -> None:
    """Raise UsageError for a field that is not the user's to set."""
    for field, value in extra.items():
        if field in _OWN and not (field in _ONE and value == 1):
            raise UsageError(f'models.options."{model}".extra_body.{field} cannot be set: {_OWN[field]}')


def check_known_cost(model: str, extra: Mapping[str, Any]) -> None:
    """Raise UsageError for a field that makes the cost of a call unknowable, so that no budget could be kept."""
    for field, value in extra.items():
        hosted = field in ("tools", "functions") and not _only_described(value)
        dearer = field == "service_tier" and value == "priority"
        if field in _UNBOUNDED or hosted or dearer:
            raise UsageError(
                f'what a call costs with models.options."{model}".extra_body.{field} cannot be known beforehand, so no '
                "budget can be kept: take the field out, or the caps under [budget]"
            )


def _only_described(tools: object) -> bool:
    """Whether tools are descriptions to read, not services that the provider runs and bills."""
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type", "function") == "function" for tool in tools
    )
