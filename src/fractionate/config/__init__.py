"""`fractionate.toml` → a strict, typed config. An unknown key is an error that names the nearest known one.

`sections.py` and `training.py` hold the tables, `values.py` what their values may be; here a file is read into them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fractionate.config.prompts import PromptExample, PromptsConfig, with_files_read
from fractionate.config.scorers import JudgeConfig, ScorerConfig
from fractionate.config.sections import (
    BudgetConfig,
    ClusterConfig,
    Config,
    CurveConfig,
    DataConfig,
    DecomposerConfig,
    DistilledConfig,
    LimitsConfig,
    ModelOptions,
    ModelsConfig,
    PriceConfig,
    PublishedFigure,
    RunConfig,
    StudentConfig,
    VerdictConfig,
)
from fractionate.config.tools import ToolConfig
from fractionate.config.training import SearchConfig, TrainConfig
from fractionate.config.values import (
    DECOMPOSER_VARIANTS,
    DEFAULT_STUDENT,
    MOST_SEED,
    SOLVER_VARIANTS,
    STUDENTS,
    Variant,
)
from fractionate.errors import UsageError, shortened, without_secrets

__all__ = [
    "DECOMPOSER_VARIANTS",
    "DEFAULT_STUDENT",
    "MOST_SEED",
    "SOLVER_VARIANTS",
    "STUDENTS",
    "BudgetConfig",
    "ClusterConfig",
    "Config",
    "CurveConfig",
    "DataConfig",
    "DecomposerConfig",
    "DistilledConfig",
    "JudgeConfig",
    "LimitsConfig",
    "ModelOptions",
    "ModelsConfig",
    "PriceConfig",
    "PromptExample",
    "PromptsConfig",
    "PublishedFigure",
    "RunConfig",
    "ScorerConfig",
    "SearchConfig",
    "StudentConfig",
    "ToolConfig",
    "TrainConfig",
    "Variant",
    "VerdictConfig",
    "load_config",
    "override",
    "parse_config",
    "read_table",
]


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML config and apply `a.b=c` overrides. Raises UsageError with one line that names file and key."""
    return parse_config(override(read_table(path), overrides), str(path), path.parent)


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML config as it stands. Raises UsageError for a file that is none."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}: give a config file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no config at {path}: 'fractionate init' writes one to start from") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def override(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a config table with `a.b=c` overrides applied. Raises UsageError for one that is not KEY=VALUE."""
    for one in overrides:
        _apply_override(table, one)
    return table


def parse_config(table: dict[str, Any], where: str = "config", base: Path = Path()) -> Config:
    """Validate a config table. Raises UsageError for the first thing that is wrong.

    Texts of `[prompts]` and a rubric that a file holds ("file:PATH", relative to `base`) become part of the config.
    """
    if "prompts" in table:
        table = {**table, "prompts": with_files_read(table["prompts"], base)}
    if isinstance(judge := table.get("judge"), dict) and "rubric" in judge:
        table = {**table, "judge": {**judge, **with_files_read({"rubric": judge["rubric"]}, base, "judge")}}
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{where}: {without_secrets(_first_problem(error))}") from None


def _apply_override(table: dict[str, Any], text: str) -> None:
    key, equals, value = _key_and_value(text)
    if not equals or not key.strip():
        raise UsageError(f"--set takes KEY=VALUE (such as run.seed=1), not {text!r}")
    try:
        update = tomllib.loads(f"{key} = {value}")
    except (ValueError, RecursionError):
        try:
            update = tomllib.loads(f"{key} = {_toml_string(value)}")
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--set {text!r} cannot be read: {error}") from None
    _merge(table, update)


def _key_and_value(text: str) -> tuple[str, str, str]:
    """Cut at the first = outside quotes: a quoted model name in a key may hold one."""
    quoted = False
    for position, letter in enumerate(text):
        quoted ^= letter == '"'
        if letter == "=" and not quoted:
            return text[:position], "=", text[position + 1 :]
    return text, "", ""


def _toml_string(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _merge(table: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = value


def _first_problem(error: ValidationError) -> str:
    # A misspelt key also leaves the right one missing: the spelling is what to fix.
    problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    path = [str(part) for part in problem["loc"] if part != "[key]"]  # pydantic's mark of a key that is itself wrong
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        nearest = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.0)
        return f"unknown key {name!r}" + (f": did you mean {'.'.join([*path[:-1], nearest[0]])!r}?" if nearest else "")
    if problem["type"] == "missing":
        return f"{name!r} is missing"
    said = problem["msg"].removeprefix("Value error, ")
    told = f"{name!r}: {said[0].lower()}{said[1:]}"
    if path[-1] == "api_key_env":  # what stands there may be the key itself
        return told
    return f"{told} (it is {shortened(repr(problem['input']))})"


def _known_keys(path: list[str]) -> list[str]:
    """Return the keys a section knows. Tables keyed by model name (options, prices) step over the name."""
    tables: dict[tuple[str, ...], type[BaseModel]] = {
        ("models", "options"): ModelOptions,
        ("prices",): PriceConfig,
        ("students",): StudentConfig,
        ("decomposers",): DecomposerConfig,
        ("tools",): ToolConfig,
        ("data", "scorers"): ScorerConfig,
        ("published",): PublishedFigure,
    }
    if path[:2] == ["prompts", "examples"] and len(path) == 4:
        return list(PromptExample.model_fields)
    if path[:2] == ["models", "distilled"] and len(path) == 3:
        return list(DistilledConfig.model_fields)
    for prefix, section in tables.items():
        if tuple(path[: len(prefix)]) == prefix and len(path) == len(prefix) + 1:
            return list(section.model_fields)
    section = Config
    for part in path:
        annotation = section.model_fields[part].annotation
        annotation = CurveConfig if part == "curve" else annotation  # an optional table
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)
