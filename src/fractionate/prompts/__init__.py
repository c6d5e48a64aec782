"""Instructions as text files, one a role and answer form; a config's own texts take their place.

`$limit`, `$form` and `$tools` are filled in when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from string import Template

from fractionate.config import PromptExample, PromptsConfig


@cache
def instruction(name: str) -> str:
    """Return the text of one instruction file, without its last newline."""
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


@dataclass(frozen=True)
class Instructions:
    """The instructions of a run: the user's own by name, the shipped ones for the rest, and worked examples."""

    own: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[PromptExample] = ()

    @classmethod
    def of(cls, prompts: PromptsConfig) -> Instructions:
        """Return the instructions that a config asks for."""
        return cls(dict(prompts.own()), tuple(prompts.examples))

    def text(self, name: str) -> str:
        """Return an instruction as it is written."""
        return self.own.get(name) or instruction(name)

    def fill(self, name: str, **values: str) -> str:
        """Return an instruction with its `$names` filled in. Raises KeyError for a name without a value."""
        return _filled(self.text(name), tuple(values.items()))


SHIPPED = Instructions()
"""The instructions of a run that brings none."""


@lru_cache(maxsize=1024)
def _filled(text: str, values: tuple[tuple[str, str], ...]) -> str:
    # Every call of a run fills in the same few values, and a template is read by a regular expression each time.
    return Template(text).substitute(dict(values))
