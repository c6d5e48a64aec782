"""Two readings of outputs side by side: what of a gain is form, what substance; and cells that were hardly read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.matrix import Matrix
from fractionate.types import Cell, Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 0.1
"""The share of a cell's outputs from which on those unread, or cut off, are said before anything else."""


@dataclass(frozen=True, slots=True)
class Split:
    """A gain in two parts that add up to it: a − b of what only the strict reading gains, and of what both gain."""

    form: Contrast
    substance: Contrast


@dataclass(frozen=True, slots=True)
class Unread:
    """A cell with more than `MOST` of its outputs unread or cut off: both shares of 1, and what would fix it."""

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
    if not (is_read_leniently(a) and is_read_leniently(b)):
        return None
    return Split(contrast(matrix, b, a, confidence, "lost"), contrast(matrix, a, b, confidence, "lenient"))


def unread_cells(matrix: Matrix) -> list[Unread]:
    """Return the cells of a test set of whose outputs too many are unread or cut off."""
    found = []
    for cell in matrix.cells:
        outputs = cell.columns.outputs
        unread, cut_off = share(outputs.column("unextracted")), share(outputs.cut_off)
        if max(unread, cut_off) > MOST:
            found.append(Unread(matrix.name(cell), len(outputs), unread, cut_off, _fixes(cell)))
    return found


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
    unread = outputs.column("unextracted")
    if share(unread & outputs.column("failed")) > MOST / 2:
        fixes.append("see why calls failed (failures in attempts.jsonl), and run again")
    if share(unread & (outputs.column("failures") == 0)) > MOST / 2:
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
