"""`traffic`: what a server has answered (`fractionate serve --record FILE`), as questions to learn from.

Each line of the file is an answered request, a mark of one (feedback), or a shadow's answer to one; the later ones name
the request by its id, and of several marks the last one counts. A question can be learnt from where its right answer
is known: the one given in its mark, or the recorded one if that was marked right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.overlap import folded
from fractionate.errors import UsageError
from fractionate.rows import Row, read_growing
from fractionate.scoring.final import extract_final
from fractionate.scoring.metrics import text_score
from fractionate.types import Answer, Decomposition, Problem, Usage

NAME = "traffic"
RIGHT, CORRECTED = "right", "corrected"
"""Kinds of questions: the recorded answer is right; it is not, and the right one was given."""
UNMARKED = "not marked"
WRONG = "marked wrong, without the right answer"
CONVERSATION = "asked within a conversation or under a system message"
UNREAD = "marked right, but no answer could be read in it"
REPEATED = "asked before"
"""Why an answered request teaches nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """Who decomposed or solved: the name in the run, what it stands for there, and its model."""

    name: str
    kind: str
    model: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer to a question, and how it came about. `cut_off` are the roles whose reply ended at its limit."""

    output: str
    answer: Answer | None
    decomposition: Decomposition | None = None
    sub_answers: tuple[str, ...] = ()
    degraded: bool = False
    cut_off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answering:
    """What one pair made of a question. `usd` is None where no price is known, `failed` says why there is no reply."""

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
    """One answered request. `unlike` says, a word each, why the answer is not of the measured kind.

    `dataset` and `scorer` (`data.scorer`, where the run has one) say how answers are scored. `right` is how the first
    reply was marked, None where it was not; `given` are the right answers that came with the mark.
    """

    id: str
    question: str
    context: str
    dataset: str
    answering: Answering
    scorer: str = ""
    unlike: tuple[str, ...] = ()
    right: bool | None = None
    given: tuple[Answer, ...] = ()
    shadow: Answering | None = None

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The right answers as far as they are known: those given, or the recorded one that was marked right."""
        if self.given or not self.right:
            return self.given
        answer = self.answering.replies[0].answer
        return (answer,) if answer else ()

    @property
    def useless(self) -> str:
        """Why nothing can be learnt from it, "" where something can."""
        if "history" in self.unlike or "system" in self.unlike:
            return CONVERSATION
        if self.right is None:
            return UNMARKED
        if not self.answers:
            return UNREAD if self.right else WRONG
        return ""


def read_exchanges(path: Path) -> list[Exchange]:
    """Read a record of traffic, each request with its last mark. Raises UsageError naming a line that is none.

    Marks and shadows of requests that are not in the file are passed over.
    """
    found: dict[str, Exchange] = {}
    for row in read_growing(path):
        try:
            _read(row, found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise row.error(
                f"no line of a record of traffic ({type(error).__name__}: {error}): fractionate serve --record makes it"
            ) from None
    return list(found.values())


def learnable(exchanges: Iterable[Exchange]) -> tuple[list[Exchange], Counter[str]]:
    """Return the requests that can be learnt from, each question once, and counts by reason of the others."""
    kept: dict[tuple[str, str], Exchange] = {}
    left_out: Counter[str] = Counter()
    for one in exchanges:
        question = folded(one.question), folded(one.context)
        if one.useless:
            left_out[one.useless] += 1
        elif question in kept:
            left_out[REPEATED] += 1
        else:
            kept[question] = one
    return list(kept.values()), left_out


def problem_of(exchange: Exchange, index: int) -> Problem:
    """Return the question of a request as a problem; its answers are read and scored as those of its data set."""
    return Problem(
        exchange.id,
        exchange.question,
        exchange.answers,
        exchange.context,
        exchange.dataset,
        index=index,
        kind=RIGHT if exchange.right else CORRECTED,
    )


def _read(row: Row, found: dict[str, Exchange]) -> None:
    values = row.values
    if "feedback" in values:
        marked = found.get(values["feedback"])
        if marked:
            given = tuple(tuple(map(str, answer)) for answer in values.get("answers") or ())
            found[marked.id] = replace(marked, right=bool(values["right"]), given=given)
    elif "shadow" in values:
        shadowed = found.get(values["shadow"])
        if shadowed:
            found[shadowed.id] = replace(shadowed, shadow=_answering(values))
    else:
        exchange = Exchange(
            id=str(values["id"]),
            question=str(values["question"]),
            context=str(values["context"]),
            dataset=str(values["dataset"]),
            answering=_answering(values),
            scorer=str(values["scorer"]),
            unlike=tuple(map(str, values["unlike"])),
        )
        found.setdefault(exchange.id, exchange)


def _answering(values: Mapping[str, Any]) -> Answering:
    failed = str(values.get("failed") or "")
    replies = tuple(map(_reply, values["replies"]))
    if not (replies or failed):
        raise ValueError("no replies")
    return Answering(
        pair=str(values["pair"]),
        strategy=str(values["strategy"]),
        decomposer=Part(**values["decomposer"]),
        solver=Part(**values["solver"]),
        replies=replies,
        usage={role: Usage(**usage) for role, usage in values["usage"].items()},
        usd=values["usd"]["total"],
        latency_s=float(values["latency_s"]),
        failed=failed,
    )


def _reply(values: Mapping[str, Any]) -> Reply:
    made = values["decomposition"]
    return Reply(
        output=str(values["output"]),
        answer=_answer(values["answer"]),
        decomposition=Decomposition(tuple(made["subquestions"]), made["status"], made["raw"], made["dropped"])
        if made
        else None,
        sub_answers=tuple(values["sub_answers"]),
        degraded=bool(values["degraded"]),
        cut_off=tuple(values["cut_off"]),
    )


def _answer(value: Sequence[str] | None) -> Answer | None:
    return None if value is None else tuple(value)


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
    source="what a server has answered (fractionate serve --record)",
    licence="the askers' own",
    metric="exact_match",
    answer_form="text",
    default_cap=3,
    load=_load,
    extract=extract_final,
    score=text_score,
    default_split="",
)
