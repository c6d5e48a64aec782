"""AQuA-RAT: algebra word problems with five choices (https://github.com/google-deepmind/AQuA, arXiv 1705.04146).

Reads `{question, options, correct}` rows, options as in "A)21"; else the hub's deepmind/aqua_rat. The options are part
of the question, one per line, and the answer is a letter.
"""

from __future__ import annotations

import re

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset
from fractionate.rows import Row
from fractionate.scoring.choices import extract_choice
from fractionate.scoring.metrics import score_choice
from fractionate.types import Problem

HOME = hub.Home("aqua", "deepmind/aqua_rat", "raw", {"train": "train", "dev": "validation", "test": "test"})
_OPTION = re.compile(r"\(?([A-E])[).:]\s*(.*)", re.DOTALL)


def read(row: Row) -> Problem:
    """Return the problem of a row. Raises UsageError where the correct letter is no option's."""
    options = dict(_option(row, option) for option in row.texts("options"))
    correct = row.text("correct", "answer").upper()
    if correct not in options:
        raise row.error(f"'correct' is {correct!r}, which is none of the options {', '.join(options)}")
    lines = [f"{letter}) {option}" for letter, option in options.items()]
    return Problem("", "\n".join([row.text("question"), *lines]), ((correct,),))


def _option(row: Row, option: str) -> tuple[str, str]:
    match = _OPTION.fullmatch(option)
    if match is None:
        raise row.error(f"an option must begin with its letter, as in 'A)21', not {option[:60]!r}")
    return match[1], match[2].strip()


DATASET = Dataset(
    name="aqua",
    source="https://github.com/google-deepmind/AQuA",
    licence="Apache-2.0",
    metric="exact_match",
    answer_form="choice",
    default_cap=3,
    load=hub.loader(read, HOME),
    extract=extract_choice,
    score=score_choice,
)
