"""SVAMP: arithmetic word problems with varied wording (https://github.com/arkilpatel/SVAMP, arXiv 2103.07191).

Reads the official JSON (`Body`, `Question`, `Answer`, `ID`) and rows of the same fields; else the hub's ChilleD/SVAMP.
"""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.numbers import extract_number, score_number
from fractionate.types import Problem

HOME = hub.Home("svamp", "ChilleD/SVAMP")


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the problems of a split (`train`, `test`)."""
    split = hub.split_of(reference, DATASET.default_split)
    for row in hub.rows(reference, HOME, DATASET.default_split):
        body = row.text("Body", "body") if row.has("Body", "body") else ""
        if body and not body.endswith((".", "!", "?", ",")):
            body += "."
        yield Problem(
            id=f"svamp/{split}/{row.index}",
            question=hub.joined(body, row.text("Question", "question")),
            answers=((hub.number_answer(row, "Answer", "answer"),),),
            dataset="svamp",
            split=split,
            index=row.index,
            kind=row.text("Type", "type") if row.has("Type", "type") else "",
        )


DATASET = Dataset(
    name="svamp",
    source="https://github.com/arkilpatel/SVAMP",
    licence="MIT",
    metric="exact_match",
    answer_form="number",
    default_cap=3,
    load=load,
    extract=extract_number,
    score=score_number,
)
