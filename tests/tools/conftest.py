"""Questions, a tool of Python and documents beside a config, and runs over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fractionate.config import parse_config
from fractionate.run.run import Run
from fractionate.run.stages import evaluate_stage, report_stage, run_everything

LOOK = '''
from pathlib import Path

FACTS = {
    "What is the capital of Kenya?": "Nairobi",
    "What is the currency of Kenya?": "Kenyan shilling",
    "Which country has the capital Nairobi?": "Kenya",
}


def look(text: str) -> str:
    """Looks a fact up.

    Every call leaves a line in calls.txt.
    """
    with (Path(__file__).parent / "calls.txt").open("a") as file:
        file.write(text + "\\\\n")
    return FACTS[text]
'''.replace("\\\\n", "\\n")
ROWS = [
    {
        "question": "What is the capital of Kenya?",
        "answer": "Nairobi",
        "subquestions": ["What is the capital of Kenya?"],
    },
    {
        "question": "What is the currency of the country whose capital is Nairobi?",
        "answer": "Kenyan shilling",
        "subquestions": ["Which country has the capital Nairobi?", "What is the currency of #1?"],
    },
]
FACTS = {"kind": "python", "function": "look:look"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with look.py, test.jsonl and documents."""
    (tmp_path / "look.py").write_text(LOOK)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "facts.md").write_text(
        "The capital of Kenya is Nairobi.\n\nKenya uses the Kenyan shilling.\n\nLima is the capital of Peru."
    )
    return tmp_path


def asked(folder: Path) -> list[str]:
    """Return what the tool of Python was asked, call by call."""
    file = folder / "calls.txt"
    return file.read_text().splitlines() if file.exists() else []


Opened = Callable[..., Any]


@pytest.fixture
def opened(folder: Path) -> Opened:
    """Return what opens a run over the folder's questions."""

    @contextmanager
    def open_run(solvers: list[str], tools: dict[str, Any], out: str = "out", **tables: Any) -> Iterator[Run]:
        table = {
            "data": {"test": "jsonl:test.jsonl", "answer": "text"},
            "models": {"teacher": "echo:1", "solvers": solvers, "decomposers": ["gold"], **tables.pop("models", {})},
            "run": {"strategies": ["stepwise"], "variants": [], **tables.pop("run", {})},
            "tools": tools,
            **tables,
        }
        with Run(parse_config(table), folder / out, folder) as run:
            yield run

    return open_run


def results_of(run: Run) -> dict[str, Any]:
    """Return a whole run's results, its cells by strategy and solver."""
    results = run_everything(run)
    return {**results, "by": {(cell["strategy"], cell["solver"]): cell for cell in results["cells"]}}


def measured(run: Run) -> dict[str, Any]:
    """Return the results of evaluating alone."""
    evaluate_stage(run)
    return report_stage(run)
