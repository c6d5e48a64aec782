"""What a reader of logs must be told where a log leaves a choice, and how figures and names in logs are read."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fractionate.datasets.gold import key_of
from fractionate.datasets.own_scorers import number_in
from fractionate.datasets.scoring import Scoring
from fractionate.errors import UsageError, shortened
from fractionate.rows import at, shown

GROUP_FIELDS = ("group", "context", "passage")
"""Where a log may say what questions share, the first that is there."""
MOST_TOKENS, MOST_DOLLARS = 1e15, 1e9
"""What one answer may state at most: sums over any log stay finite."""
_WORDS = {
    1.0: ("c", "correct", "right", "yes", "true", "pass", "passed"),
    0.5: ("p", "partial"),
    0.0: ("i", "n", "incorrect", "wrong", "no", "false", "fail", "failed"),
}
_OUTCOMES = {word: outcome for outcome, words in _WORDS.items() for word in words}
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, NotImplementedError,
    EOFError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Choices:
    """Which of what a log offers is compared; "" takes the usual or the only one.

    `id`, `outcome` and `group` are fields; "a.b" is `b` inside `a`. `filter` and `task` are of lm-evaluation-harness,
    `metric` of either harness, of scored outputs and of fractionate's own attempts. `scoring` says how outputs are
    scored, as `fractionate score` takes it; its scorer is also that of an inspect_ai log, its scale that of outcomes.
    `repeats` reads rows with one id as several answers.
    """

    id: str = ""
    outcome: str = ""
    group: str = ""
    metric: str = ""
    filter: str = ""
    task: str = ""
    scoring: Scoring = field(default_factory=Scoring)
    repeats: bool = False

    @property
    def name_fields(self) -> bool:
        """Whether fields of plain rows are named: then a log is a table, whatever else it looks like."""
        scoring = self.scoring
        named = (
            self.outcome,
            scoring.fields.output,
            scoring.fields.answers,
            scoring.gold,
            scoring.dataset,
            scoring.answer,
        )
        return any(named) or ".py:" in scoring.scorer

    def group_of(self, values: Mapping[str, Any], where: str) -> str:
        """Return what a question shares with others, by the field that says so; "" where none does."""
        if self.group and at(values, self.group, self) is self:
            raise UsageError(f"{where}: no field {self.group!r} to group by (there are {named(values)})")
        fields = (self.group,) if self.group else GROUP_FIELDS
        found = (at(values, name) for name in fields)
        return next((key_of(value) for value in found if value not in (None, "")), "")

    def id_of(self, values: Mapping[str, Any], where: str) -> str:
        """Return the id in the field that was chosen for it."""
        value = at(values, self.id)
        if value in (None, ""):
            raise UsageError(f"{where}: no field {self.id!r} to match by (there are {named(values)})")
        return key_of(value)

    def outcome_of(self, value: Any, where: str) -> float | None:
        """Return an outcome from 0 to 1, of a rating on the scale where there is one; see `outcome_of`."""
        scale = self.scoring.scale
        return outcome_of(value, where) if scale is None or value in (None, "") else scale.share(value, where)


def outcome_of(value: Any, where: str) -> float | None:
    """Return an outcome from 0 to 1: a number, true or false, or a word for one ("C", "I", "P", "N" are inspect_ai's).

    None for what is not scored (null, NaN, nothing). Raises UsageError for anything else.
    """
    if isinstance(value, str):
        word = value.strip().lower()
        value = _OUTCOMES[word] if word in _OUTCOMES else _number(word, value)
    if value is None or value != value:
        return None
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise UsageError(
        f"{where} is {shown(value)}, which is no outcome: a number from 0 to 1, or true or false (ratings: --scale)"
    )


def amount_of(value: Any, most: float, where: str) -> float:
    """Return tokens or dollars that a log states. Raises UsageError where they are no number from 0 to `most`."""
    number = None if isinstance(value, bool) else number_in(value)
    if number is None or not 0 <= number <= most:
        raise UsageError(f"{where} must be a number from 0 to {most:g}, not {shown(value)}")
    return number


@contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Turn whatever malformed data raises inside into a UsageError that says where, and that it is no such thing."""
    try:
        yield
    except _MALFORMED as error:
        said = shortened(" ".join(f"{type(error).__name__}: {error}".split()), 160)
        raise UsageError(f"{where} is no {what} that can be read ({said})") from None


def digest(text: str) -> str:
    """Return a short text itself, and what stands for a long one: a log's questions need not stay in memory."""
    if len(text) <= _LONGEST_TEXT:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def only(names: Iterable[str], chosen: str, what: str, option: str, where: str) -> str:
    """Return the chosen name, or the only one. Raises UsageError naming all where it is not there or not only one."""
    found = list(dict.fromkeys(names))
    if chosen and chosen not in found:
        raise UsageError(f"{where} has no {what} {chosen!r}: it has {named(found)}")
    if not chosen and len(found) != 1:
        if not found:
            raise UsageError(f"{where} has no {what}: nothing was scored in it")
        raise UsageError(f"{where} has the {what}s {named(found)}: choose one with {option}")
    return chosen or found[0]


def named(names: Iterable[Any]) -> str:
    """Return names in a row, cut to what a message can hold."""
    return shortened(", ".join(map(str, names)), 300) or "none"


def _number(word: str, otherwise: str) -> Any:
    """Return the number that a word writes, None of nothing, and what is neither as it stands."""
    try:
        return float(word) if word else None
    except ValueError:
        return otherwise
