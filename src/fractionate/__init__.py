"""Fractional distillation for LLM reasoning: measure decomposing and solving apart, distill the part that pays.

The names below are the Python interface; they are imported when they are first used, so that `import fractionate`
costs next to nothing. What is not among them is private and may change. `docs/guide/python.md` walks through it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fractionate.api import Comparison as Comparison
    from fractionate.api import Report as Report
    from fractionate.api import Run as Run
    from fractionate.api import Scores as Scores
    from fractionate.api import System as System
    from fractionate.api import compare as compare
    from fractionate.api import compare_systems as compare_systems
    from fractionate.api import read_cells as read_cells
    from fractionate.api import read_report as read_report
    from fractionate.api import read_system as read_system
    from fractionate.api import score as score
    from fractionate.api import to_pandas as to_pandas
    from fractionate.config import Config as Config
    from fractionate.config import load_config as load_config
    from fractionate.config import parse_config as parse_config
    from fractionate.datasets import load as load
    from fractionate.datasets.base import Dataset as Dataset
    from fractionate.datasets.base import Scorer as Scorer
    from fractionate.errors import FractionateError as FractionateError
    from fractionate.errors import UsageError as UsageError
    from fractionate.models.base import BatchModel as BatchModel
    from fractionate.models.base import Model as Model
    from fractionate.models.base import SingleModel as SingleModel
    from fractionate.strategies.base import Solution as Solution
    from fractionate.strategies.base import Strategy as Strategy
    from fractionate.strategies.base import Task as Task
    from fractionate.strategies.base import ask as ask
    from fractionate.types import Attempt as Attempt
    from fractionate.types import Cell as Cell
    from fractionate.types import Completion as Completion
    from fractionate.types import Component as Component
    from fractionate.types import Decomposition as Decomposition
    from fractionate.types import Message as Message
    from fractionate.types import Problem as Problem
    from fractionate.types import Request as Request
    from fractionate.types import Usage as Usage

__version__ = "0.1.0"

_HOMES = {
    "api": "Comparison Report Run Scores System compare compare_systems read_cells read_report read_system score "
    "to_pandas",
    "config": "Config load_config parse_config",
    "datasets": "load",
    "datasets.base": "Dataset Scorer",
    "errors": "FractionateError UsageError",
    "models.base": "BatchModel Model SingleModel",
    "strategies.base": "Solution Strategy Task ask",
    "types": "Attempt Cell Completion Component Decomposition Message Problem Request Usage",
}
_RENAMED = {"Standing": "Comparison"}
"""Names of the release before this one, by today's."""
_HOME_OF = {name: f"fractionate.{home}" for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        import warnings

        warnings.warn(f"fractionate.{name} is now fractionate.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return __getattr__(_RENAMED[name])
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'fractionate' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["__version__", *_HOME_OF])
