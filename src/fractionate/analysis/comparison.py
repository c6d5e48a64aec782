"""Several systems over the questions that all of them answered: who is better, who is tied, who costs what.

Every pair gets a paired difference with its interval and test, as cells of a run do. Over several pairs the p-values
are Holm's, and "not worse by a margin" is tested one-sided at (1 − confidence) / 2, Holm's again over all pairs: of two
systems at most one can be worse by the margin, so that a pair counts once. Two systems that are not told apart are
tied: that is no proof that they are alike; only the margin can show this.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from fractionate.analysis.statistics import (
    CostDifference,
    Needed,
    bonferroni_confidence,
    holm,
    mean_interval,
    metered_difference,
    paired_difference,
    questions_to_decide,
    score_p,
)
from fractionate.analysis.systems import System
from fractionate.errors import UsageError


@dataclass(frozen=True)
class Placed:
    """One system: the mean of its outcomes (0 to 1) with its interval, and what an answer takes; None is not known.

    `left_out` counts questions of it that another system did not answer, `unscored` answers without an outcome.
    `ties` are the numbers of the groups of tied systems that it belongs to.
    """

    name: str
    value: float
    ci_low: float
    ci_high: float
    input_tokens: float | None
    output_tokens: float | None
    usd: float | None
    left_out: int
    unscored: int
    ties: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """a − b: the difference of their means, its interval, two-sided p-value (and Holm's over all pairs) and test.

    `a_not_worse` says whether a was shown to be less than the margin below b, with Holm's p-value; None without a
    margin. `needed` is how many questions would tell the two apart, None where they are. `usd` is what a costs per
    question more than b, with its interval; None where it is not known.
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


@dataclass(frozen=True)
class Standing:
    """All systems over the same `n` questions, which come in `clusters` independent units, and every pair of them.

    `margin` is a share of 1, 0 where none was given. `ties` are the largest groups of systems that were not told apart.
    """

    n: int
    clusters: int
    confidence: float
    margin: float
    systems: tuple[Placed, ...]
    pairs: tuple[Pair, ...]
    ties: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name; of two systems also those of their one comparison, at the top.

        There `a` and `b` are the two means, `only_a` and `only_b` the questions that the other did not answer.
        """
        table = asdict(self)
        for pair, found in zip(table["pairs"], self.pairs, strict=True):
            pair["needed"] = found.needed._asdict() if found.needed else None
        if len(self.systems) != 2:
            return table
        (a, b), (pair,) = self.systems, self.pairs
        named = ("difference", "ci_low", "ci_high", "p_value", "test")
        one = {"a": a.value, "b": b.value, **{name: getattr(pair, name) for name in named}}
        return {"n": self.n, "clusters": self.clusters, **one, "only_a": a.left_out, "only_b": b.left_out, **table}


def compare_systems(systems: Sequence[System], confidence: float = 0.95, margin: float = 0.0) -> Standing:
    """Compare at least two systems over the questions that all of them answered.

    `margin` is how far below another a system may be and still count as not worse, a share of 1 (0: not asked). Raises
    UsageError where names repeat, no question is shared, an id names different questions or groups, or an outcome lies
    outside 0 to 1.
    """
    names = [system.name for system in systems]
    if len(systems) < 2 or len(set(names)) < len(names):
        raise UsageError(f"at least two systems with names of their own are compared, not {', '.join(names) or 'none'}")
    if not 0 < confidence < 1 or not 0 <= margin < 1:
        raise UsageError("the confidence lies between 0 and 1 (such as 0.95), the margin from 0 to below 100 points")
    questions = _shared(systems)
    groups = _groups(systems, questions)
    rows = {system.name: [system.outcomes[question] for question in questions] for system in systems}
    try:
        pairs = _pairs(systems, questions, rows, groups, confidence, margin)
    except ValueError as error:
        raise UsageError(f"these outcomes cannot be compared: {error}") from None
    ties = tied(names, [(pair.a, pair.b) for pair in pairs if pair.different])
    return Standing(
        n=len(questions),
        clusters=len(set(groups)),
        confidence=confidence,
        margin=margin,
        systems=tuple(_placed(system, questions, groups, rows[system.name], confidence, ties) for system in systems),
        pairs=tuple(pairs),
        ties=tuple(ties),
        notes=tuple(f"{system.name}: {note}" for system in systems for note in system.notes),
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


def _groups(systems: Sequence[System], questions: Sequence[str]) -> list[str]:
    """Return the independent unit of each question: what a log says that it shares with others, else itself."""
    groups = []
    for question in questions:
        named = {system.groups[question]: system.name for system in systems if question in system.groups}
        if len(named) > 1:
            a, b, *_ = named.values()
            raise UsageError(f"{a} and {b} put the question {question!r} in different groups: check --group-field")
        groups.append(next(iter(named), f"the question {question}"))
    return groups


def _pairs(
    systems: Sequence[System],
    questions: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    groups: Sequence[Hashable],
    confidence: float,
    margin: float,
) -> list[Pair]:
    chosen = list(combinations(systems, 2))
    found = [paired_difference(rows[a.name], rows[b.name], confidence, groups) for a, b in chosen]
    adjusted = holm([one.p_value for one in found])
    apart = [[x - y for x, y in zip(rows[a.name], rows[b.name], strict=True)] for a, b in chosen]
    one_sided = [p for gaps in apart for p in _not_worse_p(gaps, margin, groups)] if margin else []
    claims = holm(one_sided, most_true=len(chosen))
    pairs = []
    for place, ((a, b), one) in enumerate(zip(chosen, found, strict=True)):
        different = adjusted[place] < 1 - confidence
        each = bonferroni_confidence(confidence, len(chosen))
        needed = None if different else questions_to_decide(apart[place], 0.0, each, groups=groups)
        a_p, b_p = claims[2 * place : 2 * place + 2] if margin else (None, None)
        cost = _cost(a, b, questions, groups, confidence)
        pairs.append(
            Pair(
                a=a.name,
                b=b.name,
                difference=one.difference,
                ci_low=one.low,
                ci_high=one.high,
                p_value=one.p_value,
                p_adjusted=adjusted[place],
                test=one.test,
                different=different,
                needed=needed,
                a_not_worse=None if a_p is None else a_p < (1 - confidence) / 2,
                a_not_worse_p=a_p,
                b_not_worse=None if b_p is None else b_p < (1 - confidence) / 2,
                b_not_worse_p=b_p,
                usd=cost.difference if cost else None,
                usd_low=cost.low if cost and math.isfinite(cost.low) else None,
                usd_high=cost.high if cost and math.isfinite(cost.high) else None,
            )
        )
    return pairs


def _not_worse_p(gaps: Sequence[float], margin: float, groups: Sequence[Hashable]) -> tuple[float, float]:
    """Return the one-sided p-values of "a is at least the margin below b", and of b below a."""
    ours = score_p(gaps, -1.0, 1.0, groups, at=-margin) / 2
    theirs = score_p(gaps, -1.0, 1.0, groups, at=margin) / 2
    average = math.fsum(gaps) / len(gaps)
    return ours if average > -margin else 1 - ours, theirs if average < margin else 1 - theirs


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


def _placed(
    system: System,
    questions: Sequence[str],
    groups: Sequence[Hashable],
    outcomes: Sequence[float],
    confidence: float,
    ties: Sequence[tuple[str, ...]],
) -> Placed:
    low, high = mean_interval(outcomes, confidence, groups)
    tokens = system.tokens(questions)
    return Placed(
        name=system.name,
        value=math.fsum(outcomes) / len(outcomes),
        ci_low=low,
        ci_high=high,
        input_tokens=tokens[0] if tokens else None,
        output_tokens=tokens[1] if tokens else None,
        usd=system.usd(questions),
        left_out=len(system.outcomes) - len(questions),
        unscored=system.unscored,
        ties=tuple(number for number, group in enumerate(ties, 1) if system.name in group and len(group) > 1),
    )
