"""Two cells over the questions that both answered, under each reading of their outputs; and cells not parsed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fractionate.analysis.corrections import Outcomes, differences_of, is_corrected, mean_of, outcomes_of
from fractionate.analysis.matrix import Matrix
from fractionate.columns import Columns, Reading
from fractionate.datasets import OWN_ROWS
from fractionate.datasets.scoring import better_reader
from fractionate.statistics import Interval, Pooled, mean_interval, paired_difference, pooled_difference, pooled_mean
from fractionate.statistics.clusters import Groups, Values
from fractionate.types import Cell, Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Places = NDArray[np.int64]


@dataclass(frozen=True)
class Paired:
    """a − b over the same `n` questions; means and differences are shares of 1.

    `value` is the mean of a, `reference_value` that of b. `ci_low` and `ci_high` bound the difference at `confidence`;
    `p_value` is two-sided, of `test`. `clusters` are the independent units that the questions come in (passages),
    `seeds` the runs that were pooled.
    """

    n: int
    value: float
    reference_value: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    confidence: float
    clusters: int
    seeds: int
    by_seed: tuple[float, ...]
    """The difference in each pooled run; none where no runs were pooled."""

    def interval_fields(self) -> dict[str, Any]:
        """Return what results.json holds of every contrast: the difference, its interval and what it rests on."""
        return {
            "difference": self.difference,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "clusters": self.clusters,
            "seeds": self.seeds,
        }


@dataclass(frozen=True)
class Contrast(Paired):
    """Two cells of a matrix over the questions that both answered, in the metric of a."""

    matrix: Matrix
    a: Cell
    b: Cell

    @cached_property
    def names(self) -> tuple[str, str]:
        """The names of both cells, unique in the run."""
        return self.matrix.name(self.a), self.matrix.name(self.b)

    def reversed(self) -> Contrast:
        """Return b − a."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            value=self.reference_value,
            reference_value=self.value,
            difference=-self.difference,
            ci_low=-self.ci_high,
            ci_high=-self.ci_low,
            by_seed=tuple(-one for one in self.by_seed),
        )


def compare_paired(a: Sequence[Values], b: Sequence[Values], confidence: float, groups: Groups | None = None) -> Paired:
    """Compare two systems over common questions: the one comparison behind cells, logs and plain outcomes.

    `a[s][i]` is the outcome (0 to 1) of question i in run s: one row for a single run. `groups[i]` is what question i
    shares with others. Raises ValueError where the rows differ in length, or an outcome lies outside 0 to 1.
    """
    import numpy as np

    seeds = len(a)
    ours, others = (rows[0] if seeds == 1 else np.mean(np.asarray(rows, dtype=np.float64), axis=0) for rows in (a, b))
    value, reference_value = mean(ours), mean(others)
    if seeds > 1:
        pooled = pooled_difference(a, b, confidence, groups)
        low, high, p_value, clusters = pooled.low, pooled.high, pooled.p_value, pooled.clusters
        test = f"over {seeds} seeds and questions"
    else:
        found = paired_difference(ours, others, confidence, groups)
        low, high, p_value, test, clusters = found.low, found.high, found.p_value, found.test, found.clusters
    difference = value - reference_value
    by_seed = tuple(mean(mine) - mean(theirs) for mine, theirs in zip(a, b, strict=True)) if seeds > 1 else ()
    return Paired(
        len(ours), value, reference_value, difference, low, high, p_value, test, confidence, clusters, seeds, by_seed
    )


def contrast(
    matrix: Matrix, a: Cell, b: Cell, confidence: float, reading: Reading = "strict", *, worst: bool = False
) -> Contrast:
    """Compare two cells over the questions they share, by a reading of the outputs that both cells have.

    With `worst` several pooled runs are judged by the one with the lowest difference: a bound below all of them holds
    for each, without sharing the error, since each of them has to be shown.
    """
    mine, theirs = pair_up(a, b)
    if reading == "strict" and is_corrected(mine, theirs, metric=a.metric):
        return Contrast(**vars(_compare_corrected(mine, theirs, a.metric, confidence, worst)), matrix=matrix, a=a, b=b)
    seeds = max(mine.seeds, theirs.seeds)
    ours, others = (by_run(columns, a.metric, seeds, reading) for columns in (mine, theirs))
    found = compare_paired(ours, others, confidence, mine.clusters)
    if worst and seeds > 1:
        found = _worst_of(ours, others, confidence, mine.clusters)
    return Contrast(**vars(found), matrix=matrix, a=a, b=b)


