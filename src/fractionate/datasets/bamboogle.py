"""Bamboogle: 125 two-hop questions that no search answers directly (Press et al., arXiv 2210.03350).

Reads CSV or JSONL rows with `Question` and `Answer`; else the hub's chiayewken/bamboogle. There is only a test set:
train on it or evaluate on it, not both.
"""

from __future__ import annotations

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.final import extract_final
from fractionate.scoring.metrics import text_score
from fractionate.types import Problem

HOME = hub.Home("bamboogle", "chiayewken/bamboogle", splits={"test": "test"})


def read(row: Row) -> Problem:
    """Return the problem of a row."""
    return Problem("", row.text("question", "Question"), ((row.text("answer", "Answer"),),))


DATASET = Dataset(
    name="bamboogle",
    source="https://github.com/ofirpress/self-ask",
    licence="MIT",
    metric="exact_match",
    answer_form="text",
    default_cap=2,
    load=hub.loader(read, HOME),
    extract=extract_final,
    score=text_score,
)
