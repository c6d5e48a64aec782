"""What a run took: calls of the teacher, hours of training, calls that measured; and how fast local models are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fractionate.analysis.pricing import Pricing
from fractionate.config import Config
from fractionate.report.results import total_usage
from fractionate.report.run_cost import (
    CHANCES,
    CURVE,
    DEMONSTRATIONS,
    EVALUATION,
    JUDGING,
    SCREENING,
    TRAINING,
    RunCost,
    Trained,
)
from fractionate.run.folder import RunFolder, read_own
from fractionate.run.names import Names, judge_model
from fractionate.run.records import read_throughput, read_training, write_throughput
from fractionate.run.run import Run
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
    _judging(cells, judge_model(config), usage)
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
    """Add what the teacher's samples took; return by item why that is not known."""
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


def _judging(cells: Iterable[Cell], judge: str, usage: _Usages) -> None:
    """Add what scoring by a judge took."""
    for cell in cells:
        for question in range(len(cell.columns) if cell.judge else 0):
            for attempt in cell.outputs_at(question):
                usage[JUDGING][judge] += attempt.judge_usage


def _training(folder: RunFolder, student: Component) -> Trained:
    record = read_training(folder.student(student.name))
    examples, seconds = record.get("examples"), record.get("seconds")
    if examples is None or seconds is None:
        return Trained(student.model, 0, None, share=student.share)
    return Trained(student.model, examples, seconds / 3600, record.get("parameters", 0), student.share)


def measure_speed(run: Run) -> None:
    """Measure every local base model whose machine has a price, unless this folder holds its throughput already."""
    known = read_throughput(run.folder)
    asked = [component.model for pair in run.pairs() for component in (pair.decomposer, pair.solver)]
    wanted = [name for name in Pricing.of(run.config).machines(asked) if name not in known]
    if not wanted:
        return
    from fractionate.models.local.model import LocalModel
    from fractionate.models.local.throughput import measure_throughput

    models = [LocalModel(name, run.config.options(name)) for name in wanted]
    found = dict(zip(wanted, measure_throughput(models, say=run.progress.step), strict=True))
    for name, one in found.items():
        run.progress.stage(
            f"speed of {name}: {min(one.output_per_s):,.0f}–{max(one.output_per_s):,.0f} tokens/s written"
        )
    write_throughput(run.folder, {**known, **found})
