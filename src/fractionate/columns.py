"""Attempts as columns: one array per field instead of one object per attempt.

Code that counts, averages or compares reads columns, wherever they come from: attempts in memory (`OfAttempts`), the
attempts.sqlite of a run (`run.attempts`), or the mean over several of either (`Mean`). Texts are no columns.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from fractionate.files import utf8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[Any]
    Positions = NDArray[np.int64]

Reading = Literal["strict", "lenient", "lost"]
"""How outputs are read: "strict" takes what an output states, "lenient" what it may have meant; "lost" is lenient minus
strict."""

AMOUNTS = (
    "calls",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "compute_s",
    "counted",
)
"""The fields of a usage."""
_METRICS = ("exact_match", "f1")
OF_QUESTIONS = ("id_digest", "cluster_digest")
"""The columns that say which question an attempt is at."""
_GOLD = "gold_"
_MEANS = ("exact_match", "f1", "lenient_exact_match", "lenient_f1", "latency_s")
_ROLES = ("decomposer", "solver")


def digest(text: str) -> int:
    """Return a 64-bit digest of an id or a passage. Among a million texts, two collide with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(utf8(text), digest_size=8).digest(), "little")


def _lenient(metric: str) -> Callable[[Any], float]:
    return lambda one: float("nan") if one.lenient is None else getattr(one.lenient, metric)


def _gold(metric: str) -> Callable[[Any], float]:
    return lambda one: float("nan") if one.gold is None else getattr(one.gold, metric)


def _cut_off(role: str) -> Callable[[Any], bool]:
    return lambda one: role in one.cut_off


FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "id_digest": ("uint64", lambda one: digest(one.problem.id)),
    "cluster_digest": ("uint64", lambda one: digest(one.problem.cluster)),
    **{metric: ("float64", attrgetter(f"score.{metric}")) for metric in _METRICS},
    **{f"lenient_{metric}": ("float64", _lenient(metric)) for metric in _METRICS},
    **{f"{_GOLD}{metric}": ("float64", _gold(metric)) for metric in _METRICS},
    "latency_s": ("float64", attrgetter("latency_s")),
    **{
        f"{role}_{amount}": ("float64" if amount == "compute_s" else "", attrgetter(f"{role}_usage.{amount}"))
        for role in _ROLES
        for amount in AMOUNTS
    },
    "prediction_digest": ("uint64", lambda one: digest(repr(one.prediction))),
    "unextracted": ("bool", lambda one: one.prediction is None),
    "fell_back": ("bool", attrgetter("fell_back")),
    "unparsed": ("bool", lambda one: one.decomposition is not None and one.decomposition.status == "unparsed"),
    "failures": ("int64", lambda one: len(one.failures)),
    "failed": ("bool", lambda one: any(failure != "length" for failure in one.failures)),
    "lost": ("bool", lambda one: bool(one.failures) and not one.output),
    **{f"cut_off_{role}": ("bool", _cut_off(role)) for role in _ROLES},
}
"""Every column: its type, and how it is read from an attempt. The type "" is the one that fits the values: whole
numbers, unless a log has fractions of tokens. An unknown lenient or gold score is NaN. `failed` leaves out replies that
were only too long. `lost` is an attempt with failed calls and without any output."""


TOOL_AMOUNTS = ("calls", "errors", "tokens", "seconds")
"""The fields of what an attempt used of one tool."""
_TOOL = "tool"


def tool_column(role: str, tool: str, amount: str) -> str:
    """Return the name of the column of one tool: an attempt that did not use it has 0 there."""
    return f"{_TOOL}:{role}:{tool}:{amount}"


def tool_columns(attempts: Iterable[Any]) -> list[str]:
    """Return the names of the columns of every tool that attempts name."""
    found = {(role, use.tool): None for one in attempts for role, uses in one.tools.items() for use in uses}
    return [tool_column(role, tool, amount) for role, tool in found for amount in TOOL_AMOUNTS]


def is_of_gold(name: str) -> bool:
    """Whether a column holds gold scores."""
    return name.startswith(_GOLD)


def is_of_tool(name: str) -> bool:
    """Whether a column is that of a tool."""
    return name.startswith(f"{_TOOL}:")


