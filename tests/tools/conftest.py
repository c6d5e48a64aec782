"""Runs over questions that a tool of Python answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tool_runs import LOOK, ROWS, Opened

from fractionate.config import parse_config
from fractionate.run.run import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with look.py, test.jsonl and documents."""
    (tmp_path / "look.py").write_text(LOOK)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "facts.md").write_text(
        "The capital of Kenya is Nairobi.\n\nKenya uses the Kenyan shilling.\n\nLima is the capital of Peru."
    )
    return tmp_path


@pytest.fixture
def opened(folder: Path) -> Opened:
    """Return what opens a run over the folder's questions."""

    @contextmanager
    def open_run(solvers: list[str], tools: dict[str, Any], out: str = "out", **tables: Any) -> Iterator[Run]:
        table = {
            "data": {"test": "jsonl:test.jsonl", "answer": "text", **tables.pop("data", {})},
            "models": {"teacher": "echo:1", "solvers": solvers, "decomposers": ["gold"], **tables.pop("models", {})},
            "run": {"strategies": ["stepwise"], "variants": [], **tables.pop("run", {})},
            "tools": tools,
            **tables,
        }
        with Run(parse_config(table), folder / out, folder) as run:
            yield run

    return open_run
