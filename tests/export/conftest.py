"""Runs with trained students, small enough for repeated exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests_tiny import build_tiny_model

CONFIG = """
[data]
train = "jsonl:train.jsonl"
test = "jsonl:test.jsonl"
[models]
teacher = "echo:0.9"
solvers = ["echo:0.5", "E-A"]
decomposers = ["none", "teacher", "student", "D-R"]
student = "local:{model}"
[models.options."local:{model}"]
max_tokens = 10
[run]
name = "tiny"
variants = ["D-R", "E-A"]
strategies = ["static"]
[train]
batch_size = 4
lora_rank = 4
learning_rate = 0.01
"""


@pytest.fixture(scope="session")
def merging_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose vocabulary llama.cpp reads."""
    pytest.importorskip("torch", reason="the 'local' extra is not installed")
    return build_tiny_model(tmp_path_factory.mktemp("models") / "merging", merges=(("o", "n"), ("i", "s")))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, merging_model: Path, tiny_model: Path) -> Path:
    """The folder of a run that trained and measured a decomposer and a solver. `tiny_model` keeps it on one thread."""
    return measured_run(tmp_path_factory.mktemp("tiny"), merging_model)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory, merging_model: Path, tiny_model: Path) -> Path:
    """The same with a student of full training, the only one."""
    return measured_run(tmp_path_factory.mktemp("full"), merging_model, ["run.variants=['E-A']", "train.method='full'"])


def measured_run(folder: Path, model: Path, changes: list[str] | None = None) -> Path:
    """Write data and a config, run it, and return the run's folder."""
    pytest.importorskip("trl", reason="the 'train' extra is not installed")
    from fractionate.config import load_config
    from fractionate.run.progress import Progress
    from fractionate.run.run import Run
    from fractionate.run.stages import run_everything

    for name, first, count in (("train", 0, 12), ("test", 100, 6)):
        rows = [
            {"question": f"What is number {n}?", "answer": f"it {n}", "context": f"Number {n} is it."}
            for n in range(first, first + count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(CONFIG.format(model=model))
    changed = [*(changes or ()), *(["models.decomposers=['none','teacher']"] if changes else [])]
    with Run(load_config(folder / "run.toml", changed), folder / "run", folder, Progress(quiet=True)) as run:
        run_everything(run)
    return folder / "run"
