"""A run on one's own questions, measured with the echo model: two pairs, no model, no training."""

from __future__ import annotations

import json
from pathlib import Path

from fractionate.config import load_config
from fractionate.run.progress import Progress
from fractionate.run.run import Run
from fractionate.run.stages import run_everything

PAIR = "fractionate/static:teacher+echo:"
"""The name of its two-stage pair."""
CONFIG = """
[data]
test = "jsonl:test.jsonl"
[models]
teacher = "echo:"
solvers = ["echo:"]
decomposers = ["none", "teacher"]
[run]
variants = []
strategies = ["single", "static"]
[prices."echo:"]
input_per_million = 1.0
output_per_million = 2.0
"""


def measured_echo_run(home: Path, rows: list[dict[str, str]]) -> Path:
    """Write test.jsonl and run.toml to a folder, measure, and return the run's folder in it."""
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "run.toml").write_text(CONFIG)
    with Run(load_config(home / "run.toml"), home / "run", home, Progress(quiet=True)) as run:
        run_everything(run)
    return home / "run"
