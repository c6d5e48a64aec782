"""Several attempts at one question as one: the question counts with their mean, since it is the independent unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from operator import attrgetter

from fractionate.types import Attempt, Score, Usage

_AMOUNTS = attrgetter(*(amount.name for amount in fields(Usage)))


def mean_attempt(attempts: Sequence[Attempt]) -> Attempt:
    """Return one attempt for a question's several; what cannot be averaged is what most of them had.

    Usage is that of answering the question once, rounded to whole tokens. One attempt alone is returned as it is.
    """
    if len(attempts) == 1:
        return attempts[0]
    usual = Counter(attempt.prediction for attempt in attempts).most_common(1)[0][0]
    shown = next(attempt for attempt in attempts if attempt.prediction == usual)
    lenient = lenient_scores(attempts)
    return replace(
        shown,
        score=_mean_score([attempt.score for attempt in attempts]),
        lenient=_mean_score(lenient) if lenient else None,
        decomposer_usage=_mean_usage([attempt.decomposer_usage for attempt in attempts]),
        solver_usage=_mean_usage([attempt.solver_usage for attempt in attempts]),
        latency_s=sum(attempt.latency_s for attempt in attempts) / len(attempts),
        of=tuple(output for attempt in attempts for output in attempt.outputs),
    )


def lenient_scores(attempts: Sequence[Attempt]) -> tuple[Score, ...]:
    """Return the lenient scores of all attempts, () where one has none."""
    scores = tuple(attempt.lenient for attempt in attempts if attempt.lenient is not None)
    return scores if len(scores) == len(attempts) else ()


def _mean_score(scores: Sequence[Score]) -> Score:
    count = len(scores)
    return Score(sum(score.exact_match for score in scores) / count, sum(score.f1 for score in scores) / count)


def _mean_usage(usages: Sequence[Usage]) -> Usage:
    if all(usage == usages[0] for usage in usages):
        return usages[0]
    calls, read, cached, written, thought, seconds, counted = (
        sum(column) / len(usages) for column in zip(*map(_AMOUNTS, usages), strict=True)
    )
    return Usage(round(calls), round(read), round(cached), round(written), round(thought), seconds, round(counted))
