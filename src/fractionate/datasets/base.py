"""The interface of a data set: the source of its problems, the reader of answers, the scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from fractionate.types import Answer, Problem, Score
from fractionate.types import AnswerForm as AnswerForm

Metric = Literal["exact_match", "f1"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A data reference, parsed: `NAME[:PATH][#SPLIT][?KIND,…][@START-END[/STEP]]`.

    `start` and `end` are row indices of the split, both included; every `step`-th of those rows is meant, and of them
    the ones of the `kinds` (all where it is empty).
    """

    text: str
    name: str
    path: str = ""
    split: str = ""
    start: int | None = None
    end: int | None = None
    step: int = 1
    kinds: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    """The user's column names, by ours (question, answers, context, id, subquestions, kind, group)."""


@dataclass(frozen=True)
class Dataset:
    """One data set: its loader, its answer extractor, its scorer, its source."""

    name: str
    source: str
    licence: str
    metric: Metric
    answer_form: AnswerForm
    default_cap: int
    load: Callable[[Reference], Iterator[Problem]]
    """Yields every problem of the split, in order, unsliced. Raises UsageError naming file, line and reason."""
    extract: Callable[[str], Answer | None]
    """Reads the answer out of a model's raw output; None when there is none."""
    score: Callable[[Answer | None, Sequence[Answer]], Score]
    """Scores a prediction against the alternatives; None scores (0, 0)."""
    default_split: str = "test"

    @cached_property
    def lenient(self) -> Callable[[str], Answer | None] | None:
        """Reads what an output may have meant; None where `extract` is the data set's own and no form's reader."""
        from fractionate.scoring.forms import READERS
        from fractionate.scoring.lenient import lenient_reader

        form = next((form for form, reader in READERS.items() if reader.extract is self.extract), None)
        return None if form is None else lenient_reader(form)


@dataclass(frozen=True)
class Scorer:
    """How answers of a user's own rows are read and scored (`data.scorer`), where no data set here does it so.

    Other packages bring them (`fractionate.scorers`); the fields are those of `Dataset`.
    """

    name: str
    metric: Metric
    answer_form: AnswerForm
    extract: Callable[[str], Answer | None]
    score: Callable[[Answer | None, Sequence[Answer]], Score]
