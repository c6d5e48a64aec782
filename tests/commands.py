"""Command lines run in the tests' own process: another would take a second to import what is here already."""

from __future__ import annotations

import io
import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from fractionate.cli import main


class Done(NamedTuple):
    """How a command ended, and its words."""

    returncode: int
    stdout: str
    stderr: str


def fractionate(*arguments: str, cwd: Path | None = None, **environment: str) -> Done:
    """Run a command in a folder. Keys of OpenAI that the environment holds are hidden from it."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        chdir(cwd or Path()),
        patch.dict(os.environ, {**keep, **environment}, clear=True),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        try:
            ended = main([*arguments])
        except SystemExit as wrong_arguments:
            ended = int(wrong_arguments.code or 0)
    return Done(ended, stdout.getvalue(), stderr.getvalue())
