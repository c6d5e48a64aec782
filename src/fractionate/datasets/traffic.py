"""`traffic`: the answers of a server (`fractionate serve --record FILE`), as questions to learn from.

Each line of the file is an answered request, feedback on one, or a shadow's answer to one; feedback and shadows name
the request by its id, and the latest feedback counts. A question can be learnt from where its right answer is known:
the one that its feedback gives, or the recorded one where feedback says that it is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, ValidationError
from pydantic_core import to_json

from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.overlap import folded
from fractionate.errors import UsageError
from fractionate.rows import Row, read_growing
from fractionate.scoring.final import extract_final
from fractionate.scoring.metrics import text_score
from fractionate.types import Answer, Decomposition, Problem, Usage

NAME = "traffic"
RIGHT, CORRECTED = "right", "corrected"
"""Kinds of questions: the recorded answer is right; it is wrong, and feedback gave the right one."""
NO_FEEDBACK = "without feedback"
WRONG = "wrong by feedback that gave no right answer"
CONVERSATION = "asked within a conversation or under a system message"
UNPARSED = "right by feedback, but without a parsed answer"
REPEATED = "asked before"
"""Why an answered request teaches nothing."""
_MOST_TOKENS = 1 << 53
"""The largest count in a usage: whole numbers above it are not exact in JSON."""


@dataclass(frozen=True, slots=True)
class Part:
    """A decomposer or solver: its name in the run, its kind there, and its model."""

    name: str
    kind: str
    model: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer to a question, and its steps. `cut_off` holds the roles whose reply ended at its token limit."""

    output: str
    answer: Answer | None
    decomposition: Decomposition | None = None
    sub_answers: tuple[str, ...] = ()
    degraded: bool = False
    cut_off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answering:
    """One pair's answer to a question. `usd` is None where no price is known; `failed` says why there is no reply."""

    pair: str
    strategy: str
    decomposer: Part
    solver: Part
    replies: tuple[Reply, ...]
    usage: Mapping[str, Usage] = field(default_factory=dict)
    usd: float | None = None
    latency_s: float = 0.0
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answered request. `deviations` says why the answer is not of the measured kind, a word each.

    `dataset` and `scorer` (`data.scorer`, where the run has one) say how answers are scored. `right` is the feedback
    on the first reply, None where there is none; `given` are the right answers that came with the feedback.
    """

    id: str
    question: str
    context: str
    dataset: str
    answering: Answering
    scorer: str = ""
    deviations: tuple[str, ...] = ()
    right: bool | None = None
    given: tuple[Answer, ...] = ()
    shadow: Answering | None = None

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The known right answers: those that feedback gave, or the recorded one where feedback says it is right."""
        if self.given or not self.right:
            return self.given
        answer = self.answering.replies[0].answer
        return (answer,) if answer else ()

    @property
    def unusable(self) -> str:
        """Why nothing can be learnt from it, "" where something can."""
        if "history" in self.deviations or "system" in self.deviations:
            return CONVERSATION
        if self.right is None:
            return NO_FEEDBACK
        if not self.answers:
            return UNPARSED if self.right else WRONG
        return ""


def is_traffic(values: Mapping[str, Any]) -> bool:
    """Return whether a row is a line of a record of traffic, by its fields and their types."""
    if isinstance(values.get("feedback"), str):
        return isinstance(values.get("right"), bool) and values.keys() <= {"feedback", "time", "right", "answers"}
    named = isinstance(values.get("id", values.get("shadow")), str) and isinstance(values.get("pair"), str)
    return named and isinstance(values.get("replies"), list) and "latency_s" in values


