"""The guides plan.md and compare.md match the code: output blocks equal the printed output."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from fractionate.cli import main

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    name: re.findall(
        r"```(sh|python)\n((?:(?!```).)*)```\n\n```text\n((?:(?!```).)*)```",
        (ROOT / "docs" / "guide" / f"{name}.md").read_text("utf-8"),
        re.DOTALL,
    )
    for name in ("plan", "compare")
}
BLOCKS = [block for blocks in SHOWN.values() for block in blocks]


@pytest.mark.parametrize(("name", "commands", "programs"), [("plan", 5, 3), ("compare", 3, 1)])
def test_the_guide_shows_what_it_tells(name, commands, programs):
    kinds = [kind for kind, _, _ in SHOWN[name]]
    assert kinds.count("sh") >= commands
    assert kinds.count("python") >= programs


@pytest.mark.parametrize(("kind", "asked", "shown"), BLOCKS, ids=lambda text: text.strip().splitlines()[0][:60])
def test_the_output_is_what_is_printed(kind, asked, shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if kind == "sh":
            assert main(shlex.split(asked)[1:]) == 0
        else:
            exec(compile(asked, "the guide", "exec"), {})
    assert printed.getvalue().rstrip() == shown.rstrip()
