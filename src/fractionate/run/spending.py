"""What a run took, read from its folder: the teacher's calls, the hours of training, and the calls that measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from fractionate.config import Config
from fractionate.report.results import total_usage
from fractionate.report.run_cost import (
    CHANCES,
    CURVE,
    DEMONSTRATIONS,
    EVALUATION,
    SCREENING,
    TRAINING,
    RunCost,
    Trained,
)
from fractionate.run.folder import RunFolder, read_own
from fractionate.run.names import Names
from fractionate.students.demonstrate import Demonstration
from fractionate.types import Cell, Component, Usage

_Usages = defaultdict[str, defaultdict[str, Usage]]


def read_spending(folder: RunFolder, config: Config, cells: Sequence[Cell]) -> RunCost:
    """Return what was spent on the students of a run and on its cells."""
    names = Names(config)
    usage: _Usages = defaultdict(lambda: defaultdict(Usage))
    missing: dict[str, str] = {}
    if names.students:
        missing |= _demonstrating(folder, names, usage)
    _measuring(cells, usage)
    parts = dict.fromkeys(part for cell in cells for part in (cell.decomposer, cell.solver))
    elsewhere = [part.name for part in parts if part.kind == "distilled"]
    if elsewhere:
        missing[TRAINING] = f"{', '.join(elsewhere)}: trained elsewhere, so what that took is not known"
    on_disk = [names.component(one.name, one.role) for one in names.students if folder.is_trained(one.name)]
    trained = {part.name: [_training(folder, part)] for part in (*on_disk, *parts) if part.is_student}
    return RunCost({item: dict(of_item) for item, of_item in usage.items()}, trained, missing)


def add_spending(several: Sequence[RunCost]) -> RunCost:
    """Return what several runs took together."""
    usage: _Usages = defaultdict(lambda: defaultdict(Usage))
    trained: dict[str, list[Trained]] = {}
    missing: dict[str, str] = {}
    for spent in several:
        for item, of_item in spent.usage.items():
            for model, one in of_item.items():
                usage[item][model] += one
        for name, trainings in spent.trained.items():
            trained.setdefault(name, []).extend(trainings)
        missing |= spent.missing
    return RunCost({item: dict(of_item) for item, of_item in usage.items()}, trained, missing)


def _demonstrating(folder: RunFolder, names: Names, usage: _Usages) -> dict[str, str]:
    """Add what the teacher's chances took; return by item why that is not known."""
    if not folder.demonstrations.is_file():
        return {DEMONSTRATIONS: f"{folder.demonstrations.name} is not there"}
    teacher, solver = names.teacher.model, names.screen_solver.model
    for row in read_own(folder.demonstrations, "demonstrate"):
        one = Demonstration.from_row(row)
        if one.decomposer_usage is None or one.solver_usage is None:
            return {DEMONSTRATIONS: f"{folder.demonstrations.name} does not say it: run fractionate demonstrate again"}
        usage[CHANCES if one.sample else DEMONSTRATIONS][teacher] += one.decomposer_usage
        if one.solved:
            usage[CHANCES if one.sample else SCREENING][solver] += one.solver_usage
    return {}


def _measuring(cells: Iterable[Cell], usage: _Usages) -> None:
    """Add what the cells took. A decomposer's subquestions are made once for its two-stage cells."""
    made: set[tuple[str, str, str, Component]] = set()
    for cell in cells:
        of_item = usage[EVALUATION if cell.decomposer.share == cell.solver.share == 1 else CURVE]
        decomposed = (cell.dataset, cell.split, cell.reference, cell.decomposer)
        again = decomposed in made
        if cell.stages == "two-stage":
            made.add(decomposed)
        of_item[cell.solver.model] += total_usage(cell.columns, "solver")
        if cell.stages == "dynamic" or not again:
            of_item[cell.decomposer.model] += total_usage(cell.columns, "decomposer")


def _training(folder: RunFolder, student: Component) -> Trained:
    try:
        report: Any = json.loads((folder.student(student.name) / "training.json").read_text(encoding="utf-8"))
        hours = float(report["seconds"]) / 3600
        parameters = int(report.get("parameters", 0))
        return Trained(student.model, int(report["examples"]), hours, parameters, student.share)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Trained(student.model, 0, None, share=student.share)
