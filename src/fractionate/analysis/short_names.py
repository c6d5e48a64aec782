"""Short, still unique forms of model names, for tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable

_PREFIXES = ("local", "recorded", "http", "https", "openai", "echo")


def short_pair_names(decomposers: Iterable[str], solvers: Iterable[str]) -> dict[str, str]:
    """Return short forms of the names of both roles, unique within each role (a decomposer and a solver may share)."""
    of_decomposers, of_solvers = list(decomposers), list(solvers)
    both = set(of_decomposers) & set(of_solvers)
    short = {**short_names(of_decomposers), **short_names(of_solvers)}
    return {**short, **{name: form for name, form in short_names([*short]).items() if name in both}}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return a short, still unique form of each model name: the end of its path, as much as it takes.

    "local:org/Model-1B@run/D-R" reads "Model-1B@D-R"; names without a path stay as they are.
    """
    wanted = list(dict.fromkeys(names))
    pieces = {name: _pieces(name) for name in wanted}
    short = {name: name for name in wanted}
    for name in wanted:
        for length in range(1, len(pieces[name]) + 1):
            form = "/".join(pieces[name][-length:])
            rivals = [other for other in wanted if other != name and "/".join(pieces[other][-length:]) == form]
            if not rivals and form not in wanted:
                short[name] = form
                break
    return short


def _pieces(name: str) -> list[str]:
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in _PREFIXES:
        return [name]
    base, at, adapter = rest.partition("@")
    ending = f"@{adapter.rstrip('/').rsplit('/', 1)[-1]}" if at else ""
    parts = [part for part in base.replace("#", "/").split("/") if part]
    if not parts:
        return [name]
    if parts[-1].endswith(".jsonl"):
        parts[-1] = parts[-1].removesuffix(".jsonl")
    parts[-1] += ending
    return parts
