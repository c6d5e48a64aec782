"""Several test sets: what they say of one configuration, each on its own and all together.

A verdict over several test sets is about a configuration, not about the part that it replaces: two students that each
fail on another set are no reason to distill either. A configuration is recommended where it passes on every test set.
Where no single test set has the questions for that, all of them together may: the same rule over all questions, each
counting one, for a configuration that no test set shows to fail.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, overload

from fractionate.analysis.findings import Distill, Finding, Judgement
from fractionate.analysis.matrix import Matrix
from fractionate.columns import Columns
from fractionate.types import Attempt, Cell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Numbers = NDArray[Any]

Basis = Literal["", "each test set", "all test sets together"]
Configuration = tuple[str, str, str]
"""Strategy, decomposer and solver: what makes a configuration the same one on several test sets."""


@dataclass(frozen=True, slots=True)
class Overall:
    """The answer over all test sets.

    `told` are the judgements that the answer rests on: those of each test set, with the configuration that is
    recommended overall, or that of all test sets together. `together` is None for a single test set.
    """

    distill: Distill
    told: tuple[Judgement, ...]
    basis: Basis = ""
    together: Judgement | None = None
    differ: tuple[tuple[str, str], ...] = ()
    """Test set and recommended configuration, where test sets recommend different ones and none passes on all."""


def agree(
    judged: Sequence[Judgement], together: Judgement | None, best: Callable[[Sequence[Finding]], Finding | None]
) -> Overall:
    """Return the answer over all test sets; `best` chooses among findings that pass, as for a single test set.

    `together` is the judgement over the questions of all test sets. Configurations that pass on every test set are
    ranked by its costs, which are those of all questions.
    """
    if len(judged) == 1:
        return Overall(judged[0].distill, tuple(judged))
    if any(one.misfit for one in judged) or together is None:
        return Overall("undecided", tuple(judged))
    by_set = [{configuration(one): one for one in judgement.findings} for judgement in judged]
    ranked = [replace(one, passes="yes") for one in together.findings if _answers(by_set, one) == {"yes"}]
    chosen = best(ranked)
    if chosen is not None:
        key = configuration(chosen)
        told = tuple(
            replace(judgement, chosen=found[key], distill=chosen.part)
            for judgement, found in zip(judged, by_set, strict=True)
        )
        return Overall(chosen.part, told, "each test set", together)
    answers = {one.distill for one in judged}
    if answers == {"neither"}:
        return Overall("neither", tuple(judged), "each test set", together)
    chosen = best([one for one in together.findings if "no" not in _answers(by_set, one)])
    if chosen is not None:
        of_all = replace(together, chosen=chosen, distill=chosen.part)
        return Overall(chosen.part, (of_all,), "all test sets together", together)
    named = {one.dataset: configuration(one.chosen) for one in judged if one.chosen}
    differ = tuple((one.dataset, one.chosen.contrast.names[0]) for one in judged if one.chosen)
    return Overall("undecided", tuple(judged), "", together, differ if len(set(named.values())) > 1 else ())


def configuration(finding: Finding) -> Configuration:
    """Return what a configuration is called on every test set."""
    cell = finding.contrast.a
    return cell.strategy, cell.decomposer.name, cell.solver.name


def _answers(by_set: Sequence[dict[Configuration, Finding]], finding: Finding) -> set[str]:
    """Return whether a configuration passes on each test set; "undecided" where it was not measured."""
    key = configuration(finding)
    return {found[key].passes if key in found else "undecided" for found in by_set}


def stack(matrices: Sequence[Matrix]) -> Matrix | None:
    """Return one matrix over the questions of all test sets, of the cells that all of them have; None for one set.

    Questions that share a passage stay one unit, in whichever test set they are.
    """
    if len(matrices) < 2:
        return None
    found: list[dict[tuple[str, str, str], Cell]] = [
        {(cell.strategy, cell.decomposer.name, cell.solver.name): cell for cell in matrix.cells} for matrix in matrices
    ]
    cells = []
    for key, first in found[0].items():
        if all(key in cells_of for cells_of in found[1:]):
            parts = [cells_of[key] for cells_of in found]
            metric = first.metric if len({one.metric for one in parts}) == 1 else "f1"
            cells.append(replace(first, metric=metric, attempts=Stacked(parts)))
    return Matrix(f"all {len(matrices)} test sets", tuple(cells))


class Stacked(Sequence[Attempt]):
    """The attempts of one configuration on several test sets, one set after another."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = cells
        self._ends = list(accumulate(len(cell.attempts) for cell in cells))

    @cached_property
    def columns(self) -> Columns:
        """The attempts as arrays."""
        return _StackedColumns([cell.columns for cell in self._cells], [cell.metric for cell in self._cells])

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, place: int) -> Attempt: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, place: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        at = range(len(self))[place]
        number = bisect_right(self._ends, at)
        return self._cells[number].attempts[at - (self._ends[number - 1] if number else 0)]


class _StackedColumns(Columns):
    """Columns of several test sets one after another. Where their metrics differ, "f1" holds each set's own."""

    def __init__(self, parts: Sequence[Columns], metrics: Sequence[str]) -> None:
        self._parts = parts
        self._metrics = metrics
        self._made: dict[str, Numbers] = {}

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def outputs(self) -> Columns:
        """Every single attempt."""
        return _StackedColumns([part.outputs for part in self._parts], self._metrics)

    @property
    def runs(self) -> Sequence[Columns]:
        """The pooled runs; none where test sets pool different numbers of them."""
        runs = [part.runs for part in self._parts]
        if len({len(of_part) for of_part in runs}) > 1:
            return ()
        return [_StackedColumns(list(of_run), self._metrics) for of_run in zip(*runs, strict=True)]

    def column(self, name: str) -> Numbers:
        """Return one of `FIELDS`."""
        import numpy as np

        if name not in self._made:
            self._made[name] = np.concatenate([self._of(place, name) for place in range(len(self._parts))])
        return self._made[name]

    def _of(self, place: int, name: str) -> Numbers:
        import numpy as np

        part, metric = self._parts[place], self._metrics[place]
        if len(set(self._metrics)) > 1 and name in ("f1", "lenient_f1"):
            name = name.replace("f1", metric)
        found = part.column(name)
        # A question is another one in another test set. Its passage is the same: it stays one independent unit.
        return found ^ np.uint64(0x9E3779B97F4A7C15 * (place + 1) % 2**64) if name == "id_digest" else found
