"""action.yml: its steps are run as a runner runs them, in bash, with their inputs as variables and a recorded `gh`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
INPUT = re.compile(r"\$\{\{ inputs\.(\w+) \}\}")
OUTPUT = re.compile(r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}")


def run_action(folder: Path, **inputs: str) -> tuple[int, dict[str, str], list[str]]:
    """Run the steps but for the installation. Returns the exit code, the outputs, and what `gh` was told."""
    tools, said = folder / "tools", folder / "gh.log"
    tools.mkdir(exist_ok=True)
    gh = tools / "gh"
    gh.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> {said}\ncat "${{@: -3:1}}" >> {said}\n')
    gh.chmod(0o755)
    # A script, not a link: a link would not find the packages of the environment.
    (tools / "python").write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    (tools / "python").chmod(0o755)
    outputs: dict[str, str] = {}
    given = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()} | inputs
    code = 0
    for step in ACTION["runs"]["steps"]:
        if step["name"] == "Install":
            continue
        env = {name: INPUT.sub(lambda match: given[match[1]], text) for name, text in step.get("env", {}).items()}
        env = {name: _with_outputs(text, outputs) for name, text in env.items()}
        env = {name: "7" if "pull_request.number" in text else text for name, text in env.items()}
        runner = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUNNER_TEMP": str(folder),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_REPOSITORY": "owner/name",
        }
        # As GitHub runs `shell: bash`.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=folder, env={**runner, **env}, check=False, timeout=300)
        if (folder / "output").exists():
            lines = (folder / "output").read_text().splitlines()
            outputs |= dict(line.split("=", 1) for line in lines)
        code = code or done.returncode
    return code, outputs, said.read_text().splitlines() if said.exists() else []


def _with_outputs(text: str, outputs: dict[str, str]) -> str:
    return OUTPUT.sub(lambda match: outputs.get(match[2], ""), text)


def write_logs(folder: Path, lost: int) -> None:
    for name, wrong in (("new", lost), ("old", 0)):
        rows = [{"id": n, "correct": n >= wrong} for n in range(200)]
        (folder / f"{name} log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_action_passes_and_comments_where_the_claim_is_shown(tmp_path: Path) -> None:
    write_logs(tmp_path, 1)
    logs = {"new": "new log.jsonl", "old": "old log.jsonl"}
    code, outputs, said = run_action(
        tmp_path, **logs, require="not-worse", margin="5", junit="gate.xml", arguments="--confidence 0.9"
    )
    assert (code, outputs["shown"]) == (0, "true")
    assert said[:3] == ["pr", "comment", "7"]
    assert any("not worse by 5 percentage points" in line for line in said), "the table is commented"
    assert "outcome (90 %)" in (tmp_path / "summary").read_text()
    assert 'failures="0"' in (tmp_path / "gate.xml").read_text()


def test_the_action_fails_where_the_claim_is_not_shown_and_comments_all_the_same(tmp_path: Path) -> None:
    write_logs(tmp_path, 60)
    logs = {"new": "new log.jsonl", "old": "old log.jsonl"}
    code, outputs, said = run_action(tmp_path, **logs, require="not-worse", margin="5", looks="3", key="main")
    assert (code, outputs["shown"]) == (3, "false")
    assert any("Not shown" in line for line in said)
    assert (tmp_path / "looks.sqlite").is_file()


def test_inputs_are_no_commands(tmp_path: Path) -> None:
    write_logs(tmp_path, 1)
    code, _, _ = run_action(
        tmp_path,
        new="new log.jsonl",
        old='"; touch harm; "',
        require="$(touch harm)",
        arguments="--metric `touch harm`",
    )
    assert code == 2
    assert not (tmp_path / "harm").exists()
    assert not any("${{" in step["run"] for step in ACTION["runs"]["steps"]), "no input is pasted into a script"
