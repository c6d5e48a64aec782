"""Several attempts at each question as one: the question counts with their mean, since it is the independent unit.

The arithmetic is `columns.Mean`; here are the same means as objects, for readers of attempts rather than columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import overload

from fractionate.columns import AMOUNTS, Columns, Mean, OfAttempts, WithGold
from fractionate.types import Attempt, Score, Usage


class MeanAttempts(Sequence[Attempt]):
    """One attempt a question: the mean over several parts, each of them one attempt a question.

    A mean is shown as the attempt whose prediction is the most frequent, with mean scores, latency and usage.
    """

    def __init__(self, parts: Sequence[Sequence[Attempt]], *, pooled: bool = False) -> None:
        self._parts = parts
        self._pooled = pooled
        self.columns = Mean([columns_of(part) for part in parts], pooled=pooled)
        self._column = cache(lambda name: self.columns.column(name).tolist())

    @classmethod
    def of_repeats(cls, outputs: Sequence[Attempt], repeats: int) -> Sequence[Attempt]:
        """Return one attempt a question, given every single one: a question's repeats one after another."""
        return cls([_Every(outputs, first, repeats) for first in range(repeats)]) if repeats > 1 else outputs

    def __len__(self) -> int:
        return len(self._parts[0])

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            # Still a mean over parts, so that pooled runs stay runs: their seeds are a source of chance of their own.
            return MeanAttempts([part[place] for part in self._parts], pooled=self._pooled)
        at = range(len(self))[place]
        shown = self._parts[self._shown[at]][at]
        lenient = Score(self._column("lenient_exact_match")[at], self._column("lenient_f1")[at])
        return replace(
            shown,
            score=Score(self._column("exact_match")[at], self._column("f1")[at]),
            lenient=None if lenient.exact_match != lenient.exact_match else lenient,
            decomposer_usage=self._usage("decomposer", at),
            solver_usage=self._usage("solver", at),
            latency_s=self._column("latency_s")[at],
        )

    def outputs_at(self, question: int) -> list[Attempt]:
        """Return every single attempt at a question."""
        return [one for part in self._parts for one in _outputs_at(part, question)]

    def _usage(self, role: str, at: int) -> Usage:
        return Usage(*(self._column(f"{role}_{amount}")[at] for amount in AMOUNTS))

    @cached_property
    def _shown(self) -> list[int]:
        shown: list[int] = self.columns.shown.tolist()
        return shown


class _Every(Sequence[Attempt]):
    """One of several attempts at each question, out of all: every `step`-th from the `first` on."""

    def __init__(self, outputs: Sequence[Attempt], first: int, step: int) -> None:
        self._outputs = outputs
        self._places = range(first, len(outputs), step)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            return [self._outputs[one] for one in self._places[place]]
        return self._outputs[self._places[place]]

    @cached_property
    def columns(self) -> Columns:
        import numpy as np

        return columns_of(self._outputs).take(np.asarray(self._places))


class GoldAttempts(Sequence[Attempt]):
    """Attempts of one run with gold scores beside their own, one a question, NaN where a question has none.

    Their own scores then count as cheap ones (a judge's), which gold corrects: see `analysis/corrections.py`.
    """

    def __init__(self, attempts: Sequence[Attempt], gold: Sequence[float]) -> None:
        self._attempts = attempts
        self._gold = gold
        self.columns = WithGold(columns_of(attempts), gold)

    def __len__(self) -> int:
        return len(self._attempts)

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            return GoldAttempts(self._attempts[place], self._gold[place])
        score = float(self._gold[place])
        return replace(self._attempts[place], gold=None if math.isnan(score) else Score(score, score))

    def outputs_at(self, question: int) -> Sequence[Attempt]:
        """Return every single attempt at a question."""
        return _outputs_at(self._attempts, question)


def columns_of(attempts: Sequence[Attempt]) -> Columns:
    """Return attempts as arrays: those that they have themselves, or made of the objects."""
    stored = getattr(attempts, "columns", None)
    return stored if isinstance(stored, Columns) else OfAttempts(attempts)


def _outputs_at(attempts: Sequence[Attempt], question: int) -> Sequence[Attempt]:
    return attempts.outputs_at(question) if isinstance(attempts, MeanAttempts | GoldAttempts) else [attempts[question]]
