"""The table `[tools.NAME]` of a config: what solvers may look things up with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from fractionate.config.values import Dollars, Names, Section, as_json, as_variable

_TOOL_KEYS: dict[str, tuple[str, ...]] = {
    "python": ("function",),
    "search": ("documents", "fields", "k"),
    "sql": ("database", "query"),
    "http": ("url", "field", "api_key_env"),
    "mcp": ("command", "url", "env", "tool", "argument", "api_key_env"),
    "atlas": (),
}
"""The keys of each kind of tool, the one that it needs first, beside those that every kind has."""
_KEYS_OF_KINDS = frozenset(key for keys in _TOOL_KEYS.values() for key in keys)


class ToolConfig(Section):
    """A tool that solvers may look things up with, under [tools.NAME]: `tool:NAME` and `MODEL[NAME]` name it."""

    kind: str = Field(description="python, search, sql, http, mcp, atlas, or a plug-in's kind (fractionate.tools)")
    description: str = Field(default="", description="what the tool does, as models are told; its own if empty")
    function: str = Field(
        default="",
        description='of "python": module:function, beside the config or on PYTHONPATH; it takes the question or '
        "subquestion and returns text",
    )
    documents: str = Field(
        default="", description='of "search": a file, or a folder of files: .jsonl, .json, .csv, .parquet, .txt, .md'
    )
    fields: Names = Field(default=[], description='of "search": the fields of rows to search; every text field if []')
    k: int = Field(default=3, ge=1, le=1000, description='of "search": documents in a reply')
    database: str = Field(
        default="", description='of "sql": an SQLite file, or a DuckDB file (.duckdb); it is opened to be read only'
    )
    query: str = Field(
        default="",
        description='of "sql": the query that answers a text, which stands in it as :text; models write the query '
        "themselves if empty",
    )
    url: str = Field(
        default="",
        description='of "http": the address, {text} in it stands for the question (without {text} it is posted as '
        'JSON, {"text": …}); of "mcp": the address of a server, instead of a command',
    )
    field: str = Field(default="", description='of "http": the field of a JSON reply to return, such as "items.0.text"')
    command: Names = Field(default=[], description='of "mcp": the command that starts a server on stdio, and its words')
    env: Names = Field(
        default=[],
        description='of "mcp": environment variables that the command is given beside PATH and HOME',
    )
    tool: str = Field(default="", description='of "mcp": the only tool of the server to use; all of them if empty')
    argument: str = Field(
        default="", description='of "mcp": the argument that takes the question; the only one that is text if empty'
    )
    api_key_env: Annotated[str, AfterValidator(as_variable)] = Field(
        default="", description='of "http" and "mcp" with a URL: environment variable that holds a bearer key'
    )
    settings: Annotated[dict[str, Any], AfterValidator(as_json)] = Field(
        default={}, description="what a plug-in's kind takes"
    )
    timeout_s: float = Field(
        default=30.0, gt=0, le=86_400, description="the most seconds per call; limits.timeout_s where that is less"
    )
    reply_kb: float = Field(
        default=8.0, gt=0, le=2**20, description="kilobytes of a reply at most; the rest is cut off"
    )
    usd_per_call: Dollars = Field(default=0.0, description="dollars that one call costs")
    concurrency: int = Field(default=8, ge=1, le=100_000, description="calls at once")
    writes: bool = Field(
        default=False,
        description="whether it changes anything: then a call is never sent twice, and never made by a shadow",
    )
    version: str = Field(
        default="", description="a word to change when the tool does: stored replies are of one version"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> ToolConfig:
        own = _TOOL_KEYS.get(self.kind, ("settings",))
        # Not `model_fields_set`: the config that a run stores names every key.
        for key in sorted({*_KEYS_OF_KINDS, "settings"}):
            if getattr(self, key) == type(self).model_fields[key].default:
                continue
            if key not in own:
                raise ValueError(f'{key} is no key of a tool of kind "{self.kind}" ({", ".join(own) or "it has none"})')
        needed = ("command", "url") if self.kind == "mcp" else own[:1] if self.kind in _TOOL_KEYS else ()
        if needed and sum(bool(getattr(self, key)) for key in needed) != 1:
            raise ValueError(f'a tool of kind "{self.kind}" needs {" or ".join(needed)}')
        return self
