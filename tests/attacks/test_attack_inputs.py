"""No command writes over its own input, under any path that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fractionate.cli import main

ROWS = "".join(json.dumps({"question": f"Number {n}?", "answer": f"it {n}", "index": n}) + "\n" for n in range(3))
CONFIG = """
[data]
test = "jsonl:{data}"
[models]
teacher = "{teacher}"
solvers = ["echo:"]
decomposers = ["none", "teacher"]
[run]
variants = []
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must refuse, and change no file; return its line."""
    before = contents()
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "would be overwritten" in said
    assert contents() == before
    return said


@pytest.mark.parametrize("name", ["attempts.jsonl", "demonstrations.jsonl", "results.json"])
@pytest.mark.parametrize("role", ["data", "recording", "folder of recordings"])
def test_a_run_does_not_write_over_its_data(capsys: pytest.CaptureFixture[str], name: str, role: str) -> None:
    Path("logs").mkdir()
    Path("logs", name).write_text(ROWS)
    Path("test.jsonl").write_text(ROWS)
    data = f"logs/{name}" if role == "data" else "test.jsonl"
    teacher = {"recording": f"recorded:logs/{name}", "folder of recordings": "recorded:logs"}.get(role, "echo:")
    Path("run.toml").write_text(CONFIG.format(data=data, teacher=teacher))
    Path("link").symlink_to("logs")
    assert name in refused(capsys, "run", "run.toml", "--out", "logs")
    refused(capsys, "evaluate", "run.toml", "--out", "link")


def test_what_another_run_left_may_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("test.jsonl").write_text(ROWS)
    Path("run.toml").write_text(CONFIG.format(data="test.jsonl", teacher="echo:"))
    for _ in range(2):
        assert main(["evaluate", "run.toml", "--out", "first", "--quiet", "--set", "models.decomposers=none"]) == 0
    capsys.readouterr()
    recorded = ["--set", "models.solvers=recorded:first/attempts.jsonl", "--set", "models.decomposers=none"]
    assert main(["evaluate", "run.toml", "--out", "second", "--quiet", *recorded]) == 0
    before = Path("second/attempts.jsonl").read_bytes()
    refused(capsys, "evaluate", "run.toml", "--out", "first", "--quiet", *recorded)
    assert Path("second/attempts.jsonl").read_bytes() == before


def test_pooled_reports_do_not_take_the_place_of_one_run_s(capsys: pytest.CaptureFixture[str]) -> None:
    Path("test.jsonl").write_text(ROWS)
    Path("run.toml").write_text(CONFIG.format(data="test.jsonl", teacher="echo:"))
    for name in ("a", "b"):
        assert main(["run", "run.toml", "--out", name, "--quiet"]) == 0
    capsys.readouterr()
    Path("link").symlink_to("b")
    for out in ("a", "./b", "link"):
        refused(capsys, "report", "a", "b", "--out", out)
    assert main(["report", "a", "b", "--out", "both"]) == 0


def test_a_fitted_law_does_not_take_the_place_of_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs.json").write_text("[]")
    Path("law.json").write_text("{}")
    for out in ("runs.json", "./runs.json", "law.json"):
        refused(capsys, "plan", "fit", "runs.json", "--coefficients", "law.json", "--out", out)


def test_scores_do_not_take_the_place_of_the_data_set(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where --gold names the folder, or nothing at all since FRACTIONATE_DATA does."""
    Path("gsm8k").mkdir()
    Path("gsm8k/test.jsonl").write_text(json.dumps({"question": "q", "answer": "It is.\n#### 4"}) + "\n")
    Path("out.jsonl").write_text(json.dumps({"index": 0, "output": "The answer is: 4"}) + "\n")
    score = ["score", "out.jsonl", "--dataset", "gsm8k", "--rows", "gsm8k/test.jsonl", "--gold"]
    refused(capsys, *score, "gsm8k:gsm8k#test")
    monkeypatch.setenv("FRACTIONATE_DATA", str(tmp_path))
    refused(capsys, *score, "gsm8k#test")
