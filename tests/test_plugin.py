"""The plug-in of examples/plugin, installed and used: one part of each kind, named in a config."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fractionate import plugin, strategies
from fractionate.errors import UsageError
from fractionate.plugin import GROUPS, all_plugins, find_plugin

PLUGIN = Path(__file__).parents[1] / "examples/plugin"
CONFIG = """
[data]
test = ["sums#12", "jsonl:mine.jsonl"]
scorer = "rounded"
[models]
teacher = "abacus:1"
solvers = ["abacus:1"]
decomposers = ["none"]
[run]
variants = []
strategies = ["verified", "single"]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the plug-in into a folder of its own, as pip does for a user: fractionate itself is here already."""
    copy = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, copy)
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def fractionate(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "fractionate", *arguments],
        capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": path}, timeout=120, check=False,
    )  # fmt: skip


def test_parts_of_another_package_are_used_by_name(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    (tmp_path / "mine.jsonl").write_text('{"question": "What is 1 + 2?", "answer": "3.2"}\n')
    done = fractionate(installed, tmp_path, "run", "run.toml", "--out", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    value = {(cell["dataset"], cell["strategy"]): (cell["value"], cell["n"]) for cell in results["cells"]}
    assert value["sums", "verified"] == (1.0, 12), "the data set, the strategy and the model are the plug-in's"
    assert value["jsonl", "single"] == (1.0, 1), "3 is right for 3.2 by the plug-in's scorer"
    calls = {cell["strategy"]: cell["usage"]["solver"]["calls"] for cell in results["cells"] if cell["n"] == 12}
    assert calls == {"verified": 24, "single": 12}
    assert "single stage, verified" in (tmp_path / "out/report.html").read_text()
    for page in ("out/report.md", "out/report.html"):
        assert "Most tokens" in (tmp_path / page).read_text(), "the section is the plug-in's"


def test_a_plug_in_needs_no_other_module() -> None:
    """The example imports `fractionate.plugin` and nothing else of fractionate, and every name in there is there."""
    source = (PLUGIN / "fractionate_abacus.py").read_text()
    assert re.findall(r"^(?:from|import) (fractionate\S*.*)", source, re.MULTILINE) == [
        "fractionate import plugin as fr"
    ]
    for name in dir(plugin):
        assert getattr(plugin, name) is not None
    with pytest.raises(AttributeError):
        getattr(plugin, "Engine")  # noqa: B009 - mypy knows that it is not there


def test_without_it_the_names_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    done = fractionate(tmp_path, tmp_path, "run", "run.toml")
    assert done.returncode == 2
    assert "unknown strategy 'verified'" in done.stderr


def test_a_broken_plug_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fractionate.strategies]\nbad = no_such_module:X\nodd = json:dumps\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"the plug-in no_such_module:X .* cannot be loaded: ModuleNotFoundError"):
        find_plugin("strategies", "bad")
    with pytest.raises(UsageError, match=r"'odd' of fractionate\.strategies is no Strategy"):
        strategies.get("odd")
    assert all_plugins("models") == {}
    assert len(GROUPS) == 6
