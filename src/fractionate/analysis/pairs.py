"""Which measured cells belong together: test sets, the undistilled pair, its students, the single-stage baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fractionate.config import SOLVER_VARIANTS, Config
from fractionate.types import Attempt, Cell

SINGLE_STAGE = ("single", "single-cot")
NOT_STUDENTS = frozenset({"none", "teacher", "gold", "solver", "student"})
"""Names of decomposers that are no candidates: "student" is the base as it comes, before any distilling."""


@dataclass(frozen=True)
class TestSet:
    """The cells of one test set. `label` is unique in a run: the data set, with its split where it needs one."""

    __test__ = False  # the name is the field's, not pytest's

    label: str
    cells: tuple[Cell, ...]

    def find(self, strategy: str, decomposer: str, solver: str) -> Cell | None:
        """Return the cell of these names, or None."""
        wanted = (strategy, decomposer, solver)
        return next((cell for cell in self.cells if _key(cell) == wanted), None)

    def name(self, cell: Cell) -> str:
        """Return a cell's name, unique in the run: test set/strategy/decomposer/solver."""
        return f"{self.label}/{cell.strategy}/{cell.decomposer}/{cell.solver}"

    def two_stage(self) -> list[Cell]:
        """Return the cells whose question was decomposed, in order."""
        return [cell for cell in self.cells if cell.strategy not in SINGLE_STAGE]

    def single_stage(self, solver: str) -> list[Cell]:
        """Return a solver's single-stage cells: the baselines of its two-stage ones."""
        return [cell for cell in self.cells if cell.strategy in SINGLE_STAGE and cell.solver == solver]


def by_test_set(cells: Iterable[Cell]) -> list[TestSet]:
    """Group cells by test set, in order of first sight. A pair seen again opens another set of the same data set."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    seen: Counter[tuple[str, str, str, str, str]] = Counter()
    for cell in cells:
        pair = (cell.dataset, cell.split, *_key(cell))
        groups.setdefault((cell.dataset, cell.split, seen[pair]), []).append(cell)
        seen[pair] += 1
    splits = {(dataset, split) for dataset, split, _ in groups}
    several = {dataset for dataset, count in Counter(dataset for dataset, _ in splits).items() if count > 1}
    return [
        TestSet(_label(dataset, split if dataset in several else "", occurrence), tuple(members))
        for (dataset, split, occurrence), members in groups.items()
    ]


def _label(dataset: str, split: str, occurrence: int) -> str:
    name = f"{dataset}#{split}" if split else dataset
    return f"{name} ({occurrence + 1})" if occurrence else name


def _key(cell: Cell) -> tuple[str, str, str]:
    return (cell.strategy, cell.decomposer, cell.solver)


def judged_strategy(test: TestSet, config: Config) -> str:
    """Return the two-stage strategy that is judged: the config's, else static, else the first one measured, else ""."""
    measured = [cell.strategy for cell in test.two_stage()]
    if config.verdict.strategy:
        return config.verdict.strategy
    return "static" if "static" in measured else next(iter(measured), "")


def reference_solver(test: TestSet, config: Config) -> str:
    """Return the undistilled solver: the config's, else the teacher, else the first that is no student, or ""."""
    measured = {cell.solver for cell in test.cells}
    if config.verdict.solver:
        return config.verdict.solver
    in_order = [name for name in ("teacher", config.models.teacher, *config.models.solvers) if name in measured]
    in_order += [cell.solver for cell in test.cells]
    return next((name for name in in_order if not config.variant(name)), "")


def decomposes_as_teacher(cell: Cell, config: Config) -> bool:
    """Return whether a cell's decomposer is the teacher, by that name or by its model's."""
    teacher = config.models.teacher
    return cell.decomposer == "teacher" or (teacher != "" and teacher in (cell.decomposer, cell.decomposer_model))


def undistilled(test: TestSet, strategy: str, config: Config) -> Cell | None:
    """Return the undistilled pair under a strategy: the teacher decomposes, the reference solver solves."""
    solver = reference_solver(test, config)
    found = [
        cell
        for cell in test.two_stage()
        if cell.strategy == strategy and cell.solver == solver and decomposes_as_teacher(cell, config)
    ]
    return min(found, key=lambda cell: cell.decomposer != "teacher", default=None)


def has_student_decomposer(cell: Cell, config: Config) -> bool:
    """Return whether a cell's decomposer is a candidate: any model but the teacher, and not the reference's own."""
    return cell.decomposer not in NOT_STUDENTS and not decomposes_as_teacher(cell, config)


def has_student_solver(cell: Cell, config: Config) -> bool:
    """Return whether a cell's solver is a student trained to solve."""
    return config.variant(cell.solver) in SOLVER_VARIANTS


def is_single_stage_student(name: str, config: Config) -> bool:
    """Return whether a solver is a student that was trained without subquestions."""
    return config.variant(name).startswith("S-")


def pair_up(a: Cell, b: Cell) -> tuple[list[Attempt], list[Attempt]]:
    """Return both cells' attempts at the questions they share, in a's order."""
    other = {attempt.problem.id: attempt for attempt in b.attempts}
    shared = [attempt for attempt in a.attempts if attempt.problem.id in other]
    return shared, [other[attempt.problem.id] for attempt in shared]


def outcomes(attempts: Sequence[Attempt], metric: str) -> list[float]:
    """Return the metric of each attempt, 0 to 1."""
    return [float(getattr(attempt.score, metric)) for attempt in attempts]


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
    if not colon or prefix not in {"local", "recorded", "http", "https", "openai", "echo"}:
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
