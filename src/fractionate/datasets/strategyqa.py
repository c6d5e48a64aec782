"""StrategyQA: yes/no questions whose steps are implicit, with human decompositions (arXiv 2101.02235).

Reads the official JSON (`question`, `answer` true or false, `decomposition` with `#k` for an earlier answer); else the
hub's ChilleD/StrategyQA, which has no decompositions.
"""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.datasets.metrics import extract_yes_no, score_yes_no, yes_no
from fractionate.types import Problem

HOME = hub.Home("strategyqa", "ChilleD/StrategyQA")


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the questions of a split (`train`, `dev`, `test`), with their decompositions where the file has them."""
    split = hub.split_of(reference, DATASET.default_split)
    for row in hub.rows(reference, HOME, DATASET.default_split):
        yield Problem(
            id=f"strategyqa/{split}/{row.index}",
            question=row.text("question"),
            answers=((_answer(row),),),
            dataset="strategyqa",
            split=split,
            index=row.index,
            subquestions=hub.spans(row.texts("decomposition")) if row.has("decomposition") else (),
        )


def _answer(row: hub.Row) -> str:
    answer = row.value("answer")
    said = yes_no(str(answer)) if isinstance(answer, bool | str) else None
    if said is None:
        raise row.error(f"'answer' must be true or false, not {answer!r}")
    return said


DATASET = Dataset(
    name="strategyqa",
    source="https://github.com/eladsegal/strategyqa",
    licence="MIT",
    metric="exact_match",
    answer_form="yes-no",
    default_cap=3,
    load=load,
    extract=extract_yes_no,
    score=score_yes_no,
)
