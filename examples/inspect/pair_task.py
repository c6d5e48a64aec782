"""A measured pair on questions of your own, in inspect_ai.

    pip install 'fractionate[inspect]'
    inspect eval examples/inspect/pair_task.py --model none -T run=runs/mine -T questions=test.jsonl

`questions` holds {"question": …, "answer": …, "context": …} per line (the passage may be absent), `pair` is any name
that `fractionate serve` lists. The log holds each sample's subquestions, usage and dollars under
metadata["fractionate"]; `fractionate compare a=LOG b=OTHER_LOG` compares two logs.
"""

from __future__ import annotations

import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes

from fractionate.inspect import pair_solver


@task
def measured_pair(run: str, questions: str, pair: str = "fractionate/best") -> Task:
    """Answer every question by a pair; right is an answer that holds the expected one."""
    rows = [json.loads(line) for line in Path(questions).read_text(encoding="utf-8").splitlines()]
    samples = [
        Sample(
            id=str(row.get("id", number)),
            input=row["question"],
            target=str(row["answer"]),
            metadata={"context": row.get("context", "")},
        )
        for number, row in enumerate(rows)
    ]
    return Task(dataset=samples, solver=pair_solver(run, pair), scorer=includes())
