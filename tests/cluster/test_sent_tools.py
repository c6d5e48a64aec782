"""A model with tools is sent to another process: its parts are opened there, and must be the same."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the 'ray' extra is not installed")

from fractionate.cluster.sent import open_named, pickled, unpickled
from fractionate.cluster.shard_queue import can_leave
from fractionate.config import ModelOptions, ToolConfig
from fractionate.errors import UsageError
from fractionate.models import open_model
from fractionate.models.base import Model
from fractionate.tools import open_tool, with_tools
from fractionate.tools.using import ToolUser


def test_its_parts_are_opened_where_it_arrives(tmp_path: Path) -> None:
    (tmp_path / "facts.md").write_text("Lima is the capital of Peru.")
    docs = ToolConfig(kind="search", documents="facts.md")

    def part(name: str) -> Model:
        return open_tool("docs", docs, tmp_path) if name == "tool:docs" else open_model(name, ModelOptions())

    model = with_tools("http://127.0.0.1:9/v1#m[docs]", ModelOptions(tool_turns=2), part)
    assert can_leave([model])
    data, models = pickled([model])
    assert [one.name for one in models] == ["http://127.0.0.1:9/v1#m", "tool:docs"]
    (arrived,) = unpickled(data, lambda named: open_named(named, tmp_path))
    assert isinstance(arrived, ToolUser)
    assert (arrived.identity, arrived.how, arrived.turns) == (model.identity, "calls", 2)
    (tmp_path / "facts.md").write_text("Quito is the capital of Ecuador.")
    with pytest.raises(UsageError, match="tool:docs is another model on"):
        unpickled(data, lambda named: open_named(named, tmp_path))
