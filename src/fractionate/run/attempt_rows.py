"""Attempts as rows of JSON: the one form that attempts.sqlite and attempts.jsonl share.

A line of attempts.jsonl is a cell's fields, then the question, then the attempt. The store keeps the three apart, so
that a question asked by several cells is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

from fractionate.averages import MeanAttempts
from fractionate.datasets.base import Metric
from fractionate.errors import UsageError
from fractionate.files import encodable
from fractionate.rows import read_turns, shown, written_turns
from fractionate.run.folder import read_own
from fractionate.types import (
    ROLES,
    Attempt,
    Cell,
    Component,
    Decomposition,
    Kind,
    Problem,
    Role,
    Score,
    Stages,
    ToolUse,
    Usage,
)

Json = dict[str, Any]

_NAMED = ("dataset", "split", "strategy", "stages", "label", "metric", "reference")
_CHOICES = {"stages": get_args(Stages), "metric": get_args(Metric)}
_QUESTION_TEXTS = ("id", "kind", "group", "question", "context")
_USAGE, _DECOMPOSITION = (tuple(field.name for field in fields(kind)) for kind in (Usage, Decomposition))
_MOST = 1e15
"""More than any count or time that a run comes to."""
INVALID = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)


def attempt_lines(cells: Iterable[Cell]) -> Iterator[Json]:
    """Yield a row of attempts.jsonl for every attempt, a question's repeats one after another, numbered from 0.

    `components` says what the names of decomposer and solver stood for.
    """
    for cell in cells:
        fields = cell_row(cell)
        components = fields.pop("components")
        for question in range(len(cell.columns)):
            for repeat, attempt in enumerate(cell.outputs_at(question)):
                asked = question_row(attempt.problem)
                first = {"id": asked["id"], "index": asked["index"], "repeat": repeat}
                subquestions = list(attempt.decomposition.subquestions) if attempt.decomposition else None
                own = {"subquestions": subquestions, **attempt_row(attempt)}
                yield {**fields, **first, **asked, **own, "components": components}


def cell_row(cell: Cell) -> Json:
    """Return a cell's fields, without its attempts."""
    return {
        **{name: getattr(cell, name) for name in _NAMED},
        "decomposer": cell.decomposer.name,
        "solver": cell.solver.name,
        "components": {"decomposer": _component_row(cell.decomposer), "solver": _component_row(cell.solver)},
        **({"judge": cell.judge} if cell.judge else {}),
    }


def _component_row(component: Component) -> Json:
    """Return a component's fields; a base stands there only for what has one."""
    fields = asdict(component)
    return fields if component.base else {name: value for name, value in fields.items() if name != "base"}


def question_row(problem: Problem) -> Json:
    """Return a question's fields. Its data set and split are those of the cell."""
    return {
        "id": problem.id,
        "index": problem.index,
        "kind": problem.kind,
        "group": problem.group,
        "question": problem.question,
        "context": problem.context,
        **({"history": written_turns(problem.history)} if problem.history else {}),
        "answers": [list(answer) for answer in problem.answers],
    }


def attempt_row(attempt: Attempt) -> Json:
    """Return an attempt's own fields."""
    decomposition = attempt.decomposition
    return {
        "decomposition": _fields(decomposition, _DECOMPOSITION) if decomposition else None,
        "output": attempt.output,
        "prediction": list(attempt.prediction) if attempt.prediction is not None else None,
        "exact_match": attempt.score.exact_match,
        "f1": attempt.score.f1,
        "lenient": attempt.lenient._asdict() if attempt.lenient else None,
        "fell_back": attempt.fell_back,
        "decomposer_usage": _fields(attempt.decomposer_usage, _USAGE),
        "solver_usage": _fields(attempt.solver_usage, _USAGE),
        "latency_s": attempt.latency_s,
        "failures": list(attempt.failures),
        "cut_off": list(attempt.cut_off),
        **({"tools": _tools_row(attempt.tools)} if attempt.tools else {}),
        **({"judge_usage": _fields(attempt.judge_usage, _USAGE)} if attempt.judge_usage.calls else {}),
        **({"gold": attempt.gold._asdict()} if attempt.gold else {}),
    }


