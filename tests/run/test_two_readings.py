"""The strict and the lenient reading, from recorded outputs to the report; older runs with one reading still report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fractionate.cli import main
from fractionate.datasets import get, names
from fractionate.report.render import markdown
from fractionate.run.attempt_rows import read_jsonl
from fractionate.scoring.lenient import lenient_reader

OUTPUTS = ["The answer is: 4", "2 and 2, that makes 4", "2 and 2, that makes 5", "I do not know."]
"""Right, right but not stated, wrong and not stated, nothing at all: by the question's number modulo 4."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    questions = [{"id": f"q{n}", "question": f"What is {n} and so on?", "answer": "4"} for n in range(40)]
    recorded = [{"id": f"q{n}", "output": OUTPUTS[n % 4], "output_tokens": 9, "input_tokens": 9} for n in range(40)]
    for name, rows in (("test", questions), ("model", recorded)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.toml").write_text(
        '[data]\ntest = "jsonl:test.jsonl"\nscorer = "gsm8k"\n'
        '[models]\nteacher = "recorded:model.jsonl"\ndecomposers = ["none"]\n'
        '[run]\nvariants = []\nstrategies = ["single"]\nout = "out"\n'
    )
    return tmp_path


def measured(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    assert main([*arguments, "--quiet"]) == 0
    results: dict[str, Any] = json.loads((folder / "out/results.json").read_text())
    return results


def test_a_run_shows_both_readings_and_opens_with_what_was_not_read(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = measured(run, monkeypatch, "run", "run.toml")
    (cell,) = results["cells"]
    assert (cell["value"], cell["lenient_value"]) == (0.25, 0.5)
    assert cell["lenient_ci_low"] < 0.5 < cell["lenient_ci_high"]
    assert (cell["unextracted"], cell["unextracted_share"], cell["cut_off_share"]) == (30, 0.75, 0)
    rows = [json.loads(line) for line in (run / "out/attempts.jsonl").read_text().splitlines()]
    assert [row["lenient"]["exact_match"] for row in rows[:4]] == [1, 1, 0, 0]
    report = (run / "out/report.md").read_text()
    assert report.index("## Unparsed or cut off") < report.index("## Cells")
    assert "75.0 % unparsed, 0.0 % cut off" in report
    assert "recorded as it is" in report
    assert "50.0 % (35.2 to 64.8)" in report
    said = capsys.readouterr().out
    assert said.startswith("Unparsed or cut off")
    assert "30 (75.0 %)" in said


def test_a_run_of_an_earlier_version_is_reported_with_blanks_that_are_said(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(run, monkeypatch, "run", "run.toml")
    attempts = run / "out/attempts.jsonl"
    rows = [json.loads(line) for line in attempts.read_text().splitlines()]
    for n, row in enumerate(rows):
        del row["lenient"], row["cut_off"]
        row["failures"] = ["length"] if n % 4 == 3 else []
    attempts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "out/attempts.sqlite").unlink()  # earlier versions left the lines alone
    results = measured(run, monkeypatch, "report", "out")
    (cell,) = results["cells"]
    assert (cell["value"], cell["lenient_value"], cell["lenient_ci_low"]) == (0.25, None, None)
    assert cell["cut_off_share"] == 0.25
    assert any(note.startswith("1 of 1 cells have no lenient value") for note in results["notes"])
    assert read_jsonl(attempts)[0].attempts[3].cut_off == ("solver",)


def test_results_of_an_earlier_version_are_shown_without_what_they_lack(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = measured(run, monkeypatch, "run", "run.toml")
    new = (
        "lenient_value",
        "lenient_ci_low",
        "lenient_ci_high",
        "unextracted_share",
        "cut_off_share",
        "repeats",
        "outputs",
    )
    results["cells"] = [{key: value for key, value in cell.items() if key not in new} for cell in results["cells"]]
    del results["unread"]
    assert "**25.0 %**" in markdown(results)


def test_every_data_set_of_this_package_has_a_lenient_reading_and_one_with_a_reader_of_its_own_has_none() -> None:
    for name in names():
        dataset = get(name)
        assert dataset.lenient is not None, name
    gsm8k = get("gsm8k")
    assert gsm8k.lenient is not None
    assert gsm8k.lenient("that makes 5") == lenient_reader("number")("that makes 5") == ("5",)
    own = replace(gsm8k, extract=lambda output: (output,))
    assert own.lenient is None
