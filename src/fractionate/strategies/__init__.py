"""The strategies, one file each. A new one is a file with its records under `STRATEGIES` and its name in `_FILES`."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module

from fractionate.errors import UsageError
from fractionate.plugin import find_plugin
from fractionate.strategies.base import Strategy

_FILES = ("single", "self_consistency", "static", "stepwise", "dynamic")
_ORDER = ("single", "two-stage", "dynamic")


@cache
def built_in() -> dict[str, Strategy]:
    """Return the strategies of this package by name: single-stage ones first."""
    modules = [import_module(f"{__name__}.{name}") for name in _FILES]
    found = [strategy for module in modules for strategy in module.STRATEGIES]
    found.sort(key=lambda strategy: (_ORDER.index(strategy.stages), strategy.name))
    return {strategy.name: strategy for strategy in found}


def get(name: str) -> Strategy:
    """Return a strategy by name, of this package or a plug-in's. Raises UsageError that names the nearest known one."""
    known = built_in()
    if name in known:
        return known[name]
    plugin = find_plugin("strategies", name)
    if isinstance(plugin, Strategy):
        return plugin
    if plugin is not None:
        raise UsageError(f"the plug-in {name!r} of fractionate.strategies is no Strategy: see fractionate.strategies")
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown strategy {name!r}: {hint}Known strategies: {', '.join(known)}")
