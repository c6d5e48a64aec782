"""Several systems over the questions that all of them answered: which is better, which are tied, and what each costs.

Every pair gets a paired difference with its interval and test, as cells of a run do. Over several pairs the p-values
are Holm's, and "not worse by a margin" is tested one-sided at (1 − confidence) / 2, Holm's again over all pairs: of two
systems at most one can be worse by the margin, so that a pair counts once. Two systems that are not told apart are
tied: that is no proof that they are alike; only the margin can show this.

An unparsed output counts as wrong, which is a fault of its format and perhaps not of its answer. So each pair is also
compared over the outputs that were parsed in both, and under the lenient reading; and where more than half of a
system's outputs are unparsed, nothing is compared at all: the scorer does not fit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from fractionate.analysis.contrasts import Paired, compare_paired, mean
from fractionate.analysis.judged import compare_corrected, corrected_mean, gaps_of, judge_notes, not_worse_p, value_of
from fractionate.analysis.rule import question_points
from fractionate.analysis.systems import System
from fractionate.errors import UsageError
from fractionate.statistics import (
    CostDifference,
    Needed,
    bonferroni_confidence,
    holm,
    mean_interval,
    metered_difference,
    questions_to_decide,
)

_CONTRACT = ("difference", "ci_low", "ci_high", "p_value", "test")


@dataclass(frozen=True)
class SystemResult:
    """One system: the mean of its outcomes (0 to 1) with its interval, and what an answer takes; None is not known.

    `unparsed` is the share of answers that could not be parsed, `lenient` the mean outcome under the lenient reading.
    `left_out` counts questions of it that another system did not answer, `unscored` answers without an outcome.
    `ties` are the numbers of the groups of tied systems that it belongs to. `misfit` says that its scorer does not fit.
    `judge` is the identity of the judge that scored it, `labels` how many labels by people correct that (0: none).
    """

    name: str
    value: float
    ci_low: float
    ci_high: float
    unparsed: float | None
    lenient: float | None
    input_tokens: float | None
    output_tokens: float | None
    usd: float | None
    left_out: int
    unscored: int
    ties: tuple[int, ...]
    misfit: str = ""
    judge: str = ""
    labels: int = 0


@dataclass(frozen=True)
class Difference:
    """a − b over a part of the questions, or under another reading, with its interval."""

    n: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float

    @classmethod
    def of(cls, found: Paired) -> Difference:
        """Return the difference of a comparison."""
        return cls(found.n, found.difference, found.ci_low, found.ci_high, found.p_value)


@dataclass(frozen=True)
class PairResult:
    """a − b: the difference of their means, its interval, two-sided p-value (and Holm's over all pairs) and test.

    `a_not_worse` says whether a was shown to be less than the margin below b, with Holm's p-value; None without a
    margin. `needed` is how many questions would tell the two apart, None where they are. `usd` is what a costs per
    question more than b, with its interval; None where it is not known. `parsed` is the difference over the questions
    whose outputs were parsed in both, `lenient` that under the lenient reading; None where these are not known.
    `format_may_explain`: the shares of unparsed outputs differ by more than the outcomes do.
    """

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_adjusted: float
    test: str
    different: bool
    needed: Needed | None
    a_not_worse: bool | None = None
    a_not_worse_p: float | None = None
    b_not_worse: bool | None = None
    b_not_worse_p: float | None = None
    usd: float | None = None
    usd_low: float | None = None
    usd_high: float | None = None
    parsed: Difference | None = None
    lenient: Difference | None = None
    format_may_explain: bool = False


@dataclass(frozen=True)
class Comparison:
    """All systems over the same `n` questions, which come in `clusters` independent units, and every pair of them.

    `margin` is in percentage points, 0 where none was given. `ties` are the largest groups of systems that were not
    told apart. There are no pairs where the scorer of a system does not fit.
    """

    n: int
    clusters: int
    confidence: float
    margin: float
    systems: tuple[SystemResult, ...]
    pairs: tuple[PairResult, ...]
    ties: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def misfits(self) -> list[str]:
        """What is said of each system whose scorer does not fit."""
        return [f"{one.name}: {one.misfit}" for one in self.systems if one.misfit]

    def shows(self, claim: str) -> bool:
        """Return whether the first of two systems is shown "not-worse" than the second by the margin, or "better".

        Raises UsageError for other than two systems, or "not-worse" without a margin.
        """
        if len(self.systems) != 2:
            raise UsageError(f"a claim (--require {claim}) is about two systems, not {len(self.systems)}")
        if claim == "not-worse" and not self.margin:
            raise UsageError("not-worse needs a margin: add --margin, in percentage points, such as --margin 2")
        if not self.pairs:
            return False
        pair = self.pairs[0]
        return bool(pair.a_not_worse) if claim == "not-worse" else pair.different and pair.difference > 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; of two systems also those of their one comparison, at the top.

        There `a` and `b` are the two means, `only_a` and `only_b` the questions that the other did not answer. The
        difference and its test are null where the scorer does not fit.
        """
        table = asdict(self)
        for pair, found in zip(table["pairs"], self.pairs, strict=True):
            pair["needed"] = found.needed._asdict() if found.needed else None
        if len(self.systems) != 2:
            return table
        a, b = self.systems
        pair = self.pairs[0] if self.pairs else None
        one = {"a": a.value, "b": b.value, **{name: getattr(pair, name, None) for name in _CONTRACT}}
        return {"n": self.n, "clusters": self.clusters, **one, "only_a": a.left_out, "only_b": b.left_out, **table}


@dataclass(frozen=True)
class PairedComparison:
    """a − b over `n` shared questions: both means, the difference with its interval, the test and its p-value.

    `clusters` are the independent units that the questions come in; `only_a` are questions of a that b did not answer,
    which do not count.
    """

    n: int
    clusters: int
    a: float
    b: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    confidence: float
    only_a: int
    only_b: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def compare_two(a: System, b: System, confidence: float = 0.95) -> PairedComparison:
    """Compare two systems over the questions that both answered; compare(b, a) is its mirror image.

    Raises UsageError where no question is shared, the two put one question in different groups, or an outcome lies
    outside 0 to 1.
    """
    questions = _shared([a, b])
    try:
        found = _compared(a.outcomes, b.outcomes, questions, _groups([a, b], questions), confidence)
    except ValueError as error:
        raise UsageError(f"these outcomes cannot be compared: {error}") from None
    return PairedComparison(
        found.n,
        found.clusters,
        found.value,
        found.reference_value,
        found.difference,
        found.ci_low,
        found.ci_high,
        found.p_value,
        found.test,
        confidence,
        len(a.outcomes) - found.n,
        len(b.outcomes) - found.n,
    )


def compare_systems(systems: Sequence[System], confidence: float = 0.95, margin: float = 0.0) -> Comparison:
    """Compare at least two systems over the questions that all of them answered.

    `margin` is how far below another a system may be and still count as not worse, in percentage points (0: not asked).
    Raises UsageError where names repeat, no question is shared, an id names different questions or groups, or an
    outcome lies outside 0 to 1.
    """
    names = [system.name for system in systems]
    if len(systems) < 2 or len(set(names)) < len(names):
        raise UsageError(f"at least two systems with names of their own are compared, not {', '.join(names) or 'none'}")
    if not 0 < confidence < 1 or not 0 <= margin < 100:
        raise UsageError("the confidence lies between 0 and 1 (such as 0.95), the margin from 0 to below 100")
    if doubt := question_points(margin):
        warnings.warn(f"margin={margin:g}: {doubt}", stacklevel=2)
    questions = _shared(systems)
    groups = _groups(systems, questions)
    fits = not any(system.misfit for system in systems)
    try:
        pairs = _pairs(systems, questions, groups, confidence, margin / 100) if fits else []
        ties = tied(names, [(pair.a, pair.b) for pair in pairs if pair.different]) if fits else []
        results = tuple(_result(system, questions, groups, confidence, ties) for system in systems)
    except ValueError as error:
        raise UsageError(f"these outcomes cannot be compared: {error}") from None
    return Comparison(
        n=len(questions),
        clusters=len(set(groups.values())),
        confidence=confidence,
        margin=margin,
        systems=results,
        pairs=tuple(pairs),
        ties=tuple(ties),
        notes=(*(f"{system.name}: {note}" for system in systems for note in system.notes), *judge_notes(systems)),
    )


def tied(names: Sequence[str], different: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Return the largest groups without a pair that is told apart, each in the order of `names`.

    Every pair told apart splits the groups that hold both; groups inside another go. Piepho, J. Comput. Graph. Stat. 13
    (2004) 456, where each group is a letter.
    """
    groups = [frozenset(names)]
    for pair in different:
        parts = [
            part
            for group in groups
            for part in ([group - {one} for one in pair] if group.issuperset(pair) else [group])
        ]
        groups = [group for group in dict.fromkeys(parts) if not any(group < other for other in parts)]
    ordered = [tuple(name for name in names if name in group) for group in groups]
    return sorted(ordered, key=lambda group: [names.index(name) for name in group])


def _shared(systems: Sequence[System]) -> list[str]:
    first, *others = systems
    shared = [question for question in first.outcomes if all(question in other.outcomes for other in others)]
    if not shared:
        examples = " and ".join(f"{next(iter(system.outcomes))!r} in {system.name}" for system in systems)
        raise UsageError(f"no question was answered by all: ids must agree (the first are {examples})")
    for other in others:
        if first.source != other.source:
            continue  # two kinds of log write a question in two ways
        wrong = [
            question
            for question in shared
            if (mine := first.by_question[question][0].question)
            and (theirs := other.by_question[question][0].question)
            and mine != theirs
        ]
        if wrong:
            raise UsageError(
                f"{len(wrong)} of {len(shared)} ids name other questions in {first.name} than in {other.name} (first: "
                f"{wrong[0]!r}): match them by a field that both share, with --id-field"
            )
    return shared


def _groups(systems: Sequence[System], questions: Sequence[str]) -> dict[str, str]:
    """Return the independent unit of each question: what any of the logs says that it shares with others, else itself.

    Every system is asked, so that the order of the systems does not matter.
    """
    groups = {}
    for question in questions:
        named = {system.groups[question]: system.name for system in systems if question in system.groups}
        if len(named) > 1:
            a, b, *_ = named.values()
            raise UsageError(f"{a} and {b} put the question {question!r} in different groups: check --group-field")
        groups[question] = next(iter(named), f"the question {question}")
    return groups


def _compared(
    a: Mapping[str, float],
    b: Mapping[str, float],
    questions: Sequence[str],
    groups: Mapping[str, str],
    confidence: float,
) -> Paired:
    ours, others = ([of[question] for question in questions] for of in (a, b))
    return compare_paired([ours], [others], confidence, [groups[question] for question in questions])


def _pairs(
    systems: Sequence[System], questions: Sequence[str], groups: Mapping[str, str], confidence: float, margin: float
) -> list[PairResult]:
    chosen = list(combinations(systems, 2))
    units = [groups[question] for question in questions]
    gaps = [gaps_of(a, b, questions, units) for a, b in chosen]
    found = [
        _compared(a.outcomes, b.outcomes, questions, groups, confidence)
        if of_pair.by_people is None
        else compare_corrected(of_pair.by_people, value_of(b, questions, units), confidence, units)
        for (a, b), of_pair in zip(chosen, gaps, strict=True)
    ]
    adjusted = holm([one.p_value for one in found])
    one_sided = [p for of_pair in gaps for p in not_worse_p(of_pair, margin, units)] if margin else []
    claims = holm(one_sided, most_true=len(chosen))
    each = bonferroni_confidence(confidence, len(chosen))
    pairs = []
    for place, ((a, b), one) in enumerate(zip(chosen, found, strict=True)):
        different = adjusted[place] < 1 - confidence
        a_p, b_p = claims[2 * place : 2 * place + 2] if margin else (None, None)
        cost = _cost(a, b, questions, units, confidence)
        unparsed = a.unparsed_share(questions), b.unparsed_share(questions)
        pairs.append(
            PairResult(
                a=a.name,
                b=b.name,
                difference=one.difference,
                ci_low=one.ci_low,
                ci_high=one.ci_high,
                p_value=one.p_value,
                p_adjusted=adjusted[place],
                test=one.test,
                different=different,
                needed=None
                if different
                else questions_to_decide(
                    gaps[place].values, 0.0, each, groups=units, bounds=(gaps[place].least, gaps[place].most)
                ),
                a_not_worse=None if a_p is None else a_p < (1 - confidence) / 2,
                a_not_worse_p=a_p,
                b_not_worse=None if b_p is None else b_p < (1 - confidence) / 2,
                b_not_worse_p=b_p,
                usd=cost.difference if cost else None,
                usd_low=cost.low if cost and math.isfinite(cost.low) else None,
                usd_high=cost.high if cost and math.isfinite(cost.high) else None,
                parsed=_over_parsed(a, b, questions, groups, confidence),
                lenient=_leniently(a, b, questions, groups, confidence),
                format_may_explain=None not in unparsed
                and abs((unparsed[0] or 0.0) - (unparsed[1] or 0.0)) > abs(one.difference),
            )
        )
    return pairs


def _over_parsed(
    a: System, b: System, questions: Sequence[str], groups: Mapping[str, str], confidence: float
) -> Difference | None:
    """Return the difference over the questions whose every answer was parsed; None where parsing is not known."""
    if a.unparsed_share(questions) is None or b.unparsed_share(questions) is None:
        return None
    parsed = [question for question in questions if question not in a.with_unparsed | b.with_unparsed]
    if not parsed:
        return None
    return Difference.of(_compared(a.outcomes, b.outcomes, parsed, groups, confidence))


def _leniently(
    a: System, b: System, questions: Sequence[str], groups: Mapping[str, str], confidence: float
) -> Difference | None:
    if a.lenient_outcomes is None or b.lenient_outcomes is None:
        return None
    return Difference.of(_compared(a.lenient_outcomes, b.lenient_outcomes, questions, groups, confidence))


def _cost(
    a: System, b: System, questions: Sequence[str], groups: Sequence[Hashable], confidence: float
) -> CostDifference | None:
    ours, theirs = a.metered(questions), b.metered(questions)
    if ours is None or theirs is None:
        return None
    measured = [any(not isinstance(part.rates, int | float) for part in parts) for parts in (ours, theirs)]
    if all(measured) and a.calibration != b.calibration:
        return None  # speeds that were measured apart: what slowed one run did not slow the other
    return metered_difference(ours, theirs, confidence, groups)


def _result(
    system: System,
    questions: Sequence[str],
    groups: Mapping[str, str],
    confidence: float,
    ties: Sequence[tuple[str, ...]],
) -> SystemResult:
    outcomes = [system.outcomes[question] for question in questions]
    units = [groups[question] for question in questions]
    by_people = corrected_mean(system, questions, units)
    low, high = by_people.interval(confidence, units) if by_people else mean_interval(outcomes, confidence, units)
    tokens = system.tokens(questions)
    lenient = system.lenient_outcomes
    return SystemResult(
        name=system.name,
        value=by_people.estimate if by_people else mean(outcomes),
        ci_low=low,
        ci_high=high,
        unparsed=system.unparsed_share(questions),
        lenient=None if lenient is None else mean([lenient[question] for question in questions]),
        input_tokens=tokens[0] if tokens else None,
        output_tokens=tokens[1] if tokens else None,
        usd=system.usd(questions),
        left_out=len(system.outcomes) - len(questions),
        unscored=system.unscored,
        ties=tuple(number for number, group in enumerate(ties, 1) if system.name in group and len(group) > 1),
        misfit=system.misfit,
        judge=system.judge,
        labels=by_people.n_gold if by_people else 0,
    )
