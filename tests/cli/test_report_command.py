"""`fractionate report`: the page of several runs, and the browser."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest
from measured import config_of
from test_verdict import GOOD, NEVER, POOR, run

from fractionate.cli import main
from fractionate.report.results import build_results, write_json


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, decomposer in (("good", GOOD), ("poor & <b>", POOR)):
        cells = run(decomposer=decomposer, single=NEVER, cot=NEVER, untrained=NEVER)
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_json(build_results(cells, config_of(), [], {"name": name}), tmp_path / "runs" / name / "results.json")
    return tmp_path / "runs"


def test_a_folder_of_runs_gets_a_page_with_each_answer(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("good: Distill the decomposer: let Tiny-1B")
    assert "66.7 % → 66.7 %, 0.0 pp (−" in said[0]
    assert said[1].startswith("poor & <b>: Distill neither part")
    page = (runs / "index.html").read_text(encoding="utf-8")
    assert "<b>:" not in page
    assert 'href="good/report.html"' in page
    assert main(["report", str(runs), "--json"]) == 0
    assert [one["distill"] for one in json.loads(capsys.readouterr().out)] == ["decomposer", "neither"]


def test_open_shows_the_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert main(["report", str(runs), "--open"]) == 0
    assert opened == [(runs / "index.html").resolve().as_uri()]
