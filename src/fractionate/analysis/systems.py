"""One system's answers to a set of questions, wherever they were logged: outcomes, what questions share, and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fractionate.analysis.contrasts import mean
from fractionate.analysis.costs import metered
from fractionate.analysis.pricing import Pricing
from fractionate.errors import UsageError
from fractionate.statistics import Metered
from fractionate.statistics.clusters import Values
from fractionate.types import Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of a system to one question. `outcome` is 0 to 1, None where the log holds no score for it.

    `repeat` tells several answers to one question apart. `question` is what the question says (or a digest of it),
    `group` what it shares with others, such as its passage; both are "" where the log does not say. `usage` is by
    model; `usd` are the dollars that the log itself states. `unparsed` says whether no answer could be parsed out of
    the output, `lenient` is the outcome under the lenient reading; None where the log does not say.
    `label` is a person's, 0 to 1, where a judge gave the outcome; NaN for none.
    """

    question_id: str
    outcome: float | None
    group: str = ""
    question: str = ""
    usage: Mapping[str, Usage] = field(default_factory=dict)
    usd: float | None = None
    repeat: str = ""
    unparsed: bool | None = None
    lenient: float | None = None
    label: float | None = None


@dataclass(frozen=True)
class System:
    """A system under comparison: its answers, in the order of its log.

    Several answers to one question count by their mean. `source` is the kind of log, `notes` what a reader of the
    comparison must know of it. `pricing` has the prices that its dollars are computed at; `calibration` names the run
    whose measured speeds they rest on, if any. `misfit` says that its scorer does not fit: more than half of its
    outputs are unparsed. `judge` is the identity of the judge that scored it, if one did.
    """

    name: str
    answers: tuple[Answered, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    pricing: Pricing = field(default_factory=Pricing)
    calibration: str = ""
    misfit: str = ""
    judge: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError where a question was answered twice under one `repeat`, and where nothing has an outcome."""
        seen = set()
        for one in self.answers:
            if (one.question_id, one.repeat) in seen:
                raise UsageError(
                    f"{self.name}: the question {one.question_id!r} was answered twice: ids must be unique (several "
                    "answers to one question are told apart by a field 'epoch', or read with --repeats)"
                )
            seen.add((one.question_id, one.repeat))
        if not self.by_question:
            what = "no answers" if not self.answers else f"{len(self.answers)} answers, none with an outcome"
            raise UsageError(f"{self.name} holds {what}: there is nothing to compare")

    @cached_property
    def by_question(self) -> dict[str, list[Answered]]:
        """The answers that have an outcome, by question, in the order of the log."""
        found: dict[str, list[Answered]] = {}
        for one in self.answers:
            if one.outcome is not None:
                found.setdefault(one.question_id, []).append(one)
        return found

    @cached_property
    def outcomes(self) -> dict[str, float]:
        """The mean outcome of each question, 0 to 1."""
        return {
            name: mean([one.outcome for one in ones if one.outcome is not None])
            for name, ones in self.by_question.items()
        }

    @cached_property
    def groups(self) -> dict[str, str]:
        """What each question shares with others, where the log says so.

        Raises UsageError where several answers to one question name different groups.
        """
        found = {}
        for name, ones in self.by_question.items():
            named = {one.group for one in ones if one.group}
            if len(named) > 1:
                raise UsageError(f"{self.name} puts the question {name!r} in several groups: check --group-field")
            if named:
                found[name] = named.pop()
        return found

    @cached_property
    def lenient_outcomes(self) -> dict[str, float] | None:
        """The mean outcome of each question under the lenient reading; None where an answer has none."""
        found = {
            name: [one.lenient for one in ones if one.lenient is not None] for name, ones in self.by_question.items()
        }
        complete = all(len(found[name]) == len(ones) for name, ones in self.by_question.items())
        return {name: mean(ones) for name, ones in found.items()} if complete else None

    @cached_property
    def labels(self) -> dict[str, float]:
        """The mean label by people of each question, NaN unless all its answers have one."""
        found = {}
        for name, ones in self.by_question.items():
            each = [math.nan if one.label is None else one.label for one in ones]
            found[name] = math.nan if any(one != one for one in each) else mean(each)
        return found

    @cached_property
    def with_unparsed(self) -> frozenset[str]:
        """The questions with an unparsed answer."""
        return frozenset(name for name, ones in self.by_question.items() if any(one.unparsed for one in ones))

    def unparsed_share(self, questions: Sequence[str]) -> float | None:
        """Return the share of answers that could not be parsed, each question counting one; None where not known."""
        answers = self._answers_to(questions)
        if any(one.unparsed is None for one in answers):
            return None
        return mean(_by_question([float(bool(one.unparsed)) for one in answers], answers, questions))

    @property
    def unscored(self) -> int:
        """How many answers have no outcome: they are left out."""
        return sum(one.outcome is None for one in self.answers)

    def tokens(self, questions: Sequence[str]) -> tuple[float, float] | None:
        """Return mean tokens read and written per answer; None where the log has no usage for one of them."""
        answers = self._answers_to(questions)
        if not all(one.usage for one in answers):
            return None
        totals = [sum(one.usage.values(), Usage()) for one in answers]
        read = _by_question([total.input_tokens for total in totals], answers, questions)
        written = _by_question([total.output_tokens for total in totals], answers, questions)
        return mean(read), mean(written)

    def metered(self, questions: Sequence[str]) -> list[Metered] | None:
        """Return what an answer to each question takes, by model; None where its dollars are not known.

        Usage at known prices wins over dollars that the log states.
        """
        answers = self._answers_to(questions)
        models = dict.fromkeys(model for one in answers for model in one.usage)
        if all(one.usage for one in answers) and all(self._is_priced(model, answers) for model in models):
            return [
                Metered(_by_question(part.amounts, answers, questions), part.rates)
                for model in models
                for part in metered(self.pricing, model, [one.usage.get(model, Usage()) for one in answers])
            ]
        stated = [one.usd for one in answers if one.usd is not None]
        return [Metered(_by_question(stated, answers, questions), 1.0)] if len(stated) == len(answers) else None

    def usd(self, questions: Sequence[str]) -> float | None:
        """Return the mean dollars of an answer, None where they are not known."""
        parts = self.metered(questions)
        if parts is None:
            return None
        rates = [part.rates if isinstance(part.rates, int | float) else mean(part.rates) for part in parts]
        return sum(mean(part.amounts) * rate for part, rate in zip(parts, rates, strict=True))

    def _is_priced(self, model: str, answers: Sequence[Answered]) -> bool:
        return all(self.pricing.usd(model, one.usage[model]) is not None for one in answers if model in one.usage)

    def _answers_to(self, questions: Sequence[str]) -> list[Answered]:
        return [one for question in questions for one in self.by_question[question]]


def _by_question(amounts: Values, answers: Sequence[Answered], questions: Sequence[str]) -> list[float]:
    """Return the mean amount of the answers to each question."""
    found: dict[str, list[float]] = {question: [] for question in questions}
    for amount, one in zip(amounts, answers, strict=True):
        found[one.question_id].append(amount)
    return [mean(of_question) for of_question in found.values()]
