"""Records of a run that are truncated, edited or damaged: each is read, or refused in one line that names it."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))

from attack_size import TIMES
from mutation import OF_BYTES, OF_ROWS, mutate

from fractionate.cli import main
from fractionate.config import Config, load_config
from fractionate.errors import FractionateError
from fractionate.run.folder import RunFolder
from fractionate.run.progress import Progress
from fractionate.run.reporting import write_report
from fractionate.run.run import Run

CONFIG = """
[data]
train = "jsonl:train.jsonl"
test = "jsonl:test.jsonl"
[models]
teacher = "echo:"
[run]
variants = ["D-R"]
pairs = [["none", "teacher"], ["teacher", "teacher"]]
store = "calls.sqlite"
[prices."echo:"]
input_per_million = 1.0
output_per_million = 1.0
"""
RECORDS = {
    "run.json": {"run": "run", "store": "calls.sqlite"},
    "notes.json": {"notes": {"data": ["a note"]}, "warnings": {"train": ["a warning"]}},
    "throughput.json": {
        "local:x": {"input_per_s": [9.0], "output_per_s": [3.0], "device": "cpu", "cores": 2, "batch_size": 4}
    },
    "tried.json": [
        {
            "student": "D-R",
            "base": "local:x",
            "method": "lora",
            "learning_rate": 0.1,
            "lora_rank": 8,
            "epochs": 1.0,
            "examples": 3,
            "steps": 2,
            "planned_steps": 2,
            "best_step": 1,
            "dev_loss": 1.0,
            "dev_examples": 1,
            "dev_losses": [[1, 1.0]],
            "chosen": True,
        }
    ],
    "students/D-R/training.json": {"examples": 3, "seconds": 4.0, "parameters": 9, "dev_losses": [[1, 0.5]]},
    "demonstrations.jsonl": None,
}
HUGE: list[Any] = [10**400, -(10**400), 1e308, float("-inf"), 2**63, "\ud83d", {"\ud83d": "\ud83d"}]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for name in ("train", "test"):
        rows = [{"question": f"{name} {n}?", "answer": str(n)} for n in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demonstrate", "run.toml", "--out", "run", "--quiet"]) == 0
        assert main(["evaluate", "run.toml", "--out", "run", "--quiet"]) == 0
        assert main(["report", "run.toml", "--out", "run", "--quiet"]) == 0
    for name, record in RECORDS.items():
        if record is not None:
            (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "run" / name).write_text(json.dumps(record))
    return folder


def said_of(folder: RunFolder, base: Path, config: Config) -> str:
    """Open a run and report it. Returns the error, "" where nothing was wrong."""
    try:
        with Run(config, folder.path, base, Progress(quiet=True)) as run:
            run.pairs()
        write_report(folder, config, "run")
    except FractionateError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_read_or_named_in_one_line(good: Path, tmp_path: Path, name: str) -> None:
    config, refused = load_config(good / "run.toml"), 0
    for number in range(20 * TIMES):
        draw = random.Random(f"{name} {number}")
        folder = RunFolder(tmp_path / f"run{number}")
        shutil.copytree(good / "run", folder.path)
        how = f"seed {number}, {mutate(folder.path / name, OF_BYTES if name == 'tried.json' else OF_ROWS, draw)}"
        if draw.random() < 0.4:
            value = draw.choice(HUGE)
            (folder.path / name).write_text(put_in(RECORDS[name] or (good / "run" / name).read_text(), value, draw))
            how = f"seed {number}, {value!r}"[:100]
        try:
            said = said_of(folder, good, config)
        except Exception as error:
            raise AssertionError(f"{how}: {error!r}") from error
        refused += bool(said)
        assert "\n" not in said, how
        assert not said or Path(name).name in said, (how, said)
    assert refused or name.startswith("students"), "nothing was damaged"


def put_in(record: object, value: object, draw: random.Random) -> str:
    """Return a record as JSON with a value in a place of it drawn at random."""
    lines = [json.loads(line) for line in record.splitlines()] if isinstance(record, str) else [record]
    changed = copy.deepcopy(lines)
    at: Any = changed
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = draw.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.7:
            at = at[key]
        else:
            at[key] = value
            break
    return "".join(json.dumps(line) + "\n" for line in changed)
