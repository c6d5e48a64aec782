"""The walks under examples/ match the code: each leads from an empty folder to what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from walks import ROOT, walk

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("page", sorted(EXAMPLES.glob("*.md")), ids=lambda page: page.stem)
def test_the_walk_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    if "ask.py" in page.read_text(encoding="utf-8"):
        pytest.importorskip("openai")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    walk(page, tmp_path)
