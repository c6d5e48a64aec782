"""attempts.jsonl: every attempt of every cell, one line each, enough to make every report again without a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractionate.averages import mean_attempt
from fractionate.rows import shown
from fractionate.run.folder import read_own
from fractionate.types import Attempt, Cell, Component, Decomposition, Problem, Role, Score, Usage

_TEXTS = (
    *("id", "kind", "group", "question", "context", "output"),
    *("dataset", "split", "strategy", "stages", "label", "metric", "reference"),
)
_NUMBERS = ("exact_match", "f1", "latency_s")
_MOST = 1e15
"""More than any count or time that a run comes to."""
_CELL = ("dataset", "split", "strategy", "stages", "label", "metric", "reference")


def attempt_rows(cells: Iterable[Cell]) -> Iterator[dict[str, Any]]:
    """Yield one row per attempt, a question's repeats one after another, numbered from 0.

    `components` says what the names of decomposer and solver stood for.
    """
    for cell in cells:
        named = {name: getattr(cell, name) for name in _CELL}
        named |= {"decomposer": cell.decomposer.name, "solver": cell.solver.name}
        components = {"decomposer": asdict(cell.decomposer), "solver": asdict(cell.solver)}
        for question in cell.attempts:
            for repeat, attempt in enumerate(question.outputs):
                yield {**named, **_row(attempt, repeat), "components": components}


def _row(attempt: Attempt, repeat: int) -> dict[str, Any]:
    problem, decomposition = attempt.problem, attempt.decomposition
    return {
        "id": problem.id,
        "index": problem.index,
        "repeat": repeat,
        "kind": problem.kind,
        "group": problem.group,
        "question": problem.question,
        "context": problem.context,
        "answers": [list(answer) for answer in problem.answers],
        "subquestions": list(decomposition.subquestions) if decomposition else None,
        "decomposition": asdict(decomposition) if decomposition else None,
        "output": attempt.output,
        "prediction": list(attempt.prediction) if attempt.prediction is not None else None,
        "exact_match": attempt.score.exact_match,
        "f1": attempt.score.f1,
        "lenient": attempt.lenient._asdict() if attempt.lenient else None,
        "fell_back": attempt.fell_back,
        "decomposer_usage": asdict(attempt.decomposer_usage),
        "solver_usage": asdict(attempt.solver_usage),
        "latency_s": attempt.latency_s,
        "failures": list(attempt.failures),
        "cut_off": list(attempt.cut_off),
    }


def read_cells(path: Path) -> list[Cell]:
    """Read attempts.jsonl back into cells. Raises UsageError for a row that lacks a field."""
    grouped: dict[tuple[Any, ...], list[list[Attempt]]] = {}
    contexts: dict[str, str] = {}
    for row in read_own(path, "evaluate"):
        try:
            key = tuple(row.values[name] for name in _CELL)
            _check(row.values)
            components = tuple(_component(row.values["components"][role]) for role in ("decomposer", "solver"))
            questions = grouped.setdefault((*key, *components), [])
            if not row.values.get("repeat"):
                questions.append([])
            questions[-1].append(_attempt(row.values, contexts))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise row.error(f"not an attempt ({error}): run fractionate evaluate again") from None
    return [_cell(key, attempts) for key, attempts in grouped.items()]


def _cell(key: tuple[Any, ...], questions: list[list[Attempt]]) -> Cell:
    *named, decomposer, solver = key
    fields: dict[str, Any] = dict(zip(_CELL, named, strict=True))
    return Cell(**fields, decomposer=decomposer, solver=solver, attempts=tuple(map(mean_attempt, questions)))


def _component(row: Mapping[str, Any]) -> Component:
    return Component(**{**row, "learnt_from": tuple(row["learnt_from"])})


def _check(row: Mapping[str, Any]) -> None:
    """Raise TypeError for a field of another kind than the reports are made of."""
    for name in _TEXTS:
        if not isinstance(row[name], str):
            raise TypeError(f"{name!r} must be text, not {shown(row[name])}")
    numbers = {name: row[name] for name in _NUMBERS}
    for role in ("decomposer", "solver"):
        numbers |= {f"{role}_usage.{name}": value for name, value in row[f"{role}_usage"].items()}
    numbers |= {f"lenient.{name}": value for name, value in (row.get("lenient") or {}).items()}
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not 0 <= value < _MOST:
            raise TypeError(f"{name!r} must be a number from 0, not {shown(value)}")
    read = row["decomposition"] or {"subquestions": []}
    for words in (
        *row["answers"],
        row["prediction"] or [],
        row["failures"],
        row.get("cut_off", []),
        read["subquestions"],
    ):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"a list of texts is expected, not {shown(words)}")


def _attempt(row: Mapping[str, Any], contexts: dict[str, str]) -> Attempt:
    problem = Problem(
        id=row["id"],
        question=row["question"],
        answers=tuple(tuple(answer) for answer in row["answers"]),
        context=contexts.setdefault(row["context"], row["context"]),  # one passage stands in many rows: keep one of it
        dataset=row["dataset"],
        split=row["split"],
        index=row["index"],
        kind=row["kind"],
        group=row["group"],
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
        cut_off=tuple(row["cut_off"]) if "cut_off" in row else _cut_off_before(row["failures"]),
        lenient=Score(**row["lenient"]) if row.get("lenient") else None,
    )


def _cut_off_before(failures: Sequence[str]) -> tuple[Role, ...]:
    """Return who was cut off in a row that does not say it (older ones do not): the solver, most likely."""
    return ("solver",) if "length" in failures else ()
