"""Models, one file each: any OpenAI-compatible server, local weights, recorded outputs, an echo.

One grammar names them everywhere: `openai:NAME`, `http://HOST:PORT/v1#NAME` (several addresses with commas between),
`local:HUB_ID_OR_PATH[@ADAPTER]`, `recorded:PATH`, `echo:`; `MODEL[NAME,…]` and `tool:NAME` name tools (`tools`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.config.addresses import TOOL, check_list, split_tools
from fractionate.errors import UsageError, without_secrets
from fractionate.plugin import find_plugin

if TYPE_CHECKING:
    from fractionate.config import ModelOptions
    from fractionate.models.base import Model

_MAKERS = {
    "openai": ("fractionate.models.openai.api", "OpenAIModel"),
    "http": ("fractionate.models.openai.replicas", "open_servers"),
    "https": ("fractionate.models.openai.replicas", "open_servers"),
    "local": ("fractionate.models.local.model", "LocalModel"),
    "recorded": ("fractionate.models.recorded", "RecordedModel"),
    "echo": ("fractionate.models.echo", "EchoModel"),
}
_ON_SERVERS = ("openai", "http", "https")
GRAMMAR = (
    "openai:NAME, http://HOST:PORT/v1#NAME, local:HUB_ID_OR_PATH[@ADAPTER], recorded:PATH, echo: or tool:NAME, and "
    "MODEL[NAME,…] with tools"
)


def is_model_name(name: str) -> bool:
    """Whether a name is written in the model grammar (and not, say, "teacher" or "D-R")."""
    return ":" in name


def check_name(name: str) -> None:
    """Raise UsageError for a name outside the grammar, naming the nearest prefix, or with a malformed list in it."""
    model, tools = split_tools(name)
    prefix, colon, rest = model.partition(":")
    if not all(tools):
        raise UsageError(f"{without_secrets(name)!r} leaves a tool unnamed: write MODEL[NAME,…]")
    if name.startswith(TOOL) and tools:
        raise UsageError(f"{name}: a tool uses no tools: name the model that does, such as openai:NAME[{tools[0]}]")
    if name.startswith(TOOL) and rest:
        return
    if prefix in _MAKERS and colon and (rest or prefix == "echo"):
        if prefix in _ON_SERVERS:
            check_list(model)
        return
    if colon and prefix not in _MAKERS and find_plugin("models", prefix) is not None:
        return
    nearest = difflib.get_close_matches(prefix, _MAKERS, n=1)
    hint = f" (did you mean {nearest[0] + ':'!r}?)" if nearest and prefix not in _MAKERS else ""
    if not colon and not hint:
        hint = f" (did you mean 'openai:{name}'?)"
    raise UsageError(f"unknown model {without_secrets(name)!r}{hint}: a model is named {GRAMMAR}")


def open_model(name: str, options: ModelOptions, base: Path | None = None) -> Model:
    """Return the model of a name. Checks what can be checked without a call: key, extra, files.

    A relative path in the name is looked for in `base` (the config's folder) first, then in the working directory.
    Raises UsageError naming the model and the fix.
    """
    check_name(name)
    opened = _maker(name.partition(":")[0])(_located(name, base), options)
    opened.name = name
    opened.made_with = options
    return opened


def _maker(prefix: str) -> Callable[[str, ModelOptions], Model]:
    """Return what makes the models of a prefix: this package's, or a plug-in's (called the same way)."""
    if prefix in _MAKERS:
        module, attribute = _MAKERS[prefix]
        maker: Callable[[str, ModelOptions], Model] = getattr(import_module(module), attribute)
        return maker
    plugin = find_plugin("models", prefix)
    if not callable(plugin):
        raise UsageError(f"the plug-in {prefix!r} of fractionate.models makes no model: see fractionate.models.base")
    made: Callable[[str, ModelOptions], Model] = plugin
    return made


def _located(name: str, base: Path | None) -> str:
    prefix, _, path = name.partition(":")
    if base is None or prefix not in ("recorded", "local"):
        return name
    found = [str(base / part) if (base / part).exists() else part for part in path.split("@")]
    return f"{prefix}:{'@'.join(found)}"
