"""StrategyQA: yes/no questions whose steps are implicit, with human decompositions (arXiv 2101.02235).

Reads the official JSON (`question`, `answer` true or false, `decomposition` with `#k` for an earlier answer); else the
hub's ChilleD/StrategyQA, which has no decompositions. `strategyqa:tasksource/strategy-qa#train` is a copy on the hub
that has them.
"""

from __future__ import annotations

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.choices import extract_yes_no, yes_no
from fractionate.scoring.metrics import score_yes_no
from fractionate.types import Problem

HOME = hub.Home("strategyqa", "ChilleD/StrategyQA")


def read(row: Row) -> Problem:
    """Return the problem of a row, with its decomposition where the row has one."""
    subquestions = hub.spans(row.texts("decomposition")) if row.has("decomposition") else ()
    return Problem("", row.text("question"), ((_answer(row),),), subquestions=subquestions)


def _answer(row: Row) -> str:
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
    load=hub.loader(read, HOME),
    extract=extract_yes_no,
    score=score_yes_no,
)
