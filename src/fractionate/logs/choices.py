"""What a reader of logs must be told where a log leaves a choice, and how one name is chosen of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fractionate.datasets.scoring import Fields
from fractionate.errors import UsageError, shortened
from fractionate.rows import shown

GROUP_FIELDS = ("group", "context", "passage")
"""Where a log may say what questions share, the first that is there."""
_WORDS = {
    1.0: ("c", "correct", "right", "yes", "true", "pass", "passed"),
    0.5: ("p", "partial"),
    0.0: ("i", "n", "incorrect", "wrong", "no", "false", "fail", "failed"),
}
_OUTCOMES = {word: outcome for outcome, words in _WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Choices:
    """Which of what a log offers is compared; "" takes the usual or the only one.

    `id`, `outcome` and `group` are fields. `scorer` is of inspect_ai, `filter` and `task` of lm-evaluation-harness,
    `metric` of either, of scored outputs and of fractionate's own attempts. `dataset`, `gold`, `columns` and `fields`
    say how outputs are scored, as `fractionate score` takes them. `repeats` reads rows with one id as several answers.
    """

    id: str = ""
    outcome: str = ""
    group: str = ""
    scorer: str = ""
    metric: str = ""
    filter: str = ""
    task: str = ""
    dataset: str = ""
    gold: str = ""
    fields: Fields = field(default_factory=Fields)
    columns: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False

    def group_of(self, values: Mapping[str, Any], where: str) -> str:
        """Return what a question shares with others, by the field that says so; "" where none does."""
        if self.group and self.group not in values:
            raise UsageError(f"{where}: no field {self.group!r} to group by (there are {named(values)})")
        fields = (self.group,) if self.group else GROUP_FIELDS
        found = (values.get(name) for name in fields)
        return next((str(value) for value in found if value not in (None, "")), "")

    def id_of(self, values: Mapping[str, Any], where: str) -> str:
        """Return the id in the field that was chosen for it."""
        if values.get(self.id) in (None, ""):
            raise UsageError(f"{where}: no field {self.id!r} to match by (there are {named(values)})")
        return str(values[self.id])


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
    raise UsageError(f"{where} is {shown(value)}, which is no outcome: a number from 0 to 1, or true or false")


def _number(word: str, otherwise: str) -> Any:
    """Return the number that a word writes, None of nothing, and what is neither as it stands."""
    try:
        return float(word) if word else None
    except ValueError:
        return otherwise


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


def named(names: Iterable[str]) -> str:
    """Return names in a row, cut to what a message can hold."""
    return shortened(", ".join(map(str, names)), 300) or "none"
