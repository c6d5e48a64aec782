"""MultiArith: arithmetic word problems of several steps (Roy and Roth 2015, https://aclanthology.org/D15-1202).

Reads the original JSON (`sQuestion`, `lSolutions`) and `{question, final_ans}` rows; else the hub's ChilleD/MultiArith.
"""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.numbers import extract_number, score_number
from fractionate.types import Problem

HOME = hub.Home("multiarith", "ChilleD/MultiArith")


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the problems of a split (`train`, `test`)."""
    split = hub.split_of(reference, DATASET.default_split)
    for row in hub.rows(reference, HOME, DATASET.default_split):
        yield Problem(
            id=f"multiarith/{split}/{row.index}",
            question=row.text("question", "sQuestion"),
            answers=((_answer(row),),),
            dataset="multiarith",
            split=split,
            index=row.index,
        )


def _answer(row: hub.Row) -> str:
    solutions = row.values.get("lSolutions")
    if isinstance(solutions, list) and solutions:
        row = hub.Row({"answer": solutions[0]}, row.where)
    return hub.number_answer(row, "answer", "final_ans")


DATASET = Dataset(
    name="multiarith",
    source="https://aclanthology.org/D15-1202",
    licence="not stated",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=load,
    extract=extract_number,
    score=score_number,
)
