"""GSM8K: grade-school word problems, answered by a number (arXiv 2110.14168, https://github.com/openai/grade-school-math).

Reads `{question, answer}` rows whose answer ends in "#### 18"; where the solution is in the socratic form
("subquestion ** step"), its subquestions become the reference decomposition. Without a path the hub's openai/gsm8k is
read.
"""

from __future__ import annotations

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.metrics import score_number
from fractionate.scoring.number_answers import extract_number, format_number, number_of
from fractionate.types import Problem

HOME = hub.Home("gsm8k", "openai/gsm8k", "main")
SOCRATIC = hub.Home("gsm8k", "openai/gsm8k", "socratic", {"train_socratic": "train", "test_socratic": "test"})


def read(row: Row) -> Problem:
    """Return the problem of a row. Raises UsageError where its answer does not end in a number."""
    solution, hashes, gold = row.text("answer").rpartition("####")
    number = number_of(gold)
    if number is None:
        raise row.error(f"'answer' must end in '#### NUMBER', not {gold.strip()[:60]!r}")
    subquestions = socratic_questions(solution) if hashes else ()
    return Problem("", row.text("question"), ((format_number(number),),), subquestions=subquestions)


def socratic_questions(solution: str) -> tuple[str, ...]:
    """Return the subquestions of a socratic solution, one per line before " ** "; none for a plain solution."""
    lines = (line.partition(" ** ") for line in solution.splitlines())
    return tuple(question.strip() for question, stars, _ in lines if stars and question.strip())


DATASET = Dataset(
    name="gsm8k",
    source="https://github.com/openai/grade-school-math",
    licence="MIT",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=hub.loader(read, HOME, SOCRATIC),
    extract=extract_number,
    score=score_number,
)
