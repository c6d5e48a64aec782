"""Configs of the GPU drivers parse, their questions exist, and each driver explains itself."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pieces import ROOT, Piece

from fractionate.config import load_config

DRIVERS = [*sorted((ROOT / "docs/experiments/gpu").glob("*.py")), ROOT / "docs/experiments/scaling_law.py"]
DRIVERS += [ROOT / "benchmarks/gpu.py"]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The GSM8K experiment of one seed, over data of three rows."""
    import gsm8k_live

    data = tmp_path / "data"
    rows = [
        {"question": f"How much is {at} + 1?", "answer": f"{at}+1=<<{at}+1={at + 1}>>{at + 1}\n#### {at + 1}"}
        for at in range(3)
    ]
    for name in ("gsm8k/train", "gsm8k/test", "gsm8k/test_socratic", "gsm8k_ai_subq/chatgpt/chatgpt"):
        path = data / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("FRACTIONATE_DATA", str(data))
    options = argparse.Namespace(small=False, model=gsm8k_live.MODEL, rows=256, epochs=3.0)
    return gsm8k_live.Experiment(Piece(tmp_path / "out", 1), options, "full", 2)


def test_the_configs_of_gsm8k_are_configs(experiment) -> None:  # type: ignore[no-untyped-def]
    live = load_config(experiment.config("live", '"none", "gold", "student", "D-T", "D-R"', "gsm8k#test@500-1318"))
    assert (live.run.seed, live.train.method, set(live.students)) == (2, "full", {"E-solutions", "S-solutions"})
    assert live.curve is not None
    assert live.curve.shares == ["1/16", "1/8", "1/4", "1/2"]
    assert live.students["E-solutions"].train == [f"gsm8k:{experiment.train}#train@0-7472"]
    first = load_config(experiment.config("first", '"none"', "gsm8k#test@500-1318", alone=True))
    assert (first.run.variants, first.students, first.models.solvers) == (["D-T"], {}, ["student"])
    # Students are kept from one run to the next where what decides them is equal.
    assert first.train == live.train
    assert first.data.train == live.data.train


def test_training_questions_are_recorded_with_their_solutions(experiment, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(Piece, "command", lambda *_: None)
    out = experiment.folder / "subquestions"
    out.mkdir()
    told = {"id": "gsm8k/train/1", "subquestions": ["What is 1 + 1?"], "decomposition": "1. What is 1 + 1?"}
    (out / "demonstrations.jsonl").write_text(json.dumps(told) + "\n")
    experiment.write_subquestions(experiment.folder / "first/students/D-T")
    rows = [json.loads(line) for line in (experiment.recordings / "solutions.jsonl").read_text().splitlines()]
    assert [row["decomposition"] for row in rows] == [
        "1. How much is 0 + 1?",
        "1. What is 1 + 1?",
        "1. How much is 2 + 1?",
    ]
    assert rows[1]["output"] == "1+1=2\nThe answer is: 2"


def test_atlas_has_four_thousand_test_questions(tmp_path: Path) -> None:
    from atlas_at_size import KINDS, write_questions

    write_questions(tmp_path / "questions.jsonl", 4000)
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 4000
    kinds = Counter(row["kind"] for row in rows)
    for half in KINDS:
        assert sum(kinds[kind] for kind in half.split(",")) == pytest.approx(2000, abs=60)
    assert len({row["context"] for row in rows}) >= 500


@pytest.mark.parametrize("driver", [path for path in DRIVERS if path.stem != "pieces"], ids=lambda path: path.stem)
def test_every_driver_says_what_it_does(driver: Path) -> None:
    told = subprocess.run([sys.executable, str(driver), "--help"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert driver.name in told.stdout
