"""How outputs are scored: a scorer by name with its options (`data.scorer`), and the table `[judge]`."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fractionate.config.values import Names, Section
from fractionate.errors import UsageError
from fractionate.types import AnswerForm

OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(get_args(AnswerForm), ()),
    "contains": ("ignore_case", "whole_words"),
    "regex": ("pattern", "ignore_case", "compare"),
    "json": ("schema_file", "fields"),
    "math": (),
    "sql": ("database", "ordered", "timeout_s"),
    "judge": (),
}
"""The scorers that are built in, with the options that each takes. Data sets and plug-ins bring more, without any."""
_NEEDED = {"sql": "database"}
_KEYS = frozenset(key for keys in OPTIONS.values() for key in keys)
FUNCTION = ".py:"
"""Part of the name of a scorer that is a function of the user's: FILE.py:FUNCTION."""


def _as_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"this is no regular expression ({error})") from None
    return text


class ScorerConfig(Section):
    """A scorer: its name alone, or a table of its name and options.

    A name is a form of answer (number, choice, yes-no, span, text, date, …), "contains", "regex", "json", "math",
    "sql", "judge" (see [judge]), FILE.py:FUNCTION, a data set, or a plug-in's scorer.
    """

    name: str = Field(default="", description="the scorer")
    ignore_case: bool = Field(default=True, description='of "contains" and "regex": whether case does not matter')
    whole_words: bool = Field(default=True, description='of "contains": whether 4 is not found in 14')
    pattern: Annotated[str, AfterValidator(_as_pattern)] = Field(
        default="",
        description='of "regex": the answer is its last match in the output (its first group, if it has one); without '
        "it, each known answer is a pattern that the output must match",
    )
    compare: AnswerForm = Field(
        default="text", description='of "regex" with a pattern: the form in which the match and the answer are compared'
    )
    schema_file: str = Field(default="", description='of "json": a JSON Schema file that the output must satisfy')
    fields: Names = Field(
        default=[], description='of "json": the fields to compare, a.b inside another; those of the answer if []'
    )
    database: str = Field(default="", description='of "sql": an SQLite or DuckDB file; it is only read')
    ordered: bool | None = Field(
        default=None,
        description='of "sql": whether the order of rows matters; if absent, where the known query says ORDER BY',
    )
    timeout_s: float = Field(default=30.0, gt=0, le=86_400, description='of "sql": the most seconds per query')

    @model_validator(mode="before")
    @classmethod
    def _of_name(cls, entry: Any) -> Any:
        return {"name": entry} if isinstance(entry, str) else entry

    @model_validator(mode="after")
    def _of_its_name(self) -> ScorerConfig:
        own = OPTIONS.get(self.name, ())
        for key in sorted(_KEYS):
            if getattr(self, key) != type(self).model_fields[key].default and key not in own:
                said = ", ".join(own) or "it has none"
                raise ValueError(f'{key} is no option of the scorer "{self.name}" ({said})')
        needed = _NEEDED.get(self.name)
        if needed and not getattr(self, needed):
            raise ValueError(f'the scorer "{self.name}" needs {needed}')
        return self

    @model_serializer(mode="wrap")
    def _plain(self, fields: SerializerFunctionWrapHandler) -> Any:
        kept = {key: value for key, value in fields(self).items() if value != type(self).model_fields[key].default}
        return self.name if set(kept) <= {"name"} else kept

    def __bool__(self) -> bool:
        return bool(self.name)

    @property
    def is_function(self) -> bool:
        """Whether it is a function of the user's."""
        return FUNCTION in self.name

    @property
    def text(self) -> str:
        """The scorer as `parse` reads it: its name, or an inline table."""
        plain = self.model_dump(mode="json")
        if isinstance(plain, str):
            return plain
        return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in plain.items()) + "}"

    @classmethod
    def parse(cls, text: str) -> ScorerConfig:
        """Read a name or an inline table: `regex`, `{name = "regex", pattern = "…"}`. Raises UsageError."""
        from pydantic import ValidationError

        try:
            return cls.model_validate(scorer_table(text))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            said = problem["msg"].removeprefix("Value error, ")
            raise UsageError(f"the scorer {text!r}: {where}{': ' * bool(where)}{said}") from None


def scorer_table(text: str) -> dict[str, Any]:
    """Return the table of a scorer that a text names, its options unchecked. Raises UsageError where it is no TOML."""
    if not text.lstrip().startswith("{"):
        return {"name": text}
    try:
        table: dict[str, Any] = tomllib.loads(f"scorer = {text}")["scorer"]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the scorer {text!r} is no inline table of TOML: {error}") from None
    return table


class JudgeConfig(Section):
    """A model that scores outputs, where `data.scorer = "judge"`.

    Its calls go through the store, the budget and the forecast as all others do. It is measured by `labels`: answers of
    people to the same question.
    """

    model: str = Field(default="", description='the judge: "teacher", or a model name, with tools if need be')
    scale: Literal["yes-no", "1-5", "preference"] = Field(
        default="yes-no",
        description='what it answers: "yes-no", a grade "1-5" (1 counts 0, 5 counts 1), or "preference": which of two '
        "outputs is better, in both orders (`compare` of two logs only)",
    )
    rubric: str = Field(
        default="", description='what makes an output right, or "file:PATH"; agreement with a known answer if empty'
    )
    version: str = Field(
        default="", description="a word to change when the judge behind the name does: it is part of its identity"
    )
    max_tokens: int = Field(
        default=512, ge=1, le=10**6, description="output tokens per judgement at most, its reasons included"
    )
    reasons: bool = Field(default=True, description="whether it writes its reasons before its verdict")
    labels: str = Field(
        default="",
        description="file of labels by people, as `fractionate label` writes it: outcomes are corrected by them",
    )

    @model_validator(mode="after")
    def _checked(self) -> JudgeConfig:
        if self.labels and self.scale == "preference":
            raise ValueError('labels are of single outputs: leave them out with scale = "preference"')
        return self
