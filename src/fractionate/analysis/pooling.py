"""Several runs of one protocol (other seeds, other training draws) as one: a question counts with its mean over them.

Each attempt keeps its scores and usage run by run: intervals and tests over pooled cells take runs and questions as two
sources of chance (`statistics/seeds.py`, `statistics/dollars.py`), and with two or three runs they are honestly wide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter

from fractionate.errors import UsageError
from fractionate.types import Attempt, Cell, Score, Usage

_AMOUNTS = attrgetter(*(amount.name for amount in fields(Usage)))
Key = tuple[str, str, str, str, str]


def pool_cells(runs: Mapping[str, Sequence[Cell]]) -> tuple[list[Cell], dict[Key, dict[str, float]]]:
    """Return pooled cells, and each one's value in every run that measured it, by run name.

    A cell that only some runs measured is pooled over those. Raises UsageError where runs asked a cell other questions.
    """
    found: dict[Key, dict[str, Cell]] = {}
    for name, cells in runs.items():
        for cell in cells:
            if name in found.setdefault(key_of(cell), {}):
                raise UsageError(f"{name} holds {_said(cell)} twice: its test sets cannot be told apart")
            found[key_of(cell)][name] = cell
    pooled = [_pool(of_run) for of_run in found.values()]
    values = {
        key: {name: sum(cell.values()) / max(len(cell.attempts), 1) for name, cell in of_run.items()}
        for key, of_run in found.items()
    }
    return pooled, values


def key_of(cell: Cell) -> Key:
    """Return what makes a cell the same one in several runs."""
    return cell.dataset, cell.split, cell.strategy, cell.decomposer.name, cell.solver.name


def _pool(of_run: Mapping[str, Cell]) -> Cell:
    (first_name, first), *others = of_run.items()
    asked = [attempt.problem.id for attempt in first.attempts]
    for name, cell in others:
        if [attempt.problem.id for attempt in cell.attempts] != asked:
            raise UsageError(f"{name} and {first_name} asked other questions in {_said(cell)}: they cannot be pooled")
    columns = [cell.attempts for cell in of_run.values()]
    return replace(first, attempts=tuple(_mean_attempt(row) for row in zip(*columns, strict=True)))


def _mean_attempt(row: Sequence[Attempt]) -> Attempt:
    """Return one attempt for a question's attempts in several runs; what cannot be averaged is what most runs had."""
    if len(row) == 1:
        return replace(row[0], by_run=(row[0].score,), usage_by_run=_usages(row), lenient_by_run=_lenient(row))
    usual = Counter(attempt.prediction for attempt in row).most_common(1)[0][0]
    shown = next(attempt for attempt in row if attempt.prediction == usual)
    count, lenient = len(row), _lenient(row)
    return replace(
        shown,
        score=_mean_score([attempt.score for attempt in row]),
        lenient=_mean_score(lenient) if lenient else None,
        decomposer_usage=_mean_usage([attempt.decomposer_usage for attempt in row]),
        solver_usage=_mean_usage([attempt.solver_usage for attempt in row]),
        latency_s=sum(attempt.latency_s for attempt in row) / count,
        by_run=tuple(attempt.score for attempt in row),
        usage_by_run=_usages(row),
        lenient_by_run=lenient,
    )


def _usages(row: Sequence[Attempt]) -> tuple[tuple[Usage, Usage], ...]:
    return tuple((attempt.decomposer_usage, attempt.solver_usage) for attempt in row)


def _lenient(row: Sequence[Attempt]) -> tuple[Score, ...]:
    """Return the lenient scores of all attempts, () where one has none."""
    scores = tuple(attempt.lenient for attempt in row if attempt.lenient is not None)
    return scores if len(scores) == len(row) else ()


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


def _said(cell: Cell) -> str:
    return f"{cell.dataset}#{cell.split}/{cell.strategy}/{cell.decomposer.name}/{cell.solver.name}"
