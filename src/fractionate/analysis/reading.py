"""Two readings of outputs side by side: what of a gain is form, what substance; and cells that were hardly read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from operator import and_
from typing import Any

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.matrix import Matrix
from fractionate.types import Attempt, Cell, Component, Score

MOST = 0.1
"""The share of a cell's outputs from which on those unread, or cut off, are said before anything else."""


@dataclass(frozen=True, slots=True)
class Split:
    """A gain in two parts that add up to it: a − b of what only the strict reading gains, and of what both gain."""

    form: Contrast
    substance: Contrast


@dataclass(frozen=True, slots=True)
class Unread:
    """A cell with more than `MOST` of its outputs unread or cut off: both shares of 1, and what would mend it."""

    cell: str
    outputs: int
    unread_share: float
    cut_off_share: float
    mends: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {**asdict(self), "mends": list(self.mends)}


def leniently(cell: Cell) -> Cell | None:
    """Return a cell with the scores of the lenient reading; None where an attempt has none."""
    return _scored(cell, lambda strict, lenient: lenient)


def split_gain(matrix: Matrix, a: Cell, b: Cell, confidence: float) -> Split | None:
    """Split a's gain over b into form and substance; None without a lenient reading of both.

    Substance is the gain under the lenient reading. Form is the rest: what b lost by answers that only the lenient
    reading finds, less what a lost so.
    """
    lenient_a, lenient_b, lost_a, lost_b = leniently(a), leniently(b), _lost(a), _lost(b)
    if lenient_a is None or lenient_b is None or lost_a is None or lost_b is None:
        return None
    return Split(contrast(matrix, lost_b, lost_a, confidence), contrast(matrix, lenient_a, lenient_b, confidence))


def unread_cells(matrix: Matrix) -> list[Unread]:
    """Return the cells of a test set of whose outputs too many are unread or cut off."""
    found = []
    for cell in matrix.cells:
        unread = share(attempt.prediction is None for attempt in cell.outputs)
        cut_off = share(bool(attempt.cut_off) for attempt in cell.outputs)
        if max(unread, cut_off) > MOST:
            found.append(Unread(matrix.name(cell), len(cell.outputs), unread, cut_off, _mends(cell)))
    return found


def share(holds: Iterable[bool]) -> float:
    """Return the share of those that hold, 0 of none."""
    held = list(holds)
    return sum(held) / len(held) if held else 0.0


def _lost(cell: Cell) -> Cell | None:
    """Return a cell with what each attempt lost by its form: the lenient score less the strict one, in [0, 1]."""
    return _scored(
        cell, lambda strict, lenient: Score(lenient.exact_match - strict.exact_match, lenient.f1 - strict.f1)
    )


def _scored(cell: Cell, score: Callable[[Score, Score], Score]) -> Cell | None:
    attempts = []
    for attempt in cell.attempts:
        if attempt.lenient is None or len(attempt.lenient_by_run) != len(attempt.by_run):
            return None
        by_run = tuple(map(score, attempt.by_run, attempt.lenient_by_run))
        attempts.append(replace(attempt, score=score(attempt.score, attempt.lenient), by_run=by_run))
    return replace(cell, attempts=tuple(attempts))


def _mends(cell: Cell) -> tuple[str, ...]:
    """Return what would mend a cell, in words. Half of `MOST` by one cause is enough to name its mend."""
    cut_off = [
        _option_key(component)
        for component in (cell.decomposer, cell.solver)
        if share(component.role in attempt.cut_off for attempt in cell.outputs) > MOST / 2
    ]
    mends = [
        f'raise models.options."{key}".max_tokens: replies reach it before they end' for key in dict.fromkeys(cut_off)
    ]
    unread = [attempt.prediction is None for attempt in cell.outputs]
    if share(map(and_, unread, map(_has_failed, cell.outputs))) > MOST / 2:
        mends.append("see why calls failed (failures in attempts.jsonl), and run again")
    if share(map(and_, unread, (not attempt.failures for attempt in cell.outputs))) > MOST / 2:
        mends.append(_mend_of_form(cell.solver))
    return tuple(mends)


def _has_failed(attempt: Attempt) -> bool:
    return any(failure != "length" for failure in attempt.failures)


def _mend_of_form(solver: Component) -> str:
    example = "show worked examples in the question or its passage (few-shot)"
    if solver.model.startswith(("openai:", "http:", "https:")):
        return f'set models.options."{_option_key(solver)}".structured = true, or {example}'
    if solver.model.startswith("recorded:"):
        return f"{solver.name} was recorded as it is: its outputs state no answer that can be read"
    if solver.trained_for == "solver":
        return f"train {solver.name} on more demonstrations, or for longer"
    return f"{example}, or let a student learn the form (run.variants, such as E-A)"


def _option_key(component: Component) -> str:
    return component.name if component.is_student else component.model
