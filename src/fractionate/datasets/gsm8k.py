"""GSM8K: grade-school word problems, answered by a number (arXiv 2110.14168, https://github.com/openai/grade-school-math).

Reads `{question, answer}` rows whose answer ends in "#### 18"; where the solution is in the socratic form
("subquestion ** step"), its subquestions become the reference decomposition. Without a path the hub's openai/gsm8k is
read.
"""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.numbers import extract_number, format_number, number_of, score_number
from fractionate.types import Problem

HOME = hub.Home("gsm8k", "openai/gsm8k", "main")
SOCRATIC = hub.Home("gsm8k", "openai/gsm8k", "socratic", {"train_socratic": "train", "test_socratic": "test"})


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the problems of a split (`train`, `test`, or the hub's `train_socratic`, `test_socratic`)."""
    split = hub.split_of(reference, DATASET.default_split)
    home = SOCRATIC if split in SOCRATIC.splits else HOME
    for row in hub.rows(reference, home, DATASET.default_split):
        solution, hashes, gold = row.text("answer").rpartition("####")
        number = number_of(gold)
        if number is None:
            raise row.error(f"'answer' must end in '#### NUMBER', not {gold.strip()[:60]!r}")
        yield Problem(
            id=f"gsm8k/{split}/{row.index}",
            question=row.text("question"),
            answers=((format_number(number),),),
            dataset="gsm8k",
            split=split,
            index=row.index,
            subquestions=socratic_questions(solution) if hashes else (),
        )


def socratic_questions(solution: str) -> tuple[str, ...]:
    """Return the subquestions of a socratic solution, one a line before " ** "; none for a plain solution."""
    lines = (line.partition(" ** ") for line in solution.splitlines())
    return tuple(question.strip() for question, stars, _ in lines if stars and question.strip())


DATASET = Dataset(
    name="gsm8k",
    source="https://github.com/openai/grade-school-math",
    licence="MIT",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=load,
    extract=extract_number,
    score=score_number,
)
