"""Which measured cells belong together: the matrix of one test set, its undistilled pair, its baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fractionate.analysis.rule import Rule
from fractionate.types import Cell, Component


@dataclass(frozen=True)
class Matrix:
    """The cells of one test set. `label` is unique in a run: the data set, with its split where it needs one."""

    label: str
    cells: tuple[Cell, ...]

    def name(self, cell: Cell) -> str:
        """Return a cell's name, unique in the run: test set/strategy/decomposer/solver."""
        return f"{self.label}/{cell.strategy}/{cell.decomposer.name}/{cell.solver.name}"

    def two_stage(self) -> list[Cell]:
        """Return the cells whose question was decomposed, in order."""
        return [cell for cell in self.cells if cell.stages != "single"]

    def single_stage(self, solver: Component | None = None) -> list[Cell]:
        """Return the single-stage cells, or one solver's alone: the baselines of its two-stage ones."""
        return [cell for cell in self.cells if cell.stages == "single" and solver in (None, cell.solver)]

    def judged_strategy(self, rule: Rule) -> str:
        """Return the two-stage strategy that is judged: the rule's, else static, else the first measured, else ""."""
        measured = [cell.strategy for cell in self.two_stage()]
        if rule.strategy:
            return rule.strategy
        return "static" if "static" in measured else next(iter(measured), "")

    def reference_solver(self, rule: Rule) -> Component | None:
        """Return the undistilled solver: the rule's, else the teacher, else the first that is no student."""
        solvers = list(dict.fromkeys(cell.solver for cell in self.cells))
        if rule.solver:
            return next((solver for solver in solvers if rule.solver == solver.name), None)
        first = sorted(solvers, key=lambda solver: (solver.name != "teacher", solver.kind != "teacher"))
        return next((solver for solver in first if not solver.is_student), None)

    def undistilled(self, strategy: str, rule: Rule) -> Cell | None:
        """Return the undistilled pair under a strategy: the teacher decomposes, the reference solver solves."""
        solver = self.reference_solver(rule)
        found = [
            cell
            for cell in self.two_stage()
            if cell.strategy == strategy and cell.solver == solver and cell.decomposer.kind == "teacher"
        ]
        return min(found, key=lambda cell: cell.decomposer.name != "teacher", default=None)


def matrices(cells: Iterable[Cell]) -> list[Matrix]:
    """Group cells by test set, in order of first sight. A pair seen again opens another set of the same data set."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    seen: Counter[tuple[str, str, str, str, str]] = Counter()
    for cell in cells:
        pair = (cell.dataset, cell.split, cell.strategy, cell.decomposer.name, cell.solver.name)
        groups.setdefault((cell.dataset, cell.split, seen[pair]), []).append(cell)
        seen[pair] += 1
    splits = {(dataset, split) for dataset, split, _ in groups}
    several = {dataset for dataset, count in Counter(dataset for dataset, _ in splits).items() if count > 1}
    return [
        Matrix(_label(dataset, split if dataset in several else "", occurrence), tuple(members))
        for (dataset, split, occurrence), members in groups.items()
    ]


def of_whole_students(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells without a student of a learning curve: those that are judged and compared.

    Shares are trained to see where more would lead. As candidates they would share out the verdict's error.
    """
    return [cell for cell in cells if cell.decomposer.share == cell.solver.share == 1]


def is_candidate_decomposer(component: Component) -> bool:
    """Return whether a decomposer may be named in a verdict: a student that was trained to decompose."""
    return component.trained_for == "decomposer"


def is_candidate_solver(component: Component) -> bool:
    """Return whether a solver may be named in a verdict: a student that was trained to solve."""
    return component.trained_for == "solver"


def _label(dataset: str, split: str, occurrence: int) -> str:
    name = f"{dataset}#{split}" if split else dataset
    return f"{name} ({occurrence + 1})" if occurrence else name
