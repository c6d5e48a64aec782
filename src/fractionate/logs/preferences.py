"""Two logs of outputs whose pairs a judge compares: which output is the better one, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from fractionate.analysis.systems import Answered, System
from fractionate.datasets.gold import find_gold
from fractionate.datasets.scoring import file_rows
from fractionate.errors import UsageError
from fractionate.logs.choices import Choices, digest
from fractionate.logs.read import named_paths
from fractionate.logs.tables import ids_of
from fractionate.rows import Row, at
from fractionate.types import Problem


@runtime_checkable
class PairJudge(Protocol):
    """Compares two outputs by calls of a judge."""

    @property
    def identity(self) -> str:
        """What its preferences depend on."""

    def prefer(self, problems: Sequence[Problem], a: Sequence[str], b: Sequence[str]) -> list[float | None]:
        """Return 1 where a's output is better, 0 where b's is, 0.5 for a tie; None where no verdict could be read."""


def read_preferences(texts: Sequence[str], choices: Choices, judge: PairJudge) -> list[System]:
    """Return two logs of rows as systems whose outcome is the judge's preference: 1, 0, or 0.5 for both in a tie.

    Raises UsageError for other than two logs, for rows without output or question, and where no question is shared.
    """
    if len(texts) != 2:
        raise UsageError(f'judge.scale = "preference" compares two logs, not {len(texts)}')
    (name_a, a), (name_b, b) = named_paths(texts)
    ours, others = (dict(_rows(path, choices)) for path in (a, b))
    shared = [question for question in ours if question in others]
    if not shared:
        raise UsageError(f"no question was answered by both {name_a} and {name_b}: match them with --id-field")
    problems = _problems([ours[question] for question in shared], shared, choices)
    preferred = judge.prefer(
        problems,
        [_output(ours[question], choices) for question in shared],
        [_output(others[question], choices) for question in shared],
    )
    systems = []
    for name, is_first in ((name_a, True), (name_b, False)):
        answers = [
            Answered(
                problem.id,
                None if share is None else share if is_first else 1 - share,
                problem.group or choices.group_of(ours[problem.id].values, ours[problem.id].where),
                digest(problem.question),
            )
            for problem, share in zip(problems, preferred, strict=True)
        ]
        systems.append(System(name, tuple(answers), "rows", judge=judge.identity))
    return systems


def _rows(path: Path, choices: Choices) -> list[tuple[str, Row]]:
    rows = list(file_rows(path))
    if not rows:
        raise UsageError(f"{path} is empty: there is nothing to compare")
    return list(zip(ids_of(rows, choices)[0], rows, strict=True))


def _output(row: Row, choices: Choices) -> str:
    field = choices.scoring.fields.output or "output"
    value = at(row.values, field)
    if value is not None and not isinstance(value, str):
        raise row.error(f"{field!r} must be text")
    if value is None and field not in row.values:
        raise row.error(f"no field {field!r}: name the output with --output-field")
    return value or ""


def _problems(rows: Sequence[Row], ids: Sequence[str], choices: Choices) -> list[Problem]:
    scoring = choices.scoring
    if scoring.gold:
        gold = find_gold(scoring.gold, scoring.columns, scoring.fields.index, rows)
        found = []
        for row, question in zip(rows, ids, strict=True):
            problem = gold.problems.get(gold.key(row))
            if problem is None:
                raise row.error(f"it matches no question of {scoring.gold}")
            found.append(Problem(question, problem.question, problem.answers, problem.context, group=problem.cluster))
        return found
    problems = []
    for row, question in zip(rows, ids, strict=True):
        text = row.values.get("question")
        if not isinstance(text, str) or not text.strip():
            raise row.error("no 'question' for the judge to read: name the data that hold it with --gold")
        known = row.values.get(scoring.fields.answers or "answers") or []
        answers = tuple((str(one),) for one in (known if isinstance(known, list) else [known]))
        problems.append(Problem(question, text, answers, str(row.values.get("context") or "")))
    return problems
