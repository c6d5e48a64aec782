"""Instructions as text files, one a role and answer form. `$limit` and `$form` are filled in when they are read."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from string import Template


@cache
def instruction(name: str) -> str:
    """Return the text of one instruction file, without its last newline."""
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


def fill(name: str, **values: str) -> str:
    """Return an instruction with its `$names` filled in. Raises KeyError for a name without a value."""
    return _filled(name, tuple(values.items()))


@lru_cache(maxsize=1024)
def _filled(name: str, values: tuple[tuple[str, str], ...]) -> str:
    # Every call of a run fills in the same few values, and a template is read by a regular expression each time.
    return Template(instruction(name)).substitute(dict(values))
