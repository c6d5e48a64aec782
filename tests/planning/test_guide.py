"""docs/guide/plan.md is true: every block of output is what the command or the code above it prints."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from fractionate.cli import main

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "plan.md"
SHOWN = re.findall(
    r"```(sh|python)\n((?:(?!```).)*)```\n\n```text\n((?:(?!```).)*)```", GUIDE.read_text("utf-8"), re.DOTALL
)


def test_the_guide_shows_what_it_tells():
    assert [kind for kind, _, _ in SHOWN].count("sh") >= 5
    assert [kind for kind, _, _ in SHOWN].count("python") >= 3


@pytest.mark.parametrize(("kind", "asked", "shown"), SHOWN, ids=lambda text: text.strip().splitlines()[0][:60])
def test_the_output_is_what_is_printed(kind, asked, shown):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if kind == "sh":
            assert main(shlex.split(asked)[1:]) == 0
        else:
            exec(compile(asked, str(GUIDE), "exec"), {})
    assert printed.getvalue().rstrip() == shown.rstrip()
