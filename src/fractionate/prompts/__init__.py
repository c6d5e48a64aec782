"""Instructions as text files, one a role and answer form. `$limit` and `$form` are filled in when they are read."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from string import Template


@cache
def instruction(name: str) -> str:
    """Return the text of one instruction file, without its last newline."""
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


def fill(name: str, **values: str) -> str:
    """Return an instruction with its `$names` filled in. Raises KeyError for a name without a value."""
    return Template(instruction(name)).substitute(values)
