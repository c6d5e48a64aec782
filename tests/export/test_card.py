"""The model card: front matter that the hub's own client parses, and only figures that the run wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from huggingface_hub import ModelCard

from fractionate.export.card import Export, _without_places, card
from fractionate.export.parity import Parity
from fractionate.export.student import open_student


def text_of(run: Path, name: str, **changes: Any) -> str:
    parity = (Parity("model.safetensors", "transformers", "f32", 18, 17, 1, 1e-3, 1.0),)
    fields: dict[str, Any] = {"kind": "safetensors", "files": (), "parity": parity, "prompts": 18, "checked": True}
    return card(Export(open_student(run, name), "a-student", **{**fields, **changes}))


def test_the_hub_s_client_reads_the_measured_cells_back(tiny_run: Path) -> None:
    read = ModelCard(text_of(tiny_run, "D-R", license="mit")).data
    results = json.loads((tiny_run / "results.json").read_text())
    own = [cell for cell in results["cells"] if cell["decomposer"] == "D-R"]
    assert len(own) == 2
    assert [round(100 * cell["value"], 1) for cell in own] == [one.metric_value for one in read.eval_results]
    assert all(f"n = {cell['n']}" in one.metric_name for cell, one in zip(own, read.eval_results, strict=True))
    assert (read.license, read.library_name, read.model_name) == ("mit", "transformers", "a-student")
    assert {"fractionate", "decomposer", "D-R"} <= set(read.tags)
    assert read.base_model is None  # it is a folder of this machine, which the hub does not know


def test_every_figure_of_the_outcome_stands_in_the_results(tiny_run: Path) -> None:
    results = json.loads((tiny_run / "results.json").read_text())
    told = text_of(tiny_run, "E-A").partition("## Outcome")[2].partition("## What it cannot do")[0]
    rows = re.findall(
        r"^\| (this student|untrained|baseline) \| (\S+) \| (.+) → (.+) \| (\d+) \| \D* ([\d.]+) %", told, re.M
    )
    assert {row[0] for row in rows} >= {"this student", "baseline"}
    measured = {
        (cell["strategy"], cell["decomposer"], cell["solver"], cell["n"]): round(100 * cell["value"], 1)
        for cell in results["cells"]
    }
    assert rows
    for _, strategy, decomposer, solver, n, value in rows:
        assert measured[strategy, decomposer, solver, int(n)] == float(value)
    for line in ("action", "effect"):
        assert _without_places(results["verdict"][line]) in told


def test_it_says_what_was_learnt_and_how_it_was_checked(tiny_run: Path) -> None:
    told = text_of(tiny_run, "E-A")
    record = json.loads((tiny_run / "students/E-A/training.json").read_text())
    assert f"- examples: {record['examples']} (0 left out as too long)" in told
    assert "- data: `jsonl:train.jsonl`" in told
    assert "17 of 18 greedy replies identical to the student's, 1 more part where two tokens are within 0.001" in told
    assert "the passage if there is one, a blank line, the question, and each subquestion on a numbered line" in told
    assert "THE PASSAGE" in told
    assert "Number 100" not in told  # no question of the user's data


def test_what_was_not_checked_or_measured_is_said(tiny_run: Path, tmp_path: Path) -> None:
    import shutil

    assert "Not checked: it was written with --no-check." in text_of(tiny_run, "D-R", parity=(), checked=False)
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/results.json").unlink()
    told = text_of(tmp_path / "run", "D-R")
    assert "It was not measured in this run." in told
    assert "model-index" not in told


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("jsonl:/home/me/data/train.jsonl#x", "jsonl:train.jsonl#x"),
        ("local:~/models/x@/a/b", "local:x@b"),
        ("jsonl:../data/a.jsonl, gsm8k#test@0-9/3", "jsonl:a.jsonl, gsm8k#test@0-9/3"),
        ("HuggingFaceTB/SmolLM2 and/or http://localhost:8000/v1/chat", "HuggingFaceTB/SmolLM2 and/or http://localhost:8000/v1/chat"),
    ],
)  # fmt: skip
def test_places_of_this_machine_are_left_out(text: str, kept: str) -> None:
    assert _without_places(text) == kept
