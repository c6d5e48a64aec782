"""The most output tokens that a question of each cell can take: the `max_tokens` of its calls, times their number.

The verdict's cost intervals are bounded by it. A reply that runs on until it is cut off is too rare to be seen in a few
hundred questions, but it cannot be longer than this.
"""

from __future__ import annotations

from collections.abc import Iterable

from fractionate import datasets, strategies
from fractionate.analysis.matrix import key_of
from fractionate.analysis.rule import Caps
from fractionate.config import Config, DecomposerConfig, ModelOptions
from fractionate.config.addresses import tools_of
from fractionate.errors import UsageError
from fractionate.run.models import student_options
from fractionate.strategies.base import DECOMPOSE_TOKENS, MostCalls, Settings
from fractionate.types import Cell, Component, Role


def output_caps(config: Config, cells: Iterable[Cell]) -> Caps:
    """Return the most output tokens of a question by cell and role; a role whose calls have no cap is left out.

    Recorded replies have none, since they were made elsewhere, nor have models with tools, which take several calls.
    """
    return {key_of(cell): _caps_of(config, cell) for cell in cells}


def _caps_of(config: Config, cell: Cell) -> dict[Role, int]:
    try:
        most_calls = strategies.get(cell.strategy).most_calls
        calls = most_calls(_settings(config, cell)) if most_calls else None
    except UsageError:  # a plug-in that is no longer installed
        return {}
    if calls is None:
        return {}
    if cell.stages == "two-stage":
        calls = [MostCalls("decomposer", 1, DECOMPOSE_TOKENS), *calls]
    found: dict[Role, int] = {}
    for call in calls:
        component = cell.decomposer if call.role == "decomposer" else cell.solver
        if component.model and not component.model.startswith("recorded:") and not tools_of(component.model):
            each = _options(config, component).max_tokens or call.max_tokens
            found[call.role] = found.get(call.role, 0) + call.calls * each
    return found


def _options(config: Config, component: Component) -> ModelOptions:
    return student_options(config, component) if component.is_student else config.options(component.model)


def _settings(config: Config, cell: Cell) -> Settings:
    own = config.decomposers.get(cell.decomposer.name, DecomposerConfig())
    cap = config.run.cap if own.cap is None else own.cap
    most = datasets.get(cell.dataset).default_cap if cap == "default" else None if cap == "none" else cap
    return Settings(cap=most, votes=config.run.votes)
