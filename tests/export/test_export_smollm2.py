"""The real SmolLM2 with a small adapter: GGUF that transformers and llama.cpp read, and the files with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from fractionate.config import TrainConfig, parse_config
from fractionate.errors import UsageError
from fractionate.export import gguf
from fractionate.export.student import open_student
from fractionate.export.write import Wanted, export_student
from fractionate.models.local.weights import SMOLLM2, resolve
from fractionate.run.tuning import EXAMPLES
from fractionate.students.train import train_student
from fractionate.types import Example, Message

CAPITALS = {"Peru": "Lima", "Chad": "N'Djamena", "Fiji": "Suva", "Laos": "Vientiane"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a student that has seen four examples."""
    try:
        resolve(SMOLLM2).folder()
    except UsageError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("smollm2")
    examples = [
        Example((Message("user", f"Which sea is 2 km from {land}'s capital?"),), f"1. What is {land}'s capital?", land)
        for land in CAPITALS
    ]
    settings = TrainConfig(batch_size=4, lora_rank=4, learning_rate=2e-3)
    train_student(SMOLLM2, examples, folder / "students/D-R", settings)
    rows = [{"messages": [list(message) for message in one.messages], "target": one.target} for one in examples]
    (folder / "students/D-R" / EXAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = parse_config({
        "data": {"train": "jsonl:x.jsonl", "test": "jsonl:x.jsonl"},
        "models": {"teacher": "echo:", "options": {"D-R": {"max_tokens": 8}}},
        "run": {"variants": ["D-R"]},
    })  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    return folder


@pytest.mark.model
def test_gguf_of_smollm2_is_read_back_and_answers_alike(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = Wanted(kind="gguf", types=("f16",), name="capitals")
    written = export_student(open_student(run), tmp_path / "out", wanted, said.append)
    runtimes = ["transformers", *(["llama.cpp"] if gguf.has_llamacpp() else [])]
    assert [one.by for one in written.parity] == runtimes
    assert all(one.passed and one.prompts == 4 for one in written.parity)
    assert 'PARAMETER stop "<|im_end|>"' in (tmp_path / "out/Modelfile").read_text()
    card = (tmp_path / "out/README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "license: apache-2.0" in card
    assert "came out of a GGUF file" in card or resolve(SMOLLM2).source.is_dir()
