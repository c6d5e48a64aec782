"""Learning curves of a run: students of one kind by how much they learnt from, or by the size of their base.

Each is measured on the same questions beside the same partner. What more would bring is extrapolated
(planning/curve.py), and what it would cost is scaled from what the run took.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fractionate.analysis.contrasts import paired_places
from fractionate.analysis.matrix import Matrix, matrices
from fractionate.analysis.pricing import Pricing
from fractionate.columns import Columns
from fractionate.errors import UsageError
from fractionate.report.spent import CHANCES, DEMONSTRATIONS, SCREENING, Spent, Trained
from fractionate.types import Cell, Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Over = Literal["demonstrations", "parameters"]
CONFIDENCE = 0.90
FACTORS = (2.0, 4.0)
"""Multiples of the demonstrations that are told."""
ALIKE = 0.95
"""Students of several sizes make a curve if none learnt from less than this share of what another did."""
NOT_BEGUN = 0.05
"""Outcomes below this are of students that have hardly begun to answer: a power law cannot say when they will."""
DRAWN = 12
"""Amounts that the line of a curve is drawn through."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """One student's cell, the part that learnt, and what its training was."""

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
        """What students of one curve share."""
        part = self.part
        return self.matrix.label, self.cell.strategy, self.partner, part.role, part.variant, part.learnt_from


def learning_curves(cells: Sequence[Cell], spent: Spent | None, pricing: Pricing) -> list[dict[str, Any]]:
    """Return the `curve` of results.json: a curve over demonstrations or parameters wherever there are two amounts.

    Outcomes are shares of 1; `beyond` has what more would bring, with the interval of one more training on the same
    questions (`low`, `high`) and that of the mean over trainings and questions (`expected_low`, `expected_high`), and
    `usd`, what it would cost once (null: a price is not known). A curve of one point says why in `refused`.
    """
    if spent is None:
        return []
    measured = [one for matrix in matrices(cells) for cell in matrix.cells for one in _measured(matrix, cell, spent)]
    return [
        *(_curve("demonstrations", group, FACTORS, spent, pricing) for group in _by_demonstrations(measured)),
        *(_curve("parameters", group, (_next_size(group),), spent, pricing) for group in _by_size(measured)),
    ]


def _measured(matrix: Matrix, cell: Cell, spent: Spent) -> Iterator[_Measured]:
    for part, partner in ((cell.decomposer, cell.solver), (cell.solver, cell.decomposer)):
        if partner.is_student:
            continue
        trainings = [one for one in spent.trained.get(part.name, ()) if one.examples]
        if part.trained_for == part.role and trainings and cell.attempts:
            amount = sum(one.examples for one in trainings) / len(trainings)
            yield _Measured(matrix, cell, part, trainings[0], amount)


def _by_demonstrations(measured: Sequence[_Measured]) -> list[list[_Measured]]:
    """Return students that differ in how much they learnt from: those of a curve, and of several max_examples."""
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
    over: Over, group: Sequence[_Measured], factors: Sequence[float], spent: Spent, pricing: Pricing
) -> dict[str, Any]:
    import numpy as np

    from fractionate.planning.curve import learning_curve

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
    curve["note"] = _note(curve["points"])
    try:
        fitted = learning_curve([one.amount for one in group], outcomes, answered[-1].clusters)
    except UsageError as error:
        return {**curve, "refused": str(error)}
    for factor, told in zip(factors, fitted.beyond(factors, CONFIDENCE), strict=True):
        curve["beyond"].append({"factor": factor, **asdict(told), "usd": _usd(over, last, factor, spent, pricing)})
    drawn = np.geomspace(group[0].amount, last.amount * max(factors), DRAWN)
    curve["line"] = [asdict(fitted.predict(float(amount), CONFIDENCE)) for amount in drawn]
    return curve


def _note(points: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with extrapolating from these points, "" where nothing is known to be."""
    idle = [point for point in points[:-1] if point["value"] is not None and point["value"] < NOT_BEGUN]
    if not idle:
        return ""
    most = max(idle, key=lambda point: float(point["amount"]))
    return (
        f"With {most['amount']:,.0f} the outcome is near zero ({most['value']:.1%}): such a student has hardly begun "
        "to answer, and no power law says how fast it goes on once it has. More may bring far more than is told here."
    )


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


def _usd(over: Over, last: _Measured, factor: float, spent: Spent, pricing: Pricing) -> float | None:
    """Return what going on to so many times the largest amount would cost once, None where a price is not known.

    Training is taken to last in proportion to the demonstrations, and to the parameters. More demonstrations cost what
    the run's did, screening and further chances included, for as many as are new.
    """
    hours = last.training.hours
    training = None if hours is None else pricing.by_hours(last.part.model, hours * factor)
    if training is None or over == "parameters":
        return training
    bill = spent.priced(pricing)
    asked = [bill[item] for item in (DEMONSTRATIONS, SCREENING, CHANCES) if item in bill]
    if not asked or any(isinstance(amount, str) for amount in asked):
        return None
    return training + (factor - 1) * sum(amount for amount in asked if isinstance(amount, float))
