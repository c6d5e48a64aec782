"""docs/guide/python.md matches the code: its blocks run in order, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fractionate

GUIDE = Path(__file__).parents[1] / "docs/guide/python.md"


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    (tmp_path / "guide.py").write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "guide.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Undecided"), "the verdict is printed first"
    assert "exact McNemar" in done.stdout
    assert done.stderr == "", "nothing is printed unasked"
    assert (tmp_path / "calls.sqlite").is_file()


def test_every_name_offered_is_there_and_nothing_else_is() -> None:
    for name in dir(fractionate):
        assert getattr(fractionate, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fractionate.nonsense  # type: ignore[attr-defined]


def test_a_report_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    config = fractionate.parse_config(
        {"data": {"test": "atlas#test@0-7"}, "models": {"teacher": "echo:0.5"}, "run": {"variants": []}}
    )
    with fractionate.Run(config, tmp_path / "run", base=tmp_path) as run:
        report = run.run()
        cells = run.cells()
    shown = report._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "Which part should you distill?" in shown
    assert "</iframe><" not in shown
    assert [len(cell.attempts) for cell in cells] == [8, 8, 8]
    assert report.cells == fractionate.read_report(tmp_path / "run").cells
    with pytest.raises(fractionate.UsageError, match="fractionate report first"):
        fractionate.read_report(tmp_path / "nowhere")
