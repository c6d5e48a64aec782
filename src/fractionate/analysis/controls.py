"""The controls of a verdict: that decomposing helps, and that training a part does (assay sensitivity).

"No worse than the undistilled pair" says nothing where that pair is itself no better than answering at once, or where
the student does as well before any training. So each configuration has to show more than these, or the verdict says
which control failed or was not measured.
"""

from __future__ import annotations

from fractionate.analysis.contrasts import Contrast, contrast
from fractionate.analysis.findings import Answer, Claim, Control
from fractionate.analysis.matrix import Matrix
from fractionate.analysis.reading import split_gain
from fractionate.analysis.rule import Rule
from fractionate.types import Cell, Component, Role

CLAIMS: tuple[Role, Role] = ("decomposer", "solver")
SINGLE_STAGE = ("single", "single-cot")
"""The single-stage baselines that decomposing has to beat, both of them. Others, such as a vote, cost several calls."""


def decomposing_controls(matrix: Matrix, cell: Cell, solver: Component, rule: Rule, level: float) -> list[Control]:
    """Return a two-stage cell against a solver's single-stage cells, direct and with chain of thought."""
    measured = {one.strategy: one for one in matrix.single_stage(solver) if one.attempts}
    controls = []
    for strategy in SINGLE_STAGE:
        if strategy in measured:
            controls.append(_control("decomposing", matrix, cell, measured[strategy], rule, level))
        else:
            controls.append(Control("decomposing", "unknown", missing=f"{strategy} by {solver.name}"))
    return controls


def training_controls(matrix: Matrix, cell: Cell, rule: Rule, level: float) -> list[Control]:
    """Return a distilled cell against the same cell with each trained part's untrained base in its place."""
    controls = []
    for claim in CLAIMS:
        part = cell.decomposer if claim == "decomposer" else cell.solver
        if part.trained_for != claim:
            continue
        bases = untrained_in_place(matrix, cell, claim)
        if not bases:
            controls.append(Control(claim, "unknown", missing=f"the untrained model in the place of {part.name}"))
        controls += [_control(claim, matrix, cell, base, rule, level) for base in bases]
    return controls


def untrained_in_place(matrix: Matrix, cell: Cell, claim: Role) -> list[Cell]:
    """Return the cells that differ from `cell` only in having an untrained model where it has a trained one.

    A single-stage student is laid beside every single-stage strategy of its base.
    """
    part, partner = (cell.decomposer, cell.solver) if claim == "decomposer" else (cell.solver, cell.decomposer)
    if part.trained_for != claim or not part.model:
        return []
    found = []
    for other in matrix.cells:
        theirs, beside = (other.decomposer, other.solver) if claim == "decomposer" else (other.solver, other.decomposer)
        untrained = not theirs.trained_for and theirs.model == part.model
        same_form = other.stages == "single" if cell.stages == "single" else other.strategy == cell.strategy
        if untrained and same_form and beside == partner and other.attempts:
            found.append(other)
    return found


def _control(claim: Claim, matrix: Matrix, cell: Cell, baseline: Cell, rule: Rule, level: float) -> Control:
    found = contrast(matrix, cell, baseline, level)
    split = split_gain(matrix, cell, baseline, level) if claim != "decomposing" else None
    return Control(claim, _shown_better(found, rule), found, split=split)


def _shown_better(found: Contrast, rule: Rule) -> Answer:
    """Return "yes" where a was shown better, "no" where it was shown to bring no more than the margin."""
    if found.ci_low > 0:
        return "yes"
    return "no" if found.ci_high <= rule.margin / 100 else "undecided"
