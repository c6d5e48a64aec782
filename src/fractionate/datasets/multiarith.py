"""MultiArith: arithmetic word problems of several steps (Roy and Roth 2015, https://aclanthology.org/D15-1202).

Reads the original JSON (`sQuestion`, `lSolutions`) and `{question, final_ans}` rows; else the hub's ChilleD/MultiArith.
"""

from __future__ import annotations

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.metrics import score_number
from fractionate.scoring.number_answers import extract_number
from fractionate.types import Problem

HOME = hub.Home("multiarith", "ChilleD/MultiArith")


def read(row: Row) -> Problem:
    """Return the problem of a row."""
    return Problem("", row.text("question", "sQuestion"), ((_answer(row),),))


def _answer(row: Row) -> str:
    solutions = row.values.get("lSolutions")
    if isinstance(solutions, list) and solutions:
        row = Row({"answer": solutions[0]}, row.where)
    return hub.number_answer(row, "answer", "final_ans")


DATASET = Dataset(
    name="multiarith",
    source="https://aclanthology.org/D15-1202",
    licence="not stated",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=hub.loader(read, HOME),
    extract=extract_number,
    score=score_number,
)
