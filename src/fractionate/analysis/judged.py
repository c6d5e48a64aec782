"""Systems that a judge scored: their outcomes and differences, corrected by labels of people where there are enough."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from fractionate.analysis.contrasts import Paired, mean
from fractionate.analysis.systems import System
from fractionate.scoring.labels import OPINION, measure
from fractionate.statistics import score_p
from fractionate.statistics.prediction_powered import LEAST_GOLD, Corrected, corrected


def compare_corrected(
    difference: Corrected, reference_value: float, confidence: float, groups: Sequence[Hashable]
) -> Paired:
    """Compare two systems that a judge scored, corrected by labels; `reference_value` is b's corrected mean.

    The difference is corrected by itself, from the questions with a label in both, so it is not exactly the difference
    of the two corrected means: the mean of a is given as that of b plus the difference.
    """
    low, high = difference.interval(confidence, groups)
    return Paired(
        n=len(difference.values),
        value=reference_value + difference.estimate,
        reference_value=reference_value,
        difference=difference.estimate,
        ci_low=max(low, -1.0),
        ci_high=min(high, 1.0),
        p_value=score_p(difference.values, difference.least, difference.most, groups),
        test="prediction-powered",
        confidence=confidence,
        clusters=len(set(groups)),
        seeds=1,
        by_seed=(),
    )


class Gaps(NamedTuple):
    """a − b of each question, where it lies, and whether labels by people corrected it."""

    values: Sequence[float]
    least: float = -1.0
    most: float = 1.0
    by_people: Corrected | None = None


def gaps_of(a: System, b: System, questions: Sequence[str], units: Sequence[str]) -> Gaps:
    """Return the differences of two systems; `units` are what questions share, question by question."""
    import numpy as np

    judged = [a.outcomes[question] - b.outcomes[question] for question in questions]
    if not (a.judge and b.judge):
        return Gaps(judged)
    gold = np.array([a.labels[question] - b.labels[question] for question in questions])
    if int((~np.isnan(gold)).sum()) < LEAST_GOLD:
        return Gaps(judged)
    found = corrected(gold, np.array(judged), units, least=-1.0, most=1.0)
    return Gaps(found.values.tolist(), found.least, found.most, found)


def corrected_mean(system: System, questions: Sequence[str], units: Sequence[str]) -> Corrected | None:
    """Return a judged system's outcomes corrected by labels; None where too few questions have one."""
    import numpy as np

    if not system.judge:
        return None
    gold = np.array([system.labels[question] for question in questions])
    if int((~np.isnan(gold)).sum()) < LEAST_GOLD:
        return None
    return corrected(gold, np.array([system.outcomes[question] for question in questions]), units)


def value_of(system: System, questions: Sequence[str], units: Sequence[str]) -> float:
    """Return a system's mean outcome, corrected by labels where there are enough."""
    by_people = corrected_mean(system, questions, units)
    return by_people.estimate if by_people else mean([system.outcomes[question] for question in questions])


def not_worse_p(gaps: Gaps, margin: float, groups: Sequence[Hashable]) -> tuple[float, float]:
    """Return the one-sided p-values of "a is at least the margin below b", and of b below a.

    The score test is two-sided; its half is one-sided on the side where the mean lies, and the rest on the other.
    """
    ours = score_p(gaps.values, gaps.least, gaps.most, groups, at=-margin) / 2
    theirs = score_p(gaps.values, gaps.least, gaps.most, groups, at=margin) / 2
    average = mean(gaps.values)
    return ours if average > -margin else 1 - ours, theirs if average < margin else 1 - theirs


def judge_notes(systems: Sequence[System]) -> Iterator[str]:
    """Yield what there is to say of the judges that scored the systems."""
    import numpy as np

    judged = [system for system in systems if system.judge]
    if not judged:
        return
    if len({system.judge for system in judged}) > 1 or len(judged) < len(systems):
        yield "the systems were scored by different judges or scorers, so their outcomes are not comparable"
    for judge in dict.fromkeys(system.judge for system in judged):
        yield f"outcomes are scored by a judge: {judge}"
    gold = np.array([label for system in judged for label in system.labels.values()])
    scores = np.array([outcome for system in judged for outcome in system.outcomes.values()])
    units = [question for system in judged for question in system.outcomes]
    found = measure(gold, scores, units)
    yield OPINION if found is None else found[0].line()
