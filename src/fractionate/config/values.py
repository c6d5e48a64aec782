"""What all tables of a config have in common, and what their values may be."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A table: unchanging once read. An unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def as_list(value: object) -> object:
    """Return a single text or table as a list of it, anything else as it is."""
    return [value] if isinstance(value, str | dict) else value


Names = Annotated[list[str], BeforeValidator(as_list)]
"""A string or a list of strings."""


def auto_as_none(value: object) -> object:
    """Return None for "auto", anything else as it is."""
    return None if value == "auto" else value


def _as_file_name(name: str) -> str:
    if len(name) > 100 or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise ValueError("a name becomes a folder's: no slash, no dot in front, at most 100 printable characters")
    return name


def _as_own_name(name: str) -> str:
    if len(name) > 100 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ValueError("this is no name: it takes only letters, digits and . _ + -, at most 100")
    return name


def _as_tool_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name):
        raise ValueError("a tool's name takes only letters, digits, _ and -, a letter first, at most 40")
    return name


def as_variable(name: str) -> str:
    """Return the name of an environment variable. Raises ValueError for what looks like a key."""
    if name and not (name.isidentifier() and name.isascii()):
        raise ValueError("give the name of an environment variable, such as OPENAI_API_KEY, not the key")
    return name


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return what can be sent as JSON as it is. Raises ValueError for anything else."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"this cannot be sent as JSON ({type(error).__name__}): take it out") from None
    return value


def _as_share(value: object) -> str:
    text = str(value)
    share = Fraction(text) if re.fullmatch(r"\d{1,6}(/0*[1-9]\d{0,5}|\.\d{1,6})?", text) else Fraction(0)
    if isinstance(value, bool) or not 0 < share < 1:
        raise ValueError('a share of the demonstrations lies between 0 and 1: write "1/4"')
    return f"{share.numerator}/{share.denominator}"


def as_curve(shares: list[str]) -> list[str]:
    """Return the shares of a learning curve in ascending order. Raises ValueError for none and for one named twice."""
    if not shares:
        raise ValueError("a curve of one point says nothing about more: name at least one share, better three")
    if len(set(shares)) < len(shares):
        raise ValueError("a share is named twice")
    return sorted(shares, key=Fraction)


Share = Annotated[str, BeforeValidator(_as_share)]
"""A share of the demonstrations, above 0 and below 1, as a reduced fraction: "1/4"."""
RunName = Annotated[str, AfterValidator(_as_file_name)]
OwnName = Annotated[str, AfterValidator(_as_own_name)]
"""What a run, a student or a decomposer is called."""
ToolName = Annotated[str, AfterValidator(_as_tool_name)]
"""What a tool is called: also the name that a model calls its function by."""
Dollars = Annotated[float, Field(ge=0, le=1e12)]
"""An amount or a price. It is bounded, so that no sum of products of it is infinite."""
Times = Annotated[int, Field(ge=1, le=1000)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=10**15)]
"""A number of things, bounded by what every library and file takes."""
Rate = Annotated[float, Field(gt=0, le=1e15)]
"""A number above 0 that need not be whole."""
MOST_SEED = 2**32 - 1
"""The largest seed that every library takes."""
DEFAULT_STUDENT = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
DECOMPOSER_VARIANTS = ("D-T", "D-R")
SOLVER_VARIANTS = ("E-T", "E-A", "E-T-direct", "E-A-direct", "S-T", "S-A", "S-T-direct", "S-A-direct")
"""S-… are the single-stage students: they see the question only (paper §4, "single-stage")."""
STUDENTS = (*DECOMPOSER_VARIANTS, *SOLVER_VARIANTS)
Variant = Literal["D-T", "D-R", "E-T", "E-A", "E-T-direct", "E-A-direct", "S-T", "S-A", "S-T-direct", "S-A-direct"]