def read_exchanges(path: Path) -> list[Exchange]:
    """Read a record of traffic: each request with its latest feedback. Raises UsageError naming a faulty line.

    Feedback and shadows of requests that are not in the file are ignored.
    """
    found: dict[str, Exchange] = {}
    for row in read_growing(path):
        try:
            to_json(row.values)  # text that cannot be written again: half of a surrogate pair
            _read(row, found)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise _not_traffic(row, f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
        except ValueError as error:
            raise _not_traffic(row, str(error).splitlines()[0]) from None
    return list(found.values())


def learnable(exchanges: Iterable[Exchange]) -> tuple[list[Exchange], Counter[str]]:
    """Return the requests that can be learnt from, each question once, and counts of the others by reason."""
    kept: dict[tuple[str, str], Exchange] = {}
    left_out: Counter[str] = Counter()
    for one in exchanges:
        question = folded(one.question), folded(one.context)
        if one.unusable:
            left_out[one.unusable] += 1
        elif question in kept:
            left_out[REPEATED] += 1
        else:
            kept[question] = one
    return list(kept.values()), left_out


def problem_of(exchange: Exchange, index: int) -> Problem:
    """Return the question of a request as a problem; its data set's scorer applies."""
    return Problem(
        exchange.id,
        exchange.question,
        exchange.answers,
        exchange.context,
        exchange.dataset,
        index=index,
        kind=RIGHT if exchange.right else CORRECTED,
    )


def _plausible(usage: Usage) -> Usage:
    counts = (usage.calls, usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens)
    if not all(0 <= count <= _MOST_TOKENS for count in counts):
        raise ValueError("a count is negative or too large")
    return usage


class _Line(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class _Dollars(_Line):
    total: float | None


class _Answering(_Line):
    pair: str
    strategy: str
    decomposer: Part
    solver: Part
    replies: tuple[Reply, ...]
    usage: dict[str, Annotated[Usage, AfterValidator(_plausible)]]
    usd: _Dollars
    latency_s: float
    failed: str = ""

    def answering(self) -> Answering:
        """Return the answer. Raises ValueError where there is neither a reply nor a failure."""
        if not (self.replies or self.failed):
            raise ValueError("no replies")
        of_pair = (self.pair, self.strategy, self.decomposer, self.solver, self.replies)
        return Answering(*of_pair, self.usage, self.usd.total, self.latency_s, self.failed)


class _Answered(_Answering):
    id: str
    question: str
    context: str
    dataset: str
    scorer: str


class _Shadow(_Answering):
    shadow: str


class _Feedback(_Line):
    feedback: str
    right: StrictBool
    answers: tuple[Answer, ...] = ()


class _Deviations(_Line):
    deviations: tuple[str, ...]


def _read(row: Row, found: dict[str, Exchange]) -> None:
    values = row.values
    if "feedback" in values:
        feedback = _Feedback.model_validate(values)
        if feedback.feedback in found:
            exchange = found[feedback.feedback]
            found[exchange.id] = replace(exchange, right=feedback.right, given=feedback.answers)
    elif "shadow" in values:
        shadow = _Shadow.model_validate(values)
        if shadow.shadow in found:
            found[shadow.shadow] = replace(found[shadow.shadow], shadow=shadow.answering())
    else:
        line = _Answered.model_validate(values)
        # The field's name in records made by 0.1 is `unlike`.
        told = _Deviations.model_validate({"deviations": values.get("deviations", values.get("unlike"))})
        exchange = Exchange(
            line.id, line.question, line.context, line.dataset, line.answering(), line.scorer, told.deviations
        )
        if not exchange.answering.replies:
            raise ValueError("no replies")
        found.setdefault(exchange.id, exchange)


def _not_traffic(row: Row, why: str) -> UsageError:
    return row.error(f"no line of a record of traffic ({why[:200]}): fractionate serve --record makes it")


def _load(reference: Reference) -> Iterator[Problem]:
    if not reference.path:
        raise UsageError(f"{reference.text!r} names no file: write traffic:PATH")
    if reference.split:
        raise UsageError(f"{reference.text!r}: a record of traffic has no splits: leave #{reference.split} out")
    kept, _ = learnable(read_exchanges(Path(reference.path)))
    for index, exchange in enumerate(kept):
        yield problem_of(exchange, index)


DATASET = Dataset(
    name=NAME,
    source="answers of a server (fractionate serve --record)",
    licence="the clients' own",
    metric="exact_match",
    answer_form="text",
    default_cap=3,
    load=_load,
    extract=extract_final,
    score=text_score,
    default_split="",
)
