"""The table `[prompts]` of a config: a user's own instructions and worked examples in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from fractionate.config.values import Section, as_list
from fractionate.errors import UsageError
from fractionate.types import AnswerForm

FILE = "file:"
"""What a text begins with that names a file to read the text from."""
_VALUES = {"decompose": "limit", "solve_step": ""}
"""The `$name` that an instruction may hold, where it is not `$form`, the form of an answer."""


class PromptExample(Section):
    """A question worked through, to show in instructions."""

    question: str = Field(min_length=1, description="the question")
    context: str = Field(default="", description="its passage")
    subquestions: list[str] = Field(default=[], description="its subquestions: shown to decomposers and static solvers")
    solution: str = Field(default="", description="a reply that reasons and ends with the answer: shown to solvers")
    answer: str = Field(default="", description="the answer alone: shown to solvers that answer directly")


class PromptsConfig(Section):
    """Your own instructions, each a text or "file:PATH" beside the config; an empty one is the shipped instruction.

    docs/reference/prompts.md has the shipped ones. `$limit` and `$form` are filled in; write `$$` for a dollar sign.
    Students are asked without instructions.
    """

    decompose: str = Field(default="", description="to the decomposer; `$limit` becomes the cap, if there is one")
    solve_single: str = Field(default="", description="to the solver in one stage, direct answers; `$form`")
    solve_single_cot: str = Field(default="", description="to the solver in one stage, chain of thought; `$form`")
    solve_static: str = Field(default="", description="to the solver of all subquestions in one call; `$form`")
    solve_step: str = Field(default="", description="to the solver of one subquestion")
    solve_final: str = Field(default="", description="to the solver of the question after its subquestions; `$form`")
    ask_next: str = Field(default="", description="to the model that asks follow-ups; `$form`")
    forms: dict[AnswerForm, str] = Field(default={}, description="what `$form` becomes, by answer form")
    examples: Annotated[list[PromptExample], BeforeValidator(as_list)] = Field(
        default=[],
        description="worked examples to show, tables or \"file:PATH\" of JSON lines with 'question', 'subquestions', "
        "'solution', 'answer'; run.shots shows the shipped one",
    )

    @field_validator("*")
    @classmethod
    def _placeholders(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str) and value and info.field_name != "forms":
            allowed = _VALUES.get(info.field_name, "form")
            template = Template(value)
            if not template.is_valid():
                raise ValueError("a lone $ in it means nothing: write $$ for a dollar sign")
            unknown = [name for name in template.get_identifiers() if name != allowed]
            if unknown:
                known = f"only ${allowed} is filled in" if allowed else "nothing is filled in"
                raise ValueError(f"${unknown[0]} in it means nothing here ({known}): write $$ for a dollar sign")
        return value

    def own(self) -> Iterator[tuple[str, str]]:
        """Yield the user's texts by the name of the shipped instruction ("solve-single", "form-number")."""
        for key in type(self).model_fields:
            if key not in ("forms", "examples") and getattr(self, key):
                yield key.replace("_", "-"), getattr(self, key)
        for form, text in self.forms.items():
            yield f"form-{form}", text


def with_files_read(prompts: Any, base: Path, table: str = "prompts") -> Any:
    """Return a table such as `[prompts]` with the texts of the files that it names, relative to `base`.

    Raises UsageError for a file that cannot be read. What is no table or text is left to be refused with the rest.
    """
    if not isinstance(prompts, Mapping):
        return prompts
    return {key: _read(f"{table}.{key}", value, base) for key, value in prompts.items()}


def _read(key: str, value: Any, base: Path) -> Any:
    if isinstance(value, Mapping):
        return {name: _read(f"{key}.{name}", one, base) for name, one in value.items()}
    if not isinstance(value, str) or not value.startswith(FILE):
        return value
    path = base / value.removeprefix(FILE)
    try:
        if key == "prompts.examples":
            from fractionate.rows import read_rows

            return [dict(row.values) for row in read_rows(path)]
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{key}: {path} cannot be read: {error}") from None
