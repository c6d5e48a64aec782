"""The strategies, one file each: every module here lists its records under `STRATEGIES`, and that is all it takes."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from fractionate.errors import UsageError
from fractionate.plugins import find_plugin
from fractionate.reasoning.program import Strategy

_ORDER = ("single", "two-stage", "dynamic")


@cache
def built_in() -> dict[str, Strategy]:
    """Return the strategies of this package by name: single-stage ones first."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
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
        raise UsageError(f"the plug-in {name!r} of fractionate.strategies is no Strategy: see fractionate.reasoning")
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown strategy {name!r}: {hint}Known strategies: {', '.join(known)}")