def _compare_corrected(mine: Columns, theirs: Columns, metric: str, confidence: float, worst: bool) -> Paired:
    """Compare two cells by cheap scores that gold corrects, run by run where runs were pooled."""
    value, reference_value = (mean_of(one, metric) for one in (mine, theirs))
    seeds = max(mine.seeds, theirs.seeds)
    ours, others = (one.runs if one.seeds == seeds > 1 else [one] * seeds for one in (mine, theirs))
    each = [differences_of(a, b, metric) for a, b in zip(ours, others, strict=True)]
    means = [mean(one.values) for one in each]
    found = _pool([min(each, key=lambda one: mean(one.values))] if worst else each, confidence, mine.clusters)
    low, high, p_value, test = found.low, found.high, found.p_value, "prediction-powered"
    if worst and seeds > 1:
        bounds = [_pool([one], confidence, mine.clusters) for one in each]
        low, high, test = min(one.low for one in bounds), min(one.high for one in bounds), f"worst of {seeds} seeds"
    if not all(one.is_shown for one in each):
        low, high, p_value, test = -1.0, 1.0, 1.0, "too few questions with gold"
    return Paired(
        len(mine),
        value,
        reference_value,
        found.mean,
        max(low, -1.0),
        min(high, 1.0),
        p_value,
        test,
        confidence,
        found.clusters,
        seeds,
        tuple(means) if seeds > 1 else (),
    )


def _pool(each: Sequence[Outcomes], confidence: float, groups: Groups | None) -> Pooled:
    least, most = min(one.least for one in each), max(one.most for one in each)
    return pooled_mean([one.values for one in each], confidence, groups, least=least, most=most)


def _worst_of(ours: Sequence[Array], others: Sequence[Array], confidence: float, groups: Groups | None) -> Paired:
    each = [compare_paired([a], [b], confidence, groups) for a, b in zip(ours, others, strict=True)]
    lowest = min(each, key=lambda one: one.difference)
    return replace(
        lowest,
        ci_low=min(one.ci_low for one in each),
        ci_high=min(one.ci_high for one in each),
        test=f"worst of {len(each)} seeds",
        seeds=len(each),
        by_seed=tuple(one.difference for one in each),
    )


def value_interval(cell: Cell, confidence: float, reading: Reading = "strict") -> Interval:
    """Return the interval of a cell's value: by passage, and over seeds where runs were pooled."""
    columns = cell.columns
    if reading == "strict" and is_corrected(columns, metric=cell.metric):
        each = [outcomes_of(run, cell.metric) for run in columns.runs or [columns]]
        found = _pool(each, confidence, columns.clusters)
        shown = all(one.is_shown for one in each)
        return Interval(max(found.low, 0.0), min(found.high, 1.0)) if shown else Interval(0.0, 1.0)
    if columns.seeds > 1:
        runs = by_run(columns, cell.metric, columns.seeds, reading)
        pooled = pooled_mean(runs, confidence, columns.clusters)
        return Interval(pooled.low, pooled.high)
    return mean_interval(outcomes(columns, cell.metric, reading), confidence, columns.clusters)


def pair_up(a: Cell, b: Cell) -> tuple[Columns, Columns]:
    """Return both cells' attempts at the questions they share, in a's order."""
    mine, theirs = paired_places(a, b)
    return (a.columns if mine is None else a.columns.take(mine)), (
        b.columns if theirs is None else b.columns.take(theirs)
    )


def paired_places(a: Cell, b: Cell) -> tuple[Places | None, Places | None]:
    """Return where both cells have the questions that they share, in a's order; None for all as they are."""
    import numpy as np

    ours, others = a.columns.ids, b.columns.ids
    if ours is others or np.array_equal(ours, others):
        return None, None
    if not len(others):
        return np.arange(0), np.arange(0)
    order = np.argsort(others, kind="stable")
    found = order[np.maximum(np.searchsorted(others[order], ours, side="right") - 1, 0)]
    shared = np.flatnonzero(others[found] == ours)
    return shared, found[shared]


def outcomes(columns: Columns, metric: str, reading: Reading = "strict") -> Array:
    """Return the metric of each attempt, 0 to 1. The attempts must have the reading."""
    found = columns.score(metric, reading)
    assert found is not None, f"an attempt has no {reading} reading"
    return found


