"""DROP: discrete reasoning over paragraphs (https://allenai.org/data/drop, arXiv 1903.00161).

Reads three forms: the official JSON (passages with `qa_pairs`; validated answers are alternatives); rows of the hub's
ucinlp/drop; and flat rows `{context: "Passage: …\\nQuestion: …\\nAnswer:", ref_text}` with `|` between alternatives.
Without a path the hub is read. The hub keeps the spans of all annotators in one list, so where an answer has several
spans its grouping has to be guessed; the official JSON is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fractionate.datasets import hub
from fractionate.datasets.base import Dataset, Reference
from fractionate.rows import Row
from fractionate.scoring.final import extract_spans
from fractionate.scoring.metrics import drop_score
from fractionate.types import Answer, Problem

HOME = hub.Home("drop", "ucinlp/drop", splits={"train": "train", "dev": "validation"})
_FLAT = re.compile(r"\s*Passage:(.*)\nQuestion:(.*?)(?:\n\s*Answer:\s*)?$", re.DOTALL)


def load(reference: Reference) -> Iterator[Problem]:
    """Yield the questions of a split (`train`, `dev`), passage by passage. One without any answer is left out."""
    split = hub.split_of(reference, DATASET.default_split)
    read = (problem for row in hub.rows(reference, HOME, DATASET.default_split) for problem in _problems(row, split))
    yield from hub.placed(read, HOME.name, split)


def _problems(row: Row, split: str) -> Iterator[Problem]:
    if row.has("qa_pairs"):
        yield from _official(row)
    elif row.has("answers_spans"):
        yield Problem(row.text("query_id"), row.text("question"), _hub_answers(row, split), context=row.text("passage"))
    elif row.has("ref_text"):
        yield _flat(row)
    else:
        raise row.error("is of no form of DROP: no 'qa_pairs', 'answers_spans' or 'ref_text'")


def _official(row: Row) -> Iterator[Problem]:
    pairs = row.value("qa_pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise row.error("'qa_pairs' must be a list of questions")
    for position, pair in enumerate(pairs):
        entry = Row(pair, f"{row.where}, question {position + 1}")
        annotated = [pair.get("answer"), *(pair.get("validated_answers") or [])]
        answers = [answer for answer, _ in map(annotated_answer, annotated) if answer]
        if not answers:
            continue
        kind = next(kind for answer, kind in map(annotated_answer, annotated) if answer)
        identity = entry.text("query_id") if entry.has("query_id") else ""
        yield Problem(identity, entry.text("question"), _distinct(answers), context=row.text("passage"), kind=kind)


def annotated_answer(annotation: Mapping[str, Any]) -> tuple[Answer, str]:
    """Return one annotator's answer as spans, and its kind: "number", "span" (one or several) or "date"."""
    if not isinstance(annotation, Mapping):
        return (), ""
    number = str(annotation.get("number") or "").strip()
    if number:
        return (number,), "number"
    given = annotation.get("spans")
    texts = hub.spans([str(span) for span in given]) if isinstance(given, list) else ()
    if texts:
        return texts, "span"
    date = annotation.get("date")
    parts = (
        [str(date.get(part) or "").strip() for part in ("day", "month", "year")] if isinstance(date, Mapping) else []
    )
    written = " ".join(filter(None, parts))
    return ((written,), "date") if written else ((), "")


def _hub_answers(row: Row, split: str) -> tuple[Answer, ...]:
    table = row.value("answers_spans")
    listed, kinds = (table.get("spans"), table.get("types")) if isinstance(table, Mapping) else (None, None)
    if not isinstance(listed, list) or not hub.spans(listed):
        raise row.error("'answers_spans' holds no span")
    if split == "train":
        return (hub.spans(listed),)
    return grouped(hub.spans(listed), set(kinds or ["span"]) == {"span"})


def grouped(listed: Sequence[str], may_have_several: bool) -> tuple[Answer, ...]:
    """Guess the annotators' answers from one list of spans: a repeated run is one answer, else each span is."""
    size = len(listed)
    if may_have_several:
        for length in range(2, size // 2 + 1):
            run = list(listed[:length])
            if size % length == 0 and len(set(run)) == length and list(listed) == run * (size // length):
                return (tuple(run),)
    return _distinct([(span,) for span in listed])


def _flat(row: Row) -> Problem:
    match = _FLAT.fullmatch(row.text("context"))
    if match is None:
        raise row.error("'context' must read 'Passage: …', a line 'Question: …' and 'Answer:'")
    answers = [(answer.strip(),) for answer in row.text("ref_text").split("|") if answer.strip()]
    if not answers:
        raise row.error("'ref_text' holds no answer")
    return Problem("", match[2].strip(), _distinct(answers), context=match[1].strip())


def _distinct(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    return tuple(dict.fromkeys(answers))


DATASET = Dataset(
    name="drop",
    source="https://allenai.org/data/drop",
    licence="CC-BY-SA-4.0",
    metric="f1",
    answer_form="span",
    default_cap=3,
    load=load,
    extract=extract_spans,
    score=drop_score,
    default_split="dev",
)
