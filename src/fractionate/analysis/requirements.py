"""What a comparison of a new system with an old one has to show, for a gate in CI: each requirement, passed or not."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fractionate.analysis.comparison import Comparison
from fractionate.errors import UsageError
from fractionate.rows import shown

Claim = Literal["", "not-worse", "better"]
PER = 1000
"""Questions that dollars are given for."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is required of the first of two systems, NEW; 0, "" and None require nothing.

    `require` is the claim against OLD, with the non-inferiority `margin` in percentage points. `outcome` is what NEW
    has to be shown to reach, in percent; `usd` what it may take at most per 1,000 questions; `questions` how many both
    have to have answered. `looks` and `key` are those of `run.looks.enter_comparison`.
    """

    require: Claim = ""
    margin: float = 0.0
    confidence: float = 0.95
    outcome: float = 0.0
    usd: float | None = None
    questions: int = 0
    looks: int | str = ""
    key: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError for a value that cannot be."""
        if self.require not in ("", "not-worse", "better"):
            raise UsageError(f"require must be not-worse or better, not {self.require!r}")
        if self.require == "not-worse" and not self.margin:
            raise UsageError("--require not-worse needs --margin, in percentage points, such as --margin 2")
        if not 0 < self.confidence < 1 or not 0 <= self.margin < 100:
            raise UsageError("the confidence lies between 0 and 1 (such as 0.95), the margin from 0 to below 100")
        if not 0 <= self.outcome <= 100 or self.questions < 0 or (self.usd is not None and self.usd < 0):
            raise UsageError("outcome is a percentage (0 to 100), questions and usd are 0 or more")
        if self.looks not in ("", "any") and not (type(self.looks) is int and self.looks > 0):
            raise UsageError(f'looks must be a number of looks, such as 20, or "any", not {self.looks!r}')

    @property
    def any(self) -> bool:
        """Whether anything is required."""
        return bool(self.require or self.outcome or self.questions or self.usd is not None)


_KINDS: dict[str, tuple[type, ...]] = {
    "require": (str,),
    "margin": (int, float),
    "confidence": (int, float),
    "outcome": (int, float),
    "usd": (int, float),
    "questions": (int,),
    "looks": (int, str),
    "key": (str,),
}


def read_requirements(path: Path | None, **given: Any) -> Requirements:
    """Return the requirements of a TOML file (its table [gate], or its top), with what is given in their place.

    None and "" among `given` are not given. Raises UsageError naming the file and the key that is wrong.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UsageError(f"{path} cannot be read: {said}") from None
        table = content.get("gate", content)
        if not isinstance(table, dict):
            raise UsageError(f"{path}: gate must be a table")
        for key, value in table.items():
            _check(path, key, value)
    return Requirements(**{**table, **{key: value for key, value in given.items() if value not in (None, "")}})


def _check(path: Path, key: str, value: Any) -> None:
    if key not in _KINDS:
        nearest = difflib.get_close_matches(key, _KINDS, n=1, cutoff=0.0)[0]
        raise UsageError(f"{path}: unknown key {key!r}: did you mean {nearest!r}?")
    if isinstance(value, bool) or not isinstance(value, _KINDS[key]) or value != value:
        raise UsageError(f"{path}: {key} cannot be {shown(value)}")


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement of a comparison: whether it is shown, in a sentence. `name` is what a list of checks calls it."""

    name: str
    passed: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)


def checks(comparison: Comparison, required: Requirements) -> list[Check]:
    """Return every requirement on the first of two systems. Where nothing could be compared, none is shown."""
    return list(_checks(comparison, required))


def _checks(comparison: Comparison, required: Requirements) -> Iterator[Check]:
    new, old = comparison.systems
    if required.require:
        shown_ = comparison.shows(required.require)
        claim = "better" if required.require == "better" else f"not worse by {required.margin:g} percentage points"
        said = f"{new.name} is {'' if shown_ else 'not '}shown to be {claim} than {old.name}"
        yield Check(required.require, shown_, said)
    if required.questions:
        enough = comparison.n >= required.questions
        yield Check(
            "questions", enough, f"{comparison.n} questions were answered by both ({required.questions} required)"
        )
    if required.outcome:
        reached = not comparison.misfits and 100 * new.ci_low >= required.outcome
        yield Check(
            "outcome",
            reached,
            f"{new.name} reaches {100 * new.value:.1f} % ({100 * new.ci_low:.1f} to {100 * new.ci_high:.1f}); "
            f"at least {required.outcome:g} % is required of the lower end",
        )
    if required.usd is not None:
        usd = None if new.usd is None else new.usd * PER
        said = "an unknown amount: give --price" if usd is None else f"${usd:.4g}"
        cheap = usd is not None and usd <= required.usd
        yield Check("usd", cheap, f"{new.name} takes {said} per {PER:,} questions (${required.usd:g} at most)")
