"""One set of limits for many processes: each has a share, and the shares together are never more than the whole."""

from __future__ import annotations

from fractionate.config import LimitsConfig

LEAST_REQUESTS = 30.0
"""Requests per minute of a share at least: a bucket keeps one call back as its burst, which is then a small part."""
LEAST_TOKENS = 20_000.0
"""Tokens per minute of a share at least: one call should be a small part of it."""


def most_workers(limits: LimitsConfig) -> int:
    """Return how many processes can have a share of these limits that they can work with, at least 1."""
    most = limits.concurrency
    if limits.requests_per_minute is not None:
        most = min(most, int(limits.requests_per_minute / LEAST_REQUESTS))
    if limits.tokens_per_minute is not None:
        most = min(most, int(limits.tokens_per_minute / LEAST_TOKENS))
    return max(1, most)


def shares(limits: LimitsConfig, count: int) -> list[LimitsConfig]:
    """Cut limits into `count` equal shares, at most `most_workers` of them; what cannot be cut goes to the first."""
    count = max(1, min(count, most_workers(limits)))
    each, more = divmod(limits.concurrency, count)
    rates = {
        name: value / count
        for name in ("requests_per_minute", "tokens_per_minute")
        if (value := getattr(limits, name)) is not None
    }
    return [limits.model_copy(update={"concurrency": each + (place < more), **rates}) for place in range(count)]


def smaller(one: LimitsConfig, other: LimitsConfig) -> LimitsConfig:
    """Return limits that are within both: what a process keeps to while others may still use the rest."""
    within = {
        name: min(getattr(one, name), getattr(other, name))
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute")
        if getattr(one, name) is not None
    }
    return other.model_copy(update=within)
