"""Many attempts as columns: an array a field, in place of an object an attempt.

Whatever counts, averages or compares reads columns and never asks where they come from: made of attempts that are
there anyway (`OfAttempts`), or read from the files that a large run leaves, one field at a time. Texts are no columns.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from fractionate.files import utf8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[Any]
    Places = NDArray[np.int64]

Reading = Literal["strict", "lenient", "lost"]
"""How outputs are read: by what they state, by what they may have meant, or by how much the former loses."""

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
_ROLES = ("decomposer", "solver")


def digest(text: str) -> int:
    """Return 64 bits that stand for an id or a passage: of a million, two are taken for one once in 30 million runs."""
    return int.from_bytes(hashlib.blake2b(utf8(text), digest_size=8).digest(), "little")


def _lenient(metric: str) -> Callable[[Any], float]:
    return lambda one: float("nan") if one.lenient is None else getattr(one.lenient, metric)


def _cut_off(role: str) -> Callable[[Any], bool]:
    return lambda one: role in one.cut_off


FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "id_digest": ("uint64", lambda one: digest(one.problem.id)),
    "cluster_digest": ("uint64", lambda one: digest(one.problem.cluster)),
    **{metric: ("float64", attrgetter(f"score.{metric}")) for metric in _METRICS},
    **{f"lenient_{metric}": ("float64", _lenient(metric)) for metric in _METRICS},
    "latency_s": ("float64", attrgetter("latency_s")),
    **{
        f"{role}_{amount}": ("float64" if amount == "compute_s" else "", attrgetter(f"{role}_usage.{amount}"))
        for role in _ROLES
        for amount in AMOUNTS
    },
    "unread": ("bool", lambda one: one.prediction is None),
    "fell_back": ("bool", attrgetter("fell_back")),
    "unparsed": ("bool", lambda one: one.decomposition is not None and one.decomposition.status == "unparsed"),
    "failures": ("int64", lambda one: len(one.failures)),
    "failed": ("bool", lambda one: any(failure != "length" for failure in one.failures)),
    "lost": ("bool", lambda one: bool(one.failures) and not one.output),
    **{f"cut_off_{role}": ("bool", _cut_off(role)) for role in _ROLES},
}
"""Every column: its type ("" for the one that fits: counts, unless somebody's log has fractions) and how an attempt has
it. A lenient score that is not known is NaN; `failed` leaves out replies that were only too long; `lost` is an attempt
without any output."""


class Columns(ABC):
    """Attempts, one a question, as arrays in the order of the test set."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`, an entry an attempt."""

    @property
    def outputs(self) -> Columns:
        """Every single attempt, where a question has several one after another; else these columns themselves."""
        return self

    @property
    def starts(self) -> Places:
        """The place in `outputs` of each question's first one."""
        import numpy as np

        return np.arange(len(self))

    @property
    def repeats(self) -> int:
        """How often a question was answered in each run, the most of any."""
        return 1

    @property
    def seeds(self) -> int:
        """How many runs were pooled, the most of any question; 1 where none were."""
        return 1

    def by_run(self, metric: str, reading: Reading = "strict") -> Sequence[Array] | None:
        """Return the score in each pooled run, None where questions were pooled over different numbers of them."""
        return None

    @property
    def runs(self) -> Sequence[Columns]:
        """The usage of each pooled run; none where the questions' numbers of them differ, or none were pooled."""
        return ()

    @property
    def ids(self) -> NDArray[np.uint64]:
        """What stands for each question."""
        return self.column("id_digest")

    @cached_property
    def clusters(self) -> Places:
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

    def usage(self, role: str) -> dict[str, Any]:
        """Return what one role used in all attempts together, by the fields of a usage."""
        if not len(self):
            return {}
        return {amount: total(self.column(f"{role}_{amount}")) for amount in AMOUNTS}

    @property
    def cut_off(self) -> NDArray[np.bool_]:
        """Whether any reply of the attempt was cut off."""
        return self.column("cut_off_decomposer") | self.column("cut_off_solver")

    def take(self, places: Places) -> Columns:
        """Return the attempts at these places."""
        return Taken(self, places)


class OfAttempts(Columns):
    """The columns of attempts that are in memory, each made when it is first asked for."""

    def __init__(self, attempts: Sequence[Any]) -> None:
        self._attempts = attempts
        self._made: dict[str, Numbers] = {}
        self._outputs: Columns | None = None

    def __len__(self) -> int:
        return len(self._attempts)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`."""
        if name not in self._made:
            kind, read = FIELDS[name]
            self._made[name] = _array([read(one) for one in self._attempts], kind)
        return self._made[name]

    @property
    def outputs(self) -> Columns:
        """Every single attempt."""
        if self._outputs is None:
            several = any(one.of for one in self._attempts)
            each = [output for one in self._attempts for output in one.outputs] if several else []
            self._outputs = OfAttempts(each) if several else self
        return self._outputs

    @property
    def starts(self) -> Places:
        """The place in `outputs` of each question's first one."""
        import numpy as np

        sizes = np.asarray([len(one.outputs) for one in self._attempts], dtype=np.int64)
        return np.cumsum(sizes) - sizes

    @property
    def repeats(self) -> int:
        """How often a question was answered in each run."""
        return max((len(one.outputs) // max(len(one.by_run), 1) for one in self._attempts), default=1)

    @property
    def seeds(self) -> int:
        """How many runs were pooled."""
        return max((len(one.by_run) for one in self._attempts), default=1) or 1

    def take(self, places: Places) -> Columns:
        """Return the attempts at these places."""
        return OfAttempts([self._attempts[place] for place in places.tolist()])

    def by_run(self, metric: str, reading: Reading = "strict") -> Sequence[Array] | None:
        """Return the score in each pooled run."""
        strict = self._of_each("by_run", metric)
        if reading == "strict" or strict is None:
            return strict
        lenient = self._of_each("lenient_by_run", metric)
        if lenient is None or len(lenient) != len(strict):
            return None
        return (
            lenient if reading == "lenient" else [ours - theirs for ours, theirs in zip(lenient, strict, strict=True)]
        )

    def score(self, metric: str, reading: Reading = "strict") -> Array | None:
        """Return the metric of each attempt by a reading; None also where a pooled run lacks that reading."""
        if reading != "strict" and any(len(one.by_run) != len(one.lenient_by_run) for one in self._attempts):
            return None
        return super().score(metric, reading)

    @property
    def runs(self) -> Sequence[Columns]:
        """The usage of each pooled run."""
        counts = {len(one.usage_by_run) for one in self._attempts}
        if len(counts) != 1:
            return ()
        return [_Used([one.usage_by_run[run] for one in self._attempts]) for run in range(counts.pop())]

    def _of_each(self, field: str, metric: str) -> list[Array] | None:
        counts = {len(getattr(one, field)) for one in self._attempts}
        if len(counts) != 1:
            return None
        return [
            _array([getattr(getattr(one, field)[run], metric) for one in self._attempts], "float64")
            for run in range(counts.pop())
        ]


class _Used(Columns):
    """The usage alone of attempts in one of several runs: a decomposer's and a solver's for each."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def column(self, name: str) -> Numbers:
        role, _, amount = name.partition("_")
        place = _ROLES.index(role)
        return _array([getattr(pair[place], amount) for pair in self._pairs], "")


class Taken(Columns):
    """Some attempts of other columns, in an order of their own."""

    def __init__(self, columns: Columns, places: Places) -> None:
        self._columns = columns
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`."""
        return self._columns.column(name)[self._places]


def in_order_of_sight(values: Numbers) -> Places:
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


def _array(values: list[Any], kind: str) -> Numbers:
    import numpy as np

    return np.asarray(values, dtype=kind or None)
