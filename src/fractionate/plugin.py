"""All that a package needs which brings parts of its own to fractionate, in one module.

A part is a data set, a scorer, a strategy, a model, a tool or a report section. The package names it in its
pyproject.toml, `[project.entry-points."fractionate.strategies"]` and so on, one group for each of `GROUPS`; then a
config may name it as if it were built in. `examples/plugin` is a worked package with parts of most kinds. The names
below are imported when they are first used. They are public: a release that changes one says so; what is not among them
is private.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fractionate.errors import UsageError

if TYPE_CHECKING:
    from fractionate.config import ModelOptions as ModelOptions
    from fractionate.config import ToolConfig as ToolConfig
    from fractionate.datasets.base import AnswerForm as AnswerForm
    from fractionate.datasets.base import Dataset as Dataset
    from fractionate.datasets.base import Reference as Reference
    from fractionate.errors import FractionateError as FractionateError
    from fractionate.errors import UsageError as UsageError
    from fractionate.models.base import BatchModel as BatchModel
    from fractionate.models.base import Call as Call
    from fractionate.models.base import CallCoroutine as CallCoroutine
    from fractionate.models.base import Model as Model
    from fractionate.models.base import ProviderBatchModel as ProviderBatchModel
    from fractionate.models.base import SingleModel as SingleModel
    from fractionate.models.faults import FatalFault as FatalFault
    from fractionate.models.faults import Fault as Fault
    from fractionate.models.faults import PermanentFault as PermanentFault
    from fractionate.models.faults import TransientFault as TransientFault
    from fractionate.report.facts import Facts as Facts
    from fractionate.report.section import Column as Column
    from fractionate.report.section import Entry as Entry
    from fractionate.report.section import Example as Example
    from fractionate.report.section import Figure as Figure
    from fractionate.report.section import Lines as Lines
    from fractionate.report.section import Section as Section
    from fractionate.report.section import Table as Table
    from fractionate.report.section import table_section as table_section
    from fractionate.rows import Row as Row
    from fractionate.rows import read_rows as read_rows
    from fractionate.scoring.choices import extract_choice as extract_choice
    from fractionate.scoring.choices import extract_yes_no as extract_yes_no
    from fractionate.scoring.final import extract_final as extract_final
    from fractionate.scoring.final import extract_spans as extract_spans
    from fractionate.scoring.metrics import drop_score as drop_score
    from fractionate.scoring.metrics import score_choice as score_choice
    from fractionate.scoring.metrics import score_number as score_number
    from fractionate.scoring.metrics import score_yes_no as score_yes_no
    from fractionate.scoring.metrics import text_score as text_score
    from fractionate.scoring.number_answers import extract_number as extract_number
    from fractionate.scoring.number_answers import number_of as number_of
    from fractionate.scoring.scorers import Scorer as Scorer
    from fractionate.strategies.base import Sampler as Sampler
    from fractionate.strategies.base import Settings as Settings
    from fractionate.strategies.base import Solution as Solution
    from fractionate.strategies.base import Strategy as Strategy
    from fractionate.strategies.base import Task as Task
    from fractionate.strategies.base import ask as ask
    from fractionate.strategies.decompose import decompose as decompose
    from fractionate.strategies.decompose import fill_references as fill_references
    from fractionate.strategies.decompose import parse_decomposition as parse_decomposition
    from fractionate.strategies.prompting import final_messages as final_messages
    from fractionate.strategies.prompting import numbered_lines as numbered_lines
    from fractionate.strategies.prompting import single_messages as single_messages
    from fractionate.strategies.prompting import static_messages as static_messages
    from fractionate.strategies.prompting import step_messages as step_messages
    from fractionate.tools.base import Function as Function
    from fractionate.tools.base import Tool as Tool
    from fractionate.tools.base import ToolError as ToolError
    from fractionate.types import Answer as Answer
    from fractionate.types import Completion as Completion
    from fractionate.types import Decomposition as Decomposition
    from fractionate.types import Message as Message
    from fractionate.types import Origin as Origin
    from fractionate.types import Problem as Problem
    from fractionate.types import Request as Request
    from fractionate.types import Role as Role
    from fractionate.types import Score as Score
    from fractionate.types import Usage as Usage

Group = Literal["datasets", "scorers", "strategies", "models", "tools", "sections"]
GROUPS: tuple[Group, ...] = ("datasets", "scorers", "strategies", "models", "tools", "sections")
_HOMES = {
    "types": "Answer Completion Decomposition Message Origin Problem Request Role Score Usage",
    "errors": "FractionateError UsageError",
    "config": "ModelOptions ToolConfig",
    "rows": "Row read_rows",
    "datasets.base": "AnswerForm Dataset Reference",
    "scoring.scorers": "Scorer",
    "scoring.metrics": "drop_score score_choice score_number score_yes_no text_score",
    "scoring.choices": "extract_choice extract_yes_no",
    "scoring.final": "extract_final extract_spans",
    "scoring.number_answers": "extract_number number_of",
    "models.base": "BatchModel Call CallCoroutine Model ProviderBatchModel SingleModel",
    "tools.base": "Function Tool ToolError",
    "models.faults": "FatalFault Fault PermanentFault TransientFault",
    "strategies.decompose": "decompose fill_references parse_decomposition",
    "strategies.base": "Sampler Settings Solution Strategy Task ask",
    "strategies.prompting": "final_messages numbered_lines single_messages static_messages step_messages",
    "report.facts": "Facts",
    "report.section": "Column Entry Example Figure Lines Section Table table_section",
}
_HOME_OF = {name: f"fractionate.{home}" for home, names in _HOMES.items() for name in names.split()}


def find_plugin(group: Group, name: str) -> Any | None:
    """Return what an installed package offers under a name, None if none does. Raises UsageError if it cannot load.

    fractionate asks only for names that it does not know itself, so that installed plug-ins cost nothing at start-up.
    """
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
        # Whatever is wrong with another package's module is reported with its name, not as a failure of fractionate.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = f"{point.value} (fractionate.{group}: {point.name})"
        raise UsageError(f"the plug-in {where} cannot be loaded: {said}") from None


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'fractionate.plugin' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["GROUPS", "Group", "all_plugins", "find_plugin", "load_function", *_HOME_OF])
