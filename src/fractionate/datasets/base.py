"""The interface of a data set: the source of its problems, the reader of answers, the scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fractionate.scoring.scorers import Metric as Metric
from fractionate.scoring.scorers import Scorer as Scorer
from fractionate.types import Answer, Problem, Score
from fractionate.types import AnswerForm as AnswerForm


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
    needs_answers: bool = True
    """Whether a row without an answer is refused. A judge with a rubric needs none."""


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
    by_calls: bool = False
    """Whether calls score an output (a judge, an async function): see `Scorer`."""

    @cached_property
    def lenient(self) -> Callable[[str], Answer | None] | None:
        """Reads what an output may have meant; None where `extract` is the data set's own and no form's reader."""
        from fractionate.scoring.forms import READERS
        from fractionate.scoring.lenient import lenient_reader

        form = next((form for form, reader in READERS.items() if reader.extract is self.extract), None)
        return None if form is None else lenient_reader(form)

    def lenient_score(
        self, output: str, answers: Sequence[Answer], prediction: Answer | None, strict: Score
    ) -> Score | None:
        """Score an output under the lenient reading; None where there is no such reading.

        `prediction` is what `extract` read, and `strict` its score: a stated answer reads the same under both readings.
        """
        if self.lenient is None:
            return None
        return strict if prediction is not None else self.score(self.lenient(output), answers)
