"""Bamboogle: 125 two-hop questions that no search answers directly (Press et al., arXiv 2210.03350).

Reads CSV or JSONL rows with `Question` and `Answer`; else the hub's chiayewken/bamboogle. There is only a test set:
whoever trains on it must not evaluate on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.metrics import text_score
from fractionate.datasets.text import extract_final
from fractionate.types import Problem

HOME = hub.Home("bamboogle", "chiayewken/bamboogle", splits={"test": "test"})


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the 125 questions."""
    split = hub.split_of(reference, DATASET.default_split)
    for row in hub.rows(reference, HOME, DATASET.default_split):
        yield Problem(
            id=f"bamboogle/{split}/{row.index}",
            question=row.text("question", "Question"),
            answers=((row.text("answer", "Answer"),),),
            dataset="bamboogle",
            split=split,
            index=row.index,
        )


DATASET = Dataset(
    name="bamboogle",
    source="https://github.com/ofirpress/self-ask",
    licence="MIT",
    metric="exact_match",
    answer_form="text",
    default_cap=2,
    load=load,
    extract=extract_final,
    score=text_score,
)
