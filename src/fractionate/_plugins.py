"""Parts that other packages bring: data sets, scorers, strategies, models and report sections, by entry points.

A package names them in its pyproject.toml, `[project.entry-points."fractionate.strategies"]` and so on, one group for
each of `GROUPS`. They are looked up only for names that fractionate itself does not know, so that having some costs
nothing at start-up; `examples/plugin` is a worked one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from fractionate.errors import UsageError

Group = Literal["datasets", "scorers", "strategies", "models", "sections"]
GROUPS: tuple[Group, ...] = ("datasets", "scorers", "strategies", "models", "sections")


def find_plugin(group: Group, name: str) -> Any | None:
    """Return what an installed package offers under a name, None if none does. Raises UsageError if it cannot load."""
    found = next(iter(entry_points(group=f"fractionate.{group}", name=name)), None)
    return None if found is None else _loaded(group, found)


def all_plugins(group: Group) -> dict[str, Any]:
    """Return everything that installed packages offer in a group, by name."""
    return {point.name: _loaded(group, point) for point in entry_points(group=f"fractionate.{group}")}


def load_function(text: str) -> Callable[..., Any]:
    """Return the function that `FILE.py:NAME` names. Raises UsageError where the file or the function is not there."""
    import importlib.util

    file, _, name = text.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"{text}: {path} does not exist: write FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"_fractionate_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{text}: {path} is no Python file: write FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{path} cannot be loaded: {said}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{path} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


def _loaded(group: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        # Whatever is wrong with another package's module is said with its name, not as our own failure.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = f"{point.value} (fractionate.{group}: {point.name})"
        raise UsageError(f"the plug-in {where} cannot be loaded: {said}") from None