class Columns(ABC):
    """Attempts, one a question, as arrays in the order of the test set."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS` or of a tool's columns, an entry an attempt."""

    @property
    def outputs(self) -> Columns:
        """Every single attempt, where a question has several one after another; else these columns themselves."""
        return self

    @property
    def starts(self) -> Positions:
        """The place in `outputs` of each question's first one."""
        import numpy as np

        return np.arange(len(self))

    @property
    def repeats(self) -> int:
        """How often a question was answered in each run, the most of any."""
        return 1

    @property
    def runs(self) -> Sequence[Columns]:
        """The runs that these columns pool; none where no runs were pooled."""
        return ()

    @property
    def seeds(self) -> int:
        """How many runs were pooled; 1 where none were."""
        return len(self.runs) or 1

    def by_run(self, metric: str, reading: Reading = "strict") -> Sequence[Array] | None:
        """Return the score in each pooled run; None where no runs were pooled, or one of them lacks the reading."""
        found = [run.score(metric, reading) for run in self.runs]
        scores = [score for score in found if score is not None]
        return scores if found and len(scores) == len(found) else None

    @property
    def ids(self) -> NDArray[np.uint64]:
        """What stands for each question."""
        return self.column("id_digest")

    @cached_property
    def clusters(self) -> Positions:
        """The independent unit of each question, numbered from 0 in order of first sight."""
        return in_order_of_sight(self.column("cluster_digest"))

    def score(self, metric: str, reading: Reading = "strict") -> Array | None:
        """Return the metric of each attempt, 0 to 1, by a reading; None where that reading lacks one."""
        import numpy as np

        if reading == "strict":
            return self.column(metric)
        lenient = self.column(f"lenient_{metric}")
        if np.isnan(lenient).any():
            return None
        return lenient if reading == "lenient" else lenient - self.column(metric)

    def gold(self, metric: str) -> Array | None:
        """Return the gold score of each attempt, NaN where it has none; None where no attempt has one."""
        import numpy as np

        found = self.column(f"{_GOLD}{metric}")
        return None if np.isnan(found).all() else found

    def usage(self, role: str) -> dict[str, Any]:
        """Return what one role used in all attempts together, by the fields of a usage."""
        if not len(self):
            return {}
        return {amount: total(self.column(f"{role}_{amount}")) for amount in AMOUNTS}

    @property
    def cut_off(self) -> NDArray[np.bool_]:
        """Whether any reply of the attempt was cut off."""
        return self.column("cut_off_decomposer") | self.column("cut_off_solver")

    def take(self, places: Positions) -> Columns:
        """Return the attempts at these places."""
        return Taken(self, places)


class OfAttempts(Columns):
    """The columns of attempts that are in memory, each made when it is first asked for."""

    def __init__(self, attempts: Sequence[Any]) -> None:
        self._attempts = attempts
        self._made: dict[str, Numbers] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`."""
        if name not in self._made:
            self._made[name] = make_column(name, self._attempts)
        return self._made[name]

    def take(self, places: Positions) -> Columns:
        """Return the attempts at these places."""
        return OfAttempts([self._attempts[place] for place in places.tolist()])


class Mean(Columns):
    """The mean over several attempts at each question: its repeats, or the runs that were pooled.

    `parts` hold the same questions in the same order. A score or latency is the mean over the parts, a gold score that
    over the parts that have one. Usage is that of
    answering the question once, rounded to whole tokens. Whatever has no mean (a flag, a prediction) is that of the
    first part whose prediction is the most frequent.
    """

    def __init__(self, parts: Sequence[Columns], *, pooled: bool = False) -> None:
        self._parts = parts
        self._pooled = pooled

    def __len__(self) -> int:
        return len(self._parts[0])

    @property
    def outputs(self) -> Columns:
        """Every single attempt: for each question those of the first part, then those of the next."""
        return _Interleaved([part.outputs for part in self._parts], len(self))

    @property
    def starts(self) -> Positions:
        """The place in `outputs` of each question's first one."""
        import numpy as np

        return np.arange(len(self)) * (len(self.outputs) // max(len(self), 1))

    @property
    def repeats(self) -> int:
        """How often a question was answered in each run, the most of any."""
        return max(part.repeats for part in self._parts) if self._pooled else len(self._parts)

    @property
    def runs(self) -> Sequence[Columns]:
        """The pooled runs."""
        return self._parts if self._pooled else ()

    def take(self, places: Positions) -> Columns:
        """Return the questions at these places."""
        return Mean([part.take(places) for part in self._parts], pooled=self._pooled)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`, an entry a question."""
        import numpy as np

        if name in OF_QUESTIONS:
            return self._parts[0].column(name)
        rows = [part.column(name) for part in self._parts]
        if name in _MEANS or is_of_tool(name):
            return _sum(rows) / len(rows)
        if is_of_gold(name):  # the mean of what is known
            known = np.isfinite(rows)
            found = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
            return np.where(known.any(axis=0), found, np.nan)
        role, _, amount = name.partition("_")
        if role in _ROLES:
            mean = _sum(rows) / len(rows)
            once = np.where(self._same_usage(role), rows[0], mean if amount == "compute_s" else np.rint(mean))
            return once.astype(rows[0].dtype)
        return np.stack(rows)[self.shown, np.arange(len(self))]

    @cached_property
    def shown(self) -> Positions:
        """The part that stands for each question: the first of those whose prediction is the most frequent."""
        import numpy as np

        made = np.stack([part.column("prediction_digest") for part in self._parts])
        shown: Positions = np.argmax([(made == one).sum(axis=0) for one in made], axis=0)
        return shown

    def _same_usage(self, role: str) -> NDArray[np.bool_]:
        """Return for which questions all parts used the same, so that rounding has nothing to round."""
        import numpy as np

        same = np.ones(len(self), dtype=np.bool_)
        for amount in AMOUNTS:
            first, *others = (part.column(f"{role}_{amount}") for part in self._parts)
            for other in others:
                same &= first == other
        return same


class _Interleaved(Columns):
    """The attempts of several columns, question by question."""

    def __init__(self, parts: Sequence[Columns], questions: int) -> None:
        self._parts = parts
        self._questions = questions

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def column(self, name: str) -> Numbers:
        import numpy as np

        rows = [part.column(name).reshape(self._questions, -1) for part in self._parts]
        return np.concatenate(rows, axis=1).reshape(-1) if self._questions else rows[0].reshape(-1)


class Taken(Columns):
    """Some attempts of other columns, in an order of their own."""

    def __init__(self, columns: Columns, places: Positions) -> None:
        self._columns = columns
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`."""
        return self._columns.column(name)[self._places]


