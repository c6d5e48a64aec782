"""Questions, a tool of Python and documents beside a config, for runs with tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fractionate.run.run import Run
from fractionate.run.stages import run_everything

Opened = Callable[..., Any]
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


def asked(folder: Path) -> list[str]:
    """Return what the tool of Python was asked, call by call."""
    file = folder / "calls.txt"
    return file.read_text().splitlines() if file.exists() else []


def results_of(run: Run) -> dict[str, Any]:
    """Return a whole run's results, its cells by strategy and solver."""
    results = run_everything(run)
    return {**results, "by": {(cell["strategy"], cell["solver"]): cell for cell in results["cells"]}}
