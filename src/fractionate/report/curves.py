"""Learning curves of a run: students of one kind by their number of demonstrations, or by the size of their base.

All students of a curve are measured on the same questions with the same partner. The outcome of more demonstrations
or parameters is extrapolated (planning/curve.py), and the cost of more is scaled from the cost of the run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fractionate.analysis.contrasts import paired_places
from fractionate.analysis.matrix import Matrix, matrices
from fractionate.analysis.pricing import Pricing
from fractionate.columns import Columns
from fractionate.errors import UsageError
from fractionate.report.run_cost import CHANCES, DEMONSTRATIONS, SCREENING, RunCost, Trained
from fractionate.types import Cell, Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Over = Literal["demonstrations", "parameters"]
CONFIDENCE = 0.90
FACTORS = (2.0,)
"""Multiples of the demonstrations that are predicted."""
ALIKE = 0.95
"""Students of several sizes make a curve only if each has at least this share of the largest number of examples."""
DRAWN = 12
"""Number of amounts on the line of a curve."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """One student's cell, its distilled part, and its training."""

    matrix: Matrix
    cell: Cell
    part: Component
    training: Trained
    amount: float

    @property
    def partner(self) -> Component:
        return self.cell.solver if self.part.role == "decomposer" else self.cell.decomposer

    @property
    def place(self) -> Hashable:
        """The key that all students of one curve share."""
        part = self.part
        return self.matrix.label, self.cell.strategy, self.partner, part.role, part.variant, part.learnt_from


def learning_curves(cells: Sequence[Cell], cost: RunCost | None, pricing: Pricing) -> list[dict[str, Any]]:
    """Return the `curve` of results.json: a curve over demonstrations or parameters wherever two amounts were measured.

    Outcomes lie in [0, 1]. `beyond` holds predictions for larger amounts: the interval of one more training on the same
    questions (`low`, `high`), the interval of the mean over trainings and questions (`expected_low`,
    `expected_high`), and `usd`, the one-off cost (null where a price is unknown). `refused` says why there is no
    curve.
    """
    if cost is None:
        return []
    measured = [one for matrix in matrices(cells) for cell in matrix.cells for one in _measured(matrix, cell, cost)]
    return [
        *(_curve("demonstrations", group, FACTORS, cost, pricing) for group in _by_demonstrations(measured)),
        *(_curve("parameters", group, (_next_size(group),), cost, pricing) for group in _by_size(measured)),
    ]


def _measured(matrix: Matrix, cell: Cell, cost: RunCost) -> Iterator[_Measured]:
    for part, partner in ((cell.decomposer, cell.solver), (cell.solver, cell.decomposer)):
        if partner.is_student:
            continue
        trainings = [one for one in cost.trained.get(part.name, ()) if one.examples]
        if part.trained_for == part.role and trainings and cell.attempts:
            amount = sum(one.examples for one in trainings) / len(trainings)
            yield _Measured(matrix, cell, part, trainings[0], amount)


def _by_demonstrations(measured: Sequence[_Measured]) -> list[list[_Measured]]:
    """Return students that differ in their number of demonstrations: of a curve run, or by max_examples."""
    groups = _grouped((one, (one.place, one.part.model)) for one in measured)
    return [group for group in groups if _amounts(group) > 1 or any(one.part.share < 1 for one in group)]


def _by_size(measured: Sequence[_Measured]) -> list[list[_Measured]]:
    """Return students that differ in the size of their base alone."""
    sized = [one for one in measured if one.part.share == 1 and one.training.parameters]
    groups = []
    for group in _grouped((one, one.place) for one in sized):
        most = max(one.amount for one in group)
        alike = [
            _Measured(one.matrix, one.cell, one.part, one.training, float(one.training.parameters))
            for one in group
            if one.amount >= ALIKE * most
        ]
        alike.sort(key=lambda one: (one.amount, one.part.name))
        groups += [alike] if _amounts(alike) > 1 else []
    return groups


def _grouped(keyed: Iterator[tuple[_Measured, Hashable]]) -> list[list[_Measured]]:
    groups: dict[Hashable, list[_Measured]] = {}
    for one, key in keyed:
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=lambda one: (one.amount, one.part.name)) for group in groups.values()]


