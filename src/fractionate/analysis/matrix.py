"""Which measured cells belong together: the matrix of one test set, the same pooled over several runs, and names.

A pooled question counts with its mean over the runs. The columns of a pooled cell keep scores and usage run by run: its
intervals and tests take runs and questions as two sources of chance (`statistics/paired.py`, `dollars.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fractionate.analysis.corrections import value_of
from fractionate.analysis.rule import Rule
from fractionate.averages import MeanAttempts
from fractionate.errors import UsageError
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
    values = {key: {name: value_of(cell) for name, cell in of_run.items()} for key, of_run in found.items()}
    return pooled, values


def key_of(cell: Cell) -> Key:
    """Return what makes a cell the same one in several runs."""
    return cell.dataset, cell.split, cell.strategy, cell.decomposer.name, cell.solver.name


def _pool(of_run: Mapping[str, Cell]) -> Cell:
    (first_name, first), *others = of_run.items()
    import numpy as np

    for name, cell in others:
        if not np.array_equal(cell.columns.ids, first.columns.ids):
            raise UsageError(f"{name} and {first_name} asked other questions in {_said(cell)}: they cannot be pooled")
        if cell.judge != first.judge:
            raise UsageError(f"{name} and {first_name} had other judges in {_said(cell)}: evaluate one of them again")
    return replace(first, attempts=MeanAttempts([cell.attempts for cell in of_run.values()], pooled=True))


def _said(cell: Cell) -> str:
    return f"{cell.dataset}#{cell.split}/{cell.strategy}/{cell.decomposer.name}/{cell.solver.name}"


_PREFIXES = ("local", "recorded", "http", "https", "openai", "echo")


def short_pair_names(decomposers: Iterable[str], solvers: Iterable[str]) -> dict[str, str]:
    """Return short forms of the names of both roles, unique within each role (a decomposer and a solver may share)."""
    of_decomposers, of_solvers = list(decomposers), list(solvers)
    both = set(of_decomposers) & set(of_solvers)
    short = {**short_names(of_decomposers), **short_names(of_solvers)}
    return {**short, **{name: form for name, form in short_names([*short]).items() if name in both}}


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return a short, still unique form of each model name: the end of its path, as much as it takes.

    "local:org/Model-1B@run/D-R" reads "Model-1B@D-R"; names without a path stay as they are.
    """
    wanted = list(dict.fromkeys(names))
    pieces = {name: _pieces(name) for name in wanted}
    short = {name: name for name in wanted}
    for name in wanted:
        for length in range(1, len(pieces[name]) + 1):
            form = "/".join(pieces[name][-length:])
            rivals = [other for other in wanted if other != name and "/".join(pieces[other][-length:]) == form]
            if not rivals and form not in wanted:
                short[name] = form
                break
    return short


def _pieces(name: str) -> list[str]:
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in _PREFIXES:
        return [name]
    base, at, adapter = rest.partition("@")
    ending = f"@{adapter.rstrip('/').rsplit('/', 1)[-1]}" if at else ""
    parts = [part for part in base.replace("#", "/").split("/") if part]
    if not parts:
        return [name]
    if parts[-1].endswith(".jsonl"):
        parts[-1] = parts[-1].removesuffix(".jsonl")
    parts[-1] += ending
    return parts
