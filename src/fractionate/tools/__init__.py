"""Tools that solvers look things up with: `[tools.NAME]`, named as `tool:NAME` and `MODEL[NAME,…]`.

`base` is what a tool is, `kinds` and `mcp` are the kinds, `using` is how models use tools. Other packages bring kinds
of their own by entry points, group "fractionate.tools": a function or class of (name, config, base folder) → `Tool`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fractionate.config import ModelOptions, ToolConfig
from fractionate.config.addresses import TOOL, is_on_servers, split_tools, tools_of
from fractionate.errors import UsageError
from fractionate.models.base import CompositeModel, Model
from fractionate.plugin import find_plugin
from fractionate.tools.base import Tool, ToolModel
from fractionate.tools.using import How, ToolSolver, ToolUser

_KINDS = {
    "python": ("fractionate.tools.kinds", "PythonTool"),
    "search": ("fractionate.tools.kinds", "SearchTool"),
    "sql": ("fractionate.tools.kinds", "SqlTool"),
    "http": ("fractionate.tools.kinds", "HttpTool"),
    "mcp": ("fractionate.tools.mcp", "McpTool"),
    "atlas": ("fractionate.tools.kinds", "AtlasTool"),
}


def check_tools(name: str, tools: Mapping[str, ToolConfig], key: str = "") -> None:
    """Raise UsageError where a model's name names a tool that the config does not have."""
    for tool in tools_of(name):
        if tool not in tools:
            nearest = difflib.get_close_matches(tool, tools, n=1)
            hint = f": did you mean {nearest[0]!r}?" if nearest else f": describe it under [tools.{tool or 'NAME'}]"
            raise UsageError(f"{key + ': ' if key else ''}{name} names the tool {tool!r}, which is not there{hint}")


def open_tool(name: str, config: ToolConfig, base: Path) -> ToolModel:
    """Return a tool, opened: its files are read, its server is not asked. Raises UsageError that names key and fix."""
    if config.kind in _KINDS:
        module, attribute = _KINDS[config.kind]
        made: Any = getattr(import_module(module), attribute)
    else:
        made = find_plugin("tools", config.kind)
        if made is None:
            known = ", ".join(_KINDS)
            nearest = difflib.get_close_matches(config.kind, _KINDS, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise UsageError(f"tools.{name}.kind: {config.kind!r} is no kind of tool: {hint}There are {known}")
    tool = made(name, config, base)
    if not isinstance(tool, Tool):
        raise UsageError(f"tools.{name}.kind: the plug-in {config.kind!r} makes no Tool: see fractionate.tools.base")
    return ToolModel(name, config, tool)


def with_tools(name: str, options: ModelOptions, part: Callable[[str], Model]) -> CompositeModel:
    """Return the model of a name with tools, its parts opened by `part`, by their names."""
    model, tools = split_tools(name)
    if not tools:
        tool = part(model)
        assert isinstance(tool, ToolModel), "tool:NAME opens a tool"
        return ToolSolver(tool)
    opened = [part(f"{TOOL}{tool}") for tool in tools]
    found = part(model)
    how: How = options.tools or _usual(model)
    if how == "calls" and not (is_on_servers(model) or model.startswith("openai:")):
        raise UsageError(f'models.options."{name}".tools: only openai: and http: models can call tools: "react" can')
    return ToolUser(name, found, [tool for tool in opened if isinstance(tool, ToolModel)], how, options.tool_turns)


def has_tools(name: str) -> bool:
    """Whether a model's name names tools."""
    return bool(tools_of(name))


def parts_of(model: Model) -> Iterator[Model]:
    """Yield the models whose calls a model makes: its parts, or itself."""
    if not isinstance(model, CompositeModel):
        yield model
        return
    for part in model.parts:
        yield from parts_of(part)


def _usual(model: str) -> How:
    if is_on_servers(model) or model.startswith("openai:"):
        return "calls"
    return "retrieve" if model.startswith("local:") else "react"
