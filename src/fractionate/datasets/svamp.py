"""SVAMP: arithmetic word problems with varied wording (https://github.com/arkilpatel/SVAMP, arXiv 2103.07191).

Reads the official JSON (`Body`, `Question`, `Answer`, `ID`) and rows of the same fields; else the hub's ChilleD/SVAMP.
"""

from __future__ import annotations

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.metrics import score_number
from fractionate.scoring.number_answers import extract_number
from fractionate.types import Problem

HOME = hub.Home("svamp", "ChilleD/SVAMP")


def read(row: Row) -> Problem:
    """Return the problem of a row: its body, ended where it is not, and its question."""
    body = row.text("Body", "body") if row.has("Body", "body") else ""
    if body and not body.endswith((".", "!", "?", ",")):
        body += "."
    question = f"{body} {row.text('Question', 'question')}".strip()
    kind = row.text("Type", "type") if row.has("Type", "type") else ""
    return Problem("", question, ((hub.number_answer(row, "Answer", "answer"),),), kind=kind)


DATASET = Dataset(
    name="svamp",
    source="https://github.com/arkilpatel/SVAMP",
    licence="MIT",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=hub.loader(read, HOME),
    extract=extract_number,
    score=score_number,
)