def by_run(columns: Columns, metric: str, seeds: int, reading: Reading = "strict") -> Sequence[Array]:
    """Return the metric of each attempt in every pooled run: one row per run, in the order of the questions.

    Attempts that were pooled over another number of runs count with their mean in each: one cell's runs cannot be told
    from the other's then, but those of the other still count.
    """
    runs = columns.by_run(metric, reading) if seeds > 1 else None
    if runs is None or len(runs) != seeds:
        return [outcomes(columns, metric, reading)] * seeds
    return runs


def mean(values: Values) -> float:
    """Return the mean, 0 of nothing; summed exactly, so that the order of adding does not show."""
    import numpy as np

    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return math.fsum(listed) / len(listed) if listed else 0.0


_SHOWN = 500
"""Outputs that other readers are tried on, where a cell's own does not fit."""
MOST = 0.1
"""The share of a cell's outputs from which on those unparsed, or cut off, are said before anything else."""


@dataclass(frozen=True, slots=True)
class Split:
    """A gain in two parts that add up to it: a − b of what only the strict reading gains, and of what both gain."""

    formatting: Contrast
    content: Contrast


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A cell with more than `MOST` of its outputs unparsed or cut off: both shares of 1, and what would fix it."""

    cell: str
    outputs: int
    unread_share: float
    cut_off_share: float
    fixes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as results.json holds them."""
        return {**asdict(self), "fixes": list(self.fixes)}


def is_read_leniently(cell: Cell) -> bool:
    """Return whether every attempt of a cell, in every pooled run, has a lenient reading."""
    return cell.columns.score(cell.metric, "lenient") is not None


def split_gain(matrix: Matrix, a: Cell, b: Cell, confidence: float) -> Split | None:
    """Split a's gain over b into form and substance; None without a lenient reading of both.

    Substance is the gain under the lenient reading. Form is the rest: what b lost by answers that only the lenient
    reading finds, less what a lost so.
    """
    if not (is_read_leniently(a) and is_read_leniently(b)) or is_corrected(a.columns, b.columns, metric=a.metric):
        return None
    return Split(contrast(matrix, b, a, confidence, "lost"), contrast(matrix, a, b, confidence, "lenient"))


def unparsed_cells(matrix: Matrix) -> list[Unparsed]:
    """Return the cells of a test set of whose outputs too many are unparsed or cut off."""
    found = []
    for cell in matrix.cells:
        outputs = cell.columns.outputs
        unparsed, cut_off = share(outputs.column("unextracted")), share(outputs.cut_off)
        if max(unparsed, cut_off) > MOST:
            found.append(Unparsed(matrix.name(cell), len(outputs), unparsed, cut_off, _fixes(cell)))
    return found


def misfit_in(cell: Cell) -> str:
    """Return that the reader of a cell's answers parses less than half of its outputs; "" where it fits."""
    outputs = cell.columns.outputs
    unparsed = int(outputs.column("unextracted").sum())
    if 2 * unparsed <= len(outputs):
        return ""
    shown = [attempt.output for attempt in cell.attempts[:_SHOWN]]
    found = f"the scorer of {cell.dataset} does not fit: {unparsed} of {len(outputs)} unparsed"
    better = better_reader(shown, len(shown) * (len(outputs) - unparsed) // len(outputs))
    if cell.dataset != OWN_ROWS or better is None:
        return f"{found}: look in the report at how the outputs state their answers"
    _, form, parsed = better
    return f'{found}; data.answer = "{form}" parses {parsed} of {len(shown)}'


def share(holds: NDArray[np.bool_]) -> float:
    """Return the share of those that hold, 0 of none."""
    return int(holds.sum()) / len(holds) if len(holds) else 0.0


def _fixes(cell: Cell) -> tuple[str, ...]:
    """Return what would fix a cell, in words. Half of `MOST` by one cause is enough to name its fix."""
    outputs = cell.columns.outputs
    cut_off = [
        _option_key(component)
        for component in (cell.decomposer, cell.solver)
        if share(outputs.column(f"cut_off_{component.role}")) > MOST / 2
    ]
    fixes = [
        f'raise models.options."{key}".max_tokens: replies reach it before they end' for key in dict.fromkeys(cut_off)
    ]
    unparsed = outputs.column("unextracted")
    if share(unparsed & outputs.column("failed")) > MOST / 2:
        fixes.append("see why calls failed (failures in attempts.jsonl), and run again")
    if share(unparsed & (outputs.column("failures") == 0)) > MOST / 2:
        fixes.append(_fix_of_form(cell.solver))
    return tuple(fixes)


def _fix_of_form(solver: Component) -> str:
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
