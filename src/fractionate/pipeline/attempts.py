"""attempts.jsonl: every attempt of every cell, one line each, enough to make every report again without a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractionate.pipeline.folder import read_own
from fractionate.types import Attempt, Cell, Decomposition, Problem, Score, Usage

_CELL = ("dataset", "split", "strategy", "decomposer", "solver", "metric", "decomposer_model", "solver_model",
         "reference")  # fmt: skip


def attempt_rows(cells: Iterable[Cell]) -> Iterator[dict[str, Any]]:
    """Yield one row an attempt."""
    for cell in cells:
        named = {name: getattr(cell, name) for name in _CELL}
        for attempt in cell.attempts:
            problem, decomposition = attempt.problem, attempt.decomposition
            yield {
                **named,
                "id": problem.id,
                "index": problem.index,
                "kind": problem.kind,
                "question": problem.question,
                "answers": [list(answer) for answer in problem.answers],
                "subquestions": list(decomposition.subquestions) if decomposition else None,
                "decomposition": asdict(decomposition) if decomposition else None,
                "output": attempt.output,
                "prediction": list(attempt.prediction) if attempt.prediction is not None else None,
                "exact_match": attempt.score.exact_match,
                "f1": attempt.score.f1,
                "fell_back": attempt.fell_back,
                "decomposer_usage": asdict(attempt.decomposer_usage),
                "solver_usage": asdict(attempt.solver_usage),
                "latency_s": attempt.latency_s,
                "failures": list(attempt.failures),
            }


def read_cells(path: Path) -> list[Cell]:
    """Read attempts.jsonl back into cells. Raises UsageError for a row that lacks a field."""
    grouped: dict[tuple[str, ...], list[Attempt]] = {}
    for row in read_own(path, "evaluate"):
        try:
            grouped.setdefault(tuple(row.values[name] for name in _CELL), []).append(_attempt(row.values))
        except (KeyError, TypeError, ValueError) as error:
            raise row.error(f"not an attempt ({error}): run fractionate evaluate again") from None
    return [_cell(named, attempts) for named, attempts in grouped.items()]


def _cell(values: Sequence[Any], attempts: Sequence[Attempt]) -> Cell:
    named: dict[str, Any] = dict(zip(_CELL, values, strict=True))
    return Cell(**named, attempts=tuple(attempts))


def _attempt(row: Mapping[str, Any]) -> Attempt:
    problem = Problem(
        id=row["id"],
        question=row["question"],
        answers=tuple(tuple(answer) for answer in row["answers"]),
        dataset=row["dataset"],
        split=row["split"],
        index=row["index"],
        kind=row["kind"],
    )
    read = row["decomposition"]
    return Attempt(
        problem=problem,
        prediction=tuple(row["prediction"]) if row["prediction"] is not None else None,
        score=Score(row["exact_match"], row["f1"]),
        output=row["output"],
        decomposition=Decomposition(tuple(read["subquestions"]), read["status"], read["raw"], read["dropped"])
        if read
        else None,
        fell_back=row["fell_back"],
        decomposer_usage=Usage(**row["decomposer_usage"]),
        solver_usage=Usage(**row["solver_usage"]),
        latency_s=row["latency_s"],
        failures=tuple(row["failures"]),
    )