def read_jsonl(path: Path) -> list[Cell]:
    """Read attempts.jsonl back into cells. Raises UsageError for a row that is no attempt."""
    grouped: dict[str, tuple[Cell, list[list[Attempt]]]] = {}
    contexts: dict[str, str] = {}
    for row in read_own(path, "evaluate"):
        try:
            key = repr([row.values.get("judge"), *(row.values[name] for name in (*_NAMED, "components"))])
            if key not in grouped:
                grouped[key] = cell_of(row.values), []
            cell, questions = grouped[key]
            if not row.values.get("repeat"):
                questions.append([])
            problem = problem_of(row.values, cell)
            # A passage stands in the rows of many questions: it is kept once.
            problem = replace(problem, context=contexts.setdefault(problem.context, problem.context))
            questions[-1].append(attempt_of(row.values, problem))
        except INVALID as error:
            raise row.error(f"not an attempt ({describe(error)}): run fractionate evaluate again") from None
    return [_with(cell, questions, path) for cell, questions in grouped.values()]


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Return the cell of a row, without attempts. Raises one of `INVALID` for a field of another kind."""
    for name, choices in _CHOICES.items():
        _check_choice(name, row[name], choices)
    fields: dict[str, Any] = {name: _text(name, row[name]) for name in _NAMED}
    decomposer, solver = (_component(row["components"][role]) for role in ROLES)
    judge = _text("judge", row.get("judge", ""))
    return Cell(**fields, decomposer=decomposer, solver=solver, attempts=(), judge=judge)


def problem_of(row: Mapping[str, Any], cell: Cell) -> Problem:
    """Return the question of a row. Raises one of `INVALID` for a field of another kind."""
    _check_number("index", row["index"])
    texts: dict[str, Any] = {name: _text(name, row[name]) for name in _QUESTION_TEXTS}
    return Problem(
        **texts,
        answers=tuple(_texts("answers", answer) for answer in row["answers"]),
        dataset=cell.dataset,
        split=cell.split,
        index=row["index"],
        history=read_turns(row.get("history", [])),
    )


def attempt_of(row: Mapping[str, Any], problem: Problem) -> Attempt:
    """Return the attempt of a row. Raises one of `INVALID` for a field of another kind."""
    _check_number("latency_s", row["latency_s"])
    failures = _texts("failures", row["failures"])
    lenient = row.get("lenient")
    return Attempt(
        problem=problem,
        prediction=None if row["prediction"] is None else _texts("prediction", row["prediction"]),
        score=_score(row),
        output=_text("output", row["output"]),
        decomposition=None if row["decomposition"] is None else _decomposition(row["decomposition"]),
        fell_back=bool(row["fell_back"]),
        decomposer_usage=_usage(row["decomposer_usage"]),
        solver_usage=_usage(row["solver_usage"]),
        latency_s=row["latency_s"],
        failures=failures,
        cut_off=_cut_off(row["cut_off"]) if "cut_off" in row else _cut_off_before(failures),
        lenient=None if lenient is None else _score(lenient),
        gold=_score(row["gold"]) if row.get("gold") else None,
        tools={role: tuple(map(_tool_use, uses)) for role, uses in row.get("tools", {}).items()},
        judge_usage=_usage(row.get("judge_usage", {})),
    )


def _fields(value: Usage | Decomposition, names: Sequence[str]) -> Json:
    return {name: getattr(value, name) for name in names}  # `asdict` copies deeply, at ten times the cost


def _with(cell: Cell, questions: Sequence[Sequence[Attempt]], path: Path) -> Cell:
    """Return a cell with its attempts, one or several a question."""

    counts = {len(question) for question in questions}
    if len(counts) > 1:
        raise UsageError(
            f"{path}: a question has {min(counts)} attempts in {cell.strategy}, another {max(counts)}: "
            "run fractionate evaluate again"
        )
    outputs = tuple(one for question in questions for one in question)
    return replace(cell, attempts=MeanAttempts.of_repeats(outputs, counts.pop()))


def _component(row: Mapping[str, Any]) -> Component:
    fields = {**row, **{name: _text(name, row[name]) for name in ("name", "model", "variant", "base") if name in row}}
    fields["learnt_from"] = _texts("learnt_from", row["learnt_from"])
    _check_choice("kind", fields["kind"], get_args(Kind))
    _check_choice("role", fields["role"], ROLES)
    _check_choice("trained_for", fields.get("trained_for", ""), (*ROLES, ""))
    _check_number("share", fields.get("share", 1.0))
    return Component(**fields)


def _score(row: Mapping[str, Any]) -> Score:
    for name in ("exact_match", "f1"):
        _check_number(name, row[name], most=1)
    return Score(row["exact_match"], row["f1"])


def _usage(row: Mapping[str, Any]) -> Usage:
    for name, value in row.items():
        _check_number(name, value)
    return Usage(**row)


def _tools_row(tools: Mapping[Role, Sequence[ToolUse]]) -> Json:
    return {role: [use._asdict() for use in uses] for role, uses in tools.items()}


def _tool_use(row: Mapping[str, Any]) -> ToolUse:
    for name, value in row.items():
        if name != "tool":
            _check_number(name, value)
    return ToolUse(**{**row, "tool": _text("tool", row["tool"])})


def _decomposition(row: Mapping[str, Any]) -> Decomposition:
    _check_choice("status", row["status"], ("ok", "none", "unparsed"))
    _check_number("dropped", row["dropped"])
    return Decomposition(
        _texts("subquestions", row["subquestions"]), row["status"], _text("raw", row["raw"]), row["dropped"]
    )


def _cut_off(roles: Sequence[Role]) -> tuple[Role, ...]:
    for role in roles:
        _check_choice("cut_off", role, ROLES)
    return tuple(roles)


def _cut_off_before(failures: Sequence[str]) -> tuple[Role, ...]:
    """Return the role that was cut off in a row of an older version, which does not say it: most likely the solver."""
    return ("solver",) if "length" in failures else ()


def _texts(name: str, words: object) -> tuple[str, ...]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{name!r} must be a list of texts, not {shown(words)}")
    return tuple(map(encodable, words))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name!r} must be text, not {shown(value)}")
    return encodable(value)


def _check_number(name: str, value: object, most: float = _MOST) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise TypeError(f"{name!r} must be a number from 0 to {most:g}, not {shown(value)}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise TypeError(f"{name!r} must be one of {', '.join(map(repr, choices))}, not {shown(value)}")


def describe(error: Exception) -> str:
    """Return what is wrong with a row, in words."""
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
