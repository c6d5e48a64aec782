"""fractionate's own runs: one cell of a run's folder or of its attempts.jsonl, priced as the run's report prices it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.analysis.contrasts import misfit_in
from fractionate.analysis.matrix import matrices, short_pair_names
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.systems import Answered, System
from fractionate.config import PriceConfig
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, named
from fractionate.run.attempt_rows import read_jsonl
from fractionate.run.attempts import read_measured
from fractionate.run.folder import RunFolder
from fractionate.run.records import read_throughput
from fractionate.run.reporting import load_stored_config
from fractionate.types import Attempt, Cell, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_cell(path: Path, cell_name: str, name: str, choices: Choices, prices: Mapping[str, PriceConfig]) -> System:
    """Read one cell of a run's folder, or of an attempts.jsonl; `cell_name` may be "" where there is only one.

    Raises UsageError naming the cells where there are several, or none of that name.
    """
    folder = RunFolder(path if path.is_dir() else path.parent)
    cell = _chosen(read_measured(folder) if path.is_dir() else read_jsonl(path), cell_name, path)
    metric = choices.metric or cell.metric
    if metric not in ("exact_match", "f1"):
        raise UsageError(f"{path} has the metrics exact_match and f1, not {metric!r}: fix --metric")
    answers = [
        _answered(cell, attempt, bool(unparsed), metric, choices, str(path))
        for attempt, unparsed in zip(cell.attempts, _unparsed(cell), strict=True)
    ]
    calibration = str(folder.path.resolve())
    return System(name, tuple(answers), "fractionate", (), _pricing(folder, prices), calibration, misfit_in(cell))


def _chosen(cells: list[Cell], wanted: str, path: Path) -> Cell:
    names: dict[str, tuple[Cell, set[str]]] = {}
    short = short_pair_names((cell.decomposer.name for cell in cells), (cell.solver.name for cell in cells))
    for matrix in matrices(cells):
        for cell in matrix.cells:
            parts = (cell.strategy, cell.decomposer.name, cell.solver.name)
            forms = {"/".join(parts), "/".join((parts[0], short[parts[1]], short[parts[2]]))}
            full = f"{matrix.label}/{parts[0]}/{short[parts[1]]}/{short[parts[2]]}"
            names[matrix.name(cell)] = (cell, {matrix.name(cell), full, *forms})
    found = [cell for cell, forms in names.values() if not wanted or wanted in forms]
    if len(found) == 1:
        return found[0]
    problem = f"no cell {wanted!r}" if not found else f"{len(found)} cells" + (f" called {wanted!r}" if wanted else "")
    raise UsageError(f"{path} has {problem}: write {path}:CELL with one of {named(names)}")


def _unparsed(cell: Cell) -> NDArray[np.bool_]:
    """Return whether any output of each question is unparsed."""
    import numpy as np

    outputs = cell.columns.outputs.column("unextracted")
    return np.logical_or.reduceat(outputs, cell.columns.starts) if len(outputs) else outputs


def _answered(cell: Cell, attempt: Attempt, unparsed: bool, metric: str, choices: Choices, where: str) -> Answered:
    problem = attempt.problem
    fields = {"id": problem.id, "index": problem.index, "kind": problem.kind, "question": problem.question}
    grouped = {**fields, "group": problem.group, "context": problem.context}
    usage: dict[str, Usage] = {}
    for component, used in ((cell.decomposer, attempt.decomposer_usage), (cell.solver, attempt.solver_usage)):
        if used.calls:
            usage[component.model] = usage[component.model] + used if component.model in usage else used
    return Answered(
        question_id=choices.id_of(fields, where) if choices.id else problem.id,
        outcome=float(getattr(attempt.score, metric)),
        group=choices.group_of(grouped, where),
        question=problem.question,
        usage=usage,
        unparsed=unparsed,
        lenient=None if attempt.lenient is None else float(getattr(attempt.lenient, metric)),
    )


def _pricing(folder: RunFolder, prices: Mapping[str, PriceConfig]) -> Pricing:
    if not folder.config.is_file():
        return Pricing(prices)
    config = load_stored_config(folder, [])
    return Pricing.of(config.model_copy(update={"prices": {**config.prices, **prices}}), read_throughput(folder))