class WithGold(Columns):
    """Other columns with gold scores beside their own."""

    def __init__(self, columns: Columns, gold: Sequence[float] | Array) -> None:
        import numpy as np

        self._columns = columns
        self._gold = np.asarray(gold, dtype=np.float64)
        if self._gold.shape != (len(columns),):
            raise ValueError(f"gold scores of shape {self._gold.shape} for {len(columns)} questions")

    def __len__(self) -> int:
        return len(self._columns)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS` or of a tool's columns."""
        return self._gold if is_of_gold(name) else self._columns.column(name)

    @property
    def outputs(self) -> Columns:
        """Every single attempt, without gold."""
        return self._columns.outputs

    @property
    def starts(self) -> Positions:
        """The place in `outputs` of each question's first one."""
        return self._columns.starts

    @property
    def repeats(self) -> int:
        """How often a question was answered in each run."""
        return self._columns.repeats

    def take(self, places: Positions) -> Columns:
        """Return the attempts at these places."""
        return WithGold(self._columns.take(places), self._gold[places])


def in_order_of_sight(values: Numbers) -> Positions:
    """Return equal values as one number, numbered from 0 in the order in which they are first seen."""
    import numpy as np

    _, first, place = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]


def total(amounts: Numbers) -> Any:
    """Return the sum of at least one amount as adding one after another gives it: of floats the order shows."""
    import numpy as np

    return np.cumsum(amounts)[-1].item()


def make_column(name: str, attempts: Iterable[Any]) -> Numbers:
    """Return one of `FIELDS` of some attempts."""
    import numpy as np

    if is_of_tool(name):
        return _make_tool_column(name, attempts)
    kind, read = FIELDS[name]
    return np.asarray([read(one) for one in attempts], dtype=kind or None)


def kind_of_tool_column(name: str) -> str:
    """Return the type of a tool's column."""
    return "float64" if name.endswith(":seconds") else "int64"


def _make_tool_column(name: str, attempts: Iterable[Any]) -> Numbers:
    import numpy as np

    _, role, tool, amount = name.split(":")
    found = [sum(getattr(use, amount) for use in one.tools.get(role, ()) if use.tool == tool) for one in attempts]
    return np.asarray(found, dtype=kind_of_tool_column(name))


def _sum(rows: Sequence[Numbers]) -> Numbers:
    """Return the sum of several columns, added one after another as Python adds."""
    first, *others = rows
    for row in others:
        first = first + row
    return first