def _amounts(group: Sequence[_Measured]) -> int:
    return len({one.amount for one in group})


def _next_size(group: Sequence[_Measured]) -> float:
    """Return how many times the largest size the next one is: the step between the two largest ones again."""
    *_, before, largest = sorted({one.amount for one in group})
    return largest / before


def _curve(
    over: Over, group: Sequence[_Measured], factors: Sequence[float], cost: RunCost, pricing: Pricing
) -> dict[str, Any]:
    import numpy as np

    from fractionate.planning.curve import MOST_TIMES, learning_curve

    last = group[-1]
    curve: dict[str, Any] = {
        "over": over,
        "test_set": last.matrix.label,
        "strategy": last.cell.strategy,
        "student": last.part.variant,
        "role": last.part.role,
        "partner": last.partner.name,
        "base": last.part.model if over == "demonstrations" else "",
        "metric": last.cell.metric,
        "points": [],
        "confidence": CONFIDENCE,
        "beyond": [],
        "line": [],
        "refused": "",
        "note": "",
    }
    answered = _shared(group)
    outcomes = [columns.column(last.cell.metric) for columns in answered]
    curve["points"] = [
        {
            "cell": one.matrix.name(one.cell),
            "name": one.part.name,
            "amount": one.amount,
            "value": sum(values.tolist()) / len(values) if len(values) else None,
            "n": len(values),
        }
        for one, values in zip(group, outcomes, strict=True)
    ]
    try:
        fitted = learning_curve([one.amount for one in group], outcomes, answered[-1].clusters)
    except UsageError as error:
        return {**curve, "refused": str(error)}
    if max(factors) > MOST_TIMES * (1 + 1e-9):
        curve["note"] = (
            f"The next size is {max(factors):.3g} times the largest one. A curve predicts up to {MOST_TIMES:g} times "
            "what was measured: where it flattens out further on is not known."
        )
        factors = (1.0,)
    for factor, predicted in zip(factors, fitted.beyond(factors, CONFIDENCE), strict=True) if not curve["note"] else ():
        curve["beyond"].append({"factor": factor, **asdict(predicted), "usd": _usd(over, last, factor, cost, pricing)})
    drawn = np.geomspace(group[0].amount, last.amount * max(factors), DRAWN)
    curve["line"] = [asdict(fitted.predict(float(amount), CONFIDENCE)) for amount in drawn]
    return curve


def _shared(group: Sequence[_Measured]) -> list[Columns]:
    """Return the attempts at the questions that every student of a curve answered, in the order of the first."""
    import numpy as np

    first = group[0].cell
    shared = np.ones(len(first.columns), dtype=np.bool_)
    for one in group[1:]:
        mine, _ = paired_places(first, one.cell)
        if mine is not None:
            shared &= np.isin(np.arange(len(shared)), mine)
    return [one.cell.columns.take(_places_in(one.cell, first, np.flatnonzero(shared))) for one in group]


def _places_in(cell: Cell, first: Cell, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where a cell has the questions that the first has at the `wanted` places."""
    import numpy as np

    mine, theirs = paired_places(first, cell)
    return wanted if mine is None or theirs is None else theirs[np.searchsorted(mine, wanted)]


def _usd(over: Over, last: _Measured, factor: float, cost: RunCost, pricing: Pricing) -> float | None:
    """Return the one-off cost of a multiple of the largest amount, None where a price is unknown.

    Training time is assumed to grow in proportion to demonstrations and to parameters. Each new demonstration costs
    as much as one of the run, screening and further samples included.
    """
    hours = last.training.hours
    training = None if hours is None else pricing.by_hours(last.part.model, hours * factor)
    if training is None or over == "parameters":
        return training
    bill = cost.priced(pricing)
    asked = [bill[item] for item in (DEMONSTRATIONS, SCREENING, CHANCES) if item in bill]
    if not asked or any(isinstance(amount, str) for amount in asked):
        return None
    return training + (factor - 1) * sum(amount for amount in asked if isinstance(amount, float))
