"""The reader of each form of answer, by the form's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fractionate.scoring.choices import extract_choice, extract_yes_no, read_choice, read_yes_no
from fractionate.scoring.claims import Claim
from fractionate.scoring.final import extract_final, read_span
from fractionate.scoring.numbers import extract_number, read_claim
from fractionate.scoring.spans import extract_spans, read_spans
from fractionate.types import Answer, AnswerForm


@dataclass(frozen=True, slots=True)
class Reader:
    """How answers of one form are read: out of a whole reply, and out of one place that names an answer."""

    extract: Callable[[str], Answer | None]
    claim: Callable[[Claim], object | None]


READERS: Mapping[AnswerForm, Reader] = {
    "number": Reader(extract_number, read_claim),
    "span": Reader(extract_spans, read_spans),
    "yes-no": Reader(extract_yes_no, read_yes_no),
    "choice": Reader(extract_choice, read_choice),
    "text": Reader(extract_final, read_span),
}


def claim_reader(form: AnswerForm) -> Callable[[Claim], object | None]:
    """Return what reads a named answer of a form, for `final.split_final`."""
    return READERS[form].claim
