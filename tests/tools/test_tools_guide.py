"""docs/guide/tools.md matches the code: its files and commands lead from an empty folder to the verdict it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servers.threaded import in_thread
from servers.tool_calling_server import ToolCallingServer
from walks import ROOT, walk

pytest.importorskip("mcp", reason="the 'mcp' extra is not installed")


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path) -> None:
    with in_thread(ToolCallingServer()) as server:
        key = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "a key for nothing"}
        walk(ROOT / "docs/guide/tools.md", tmp_path, key)
    results = json.loads((tmp_path / "run/results.json").read_text())
    values = {(cell["strategy"], cell["decomposer"]): cell["value"] for cell in results["cells"]}
    assert values["single", "none"] == 0.0
    assert values["stepwise", "recorded:student.jsonl"] > values["stepwise", "teacher"] > 0.5
    both = json.loads((tmp_path / "both/results.json").read_text())
    assert all([used["tool"] for used in cell["tools"]] == ["docs", "facts"] for cell in both["cells"])
