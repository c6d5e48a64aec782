"""docs/guide/tools.md matches the code: its files and commands lead from an empty folder to the verdict it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers.threaded import in_thread
from servers.tool_calling_server import ToolCallingServer

pytest.importorskip("mcp", reason="the 'mcp' extra is not installed")
GUIDE = (Path(__file__).parents[2] / "docs/guide/tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python|toml|text)\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path) -> None:
    shown = ""
    with in_thread(ToolCallingServer()) as server:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "a key for nothing",
        }
        for kind, text in BLOCKS:
            if kind in ("python", "toml"):
                (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
            for command in text.splitlines() if kind == "sh" else ():
                if command.startswith("pip "):
                    continue
                command = re.sub(r"^fractionate", f"{sys.executable} -m fractionate", command)
                done = subprocess.run(
                    command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                shown = done.stdout if " --out run" in command else shown
    (said,) = [text for kind, text in BLOCKS if kind == "text"]
    assert said.strip() == shown[shown.index("Which part should you distill?") :].partition("\nNext:")[0].strip()
    results = json.loads((tmp_path / "run/results.json").read_text())
    values = {(cell["strategy"], cell["decomposer"]): cell["value"] for cell in results["cells"]}
    assert values["single", "none"] == 0.0
    assert values["stepwise", "recorded:student.jsonl"] > values["stepwise", "teacher"] > 0.5
    both = json.loads((tmp_path / "both/results.json").read_text())
    assert all([used["tool"] for used in cell["tools"]] == ["docs", "facts"] for cell in both["cells"])
