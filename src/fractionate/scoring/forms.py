"""The reader of each form of answer, by the form's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fractionate.scoring.choices import extract_choice, extract_yes_no, read_choice, read_yes_no
from fractionate.scoring.final import extract_final, extract_spans, read_span, read_spans
from fractionate.scoring.number_answers import extract_number, read_statement
from fractionate.scoring.statements import Statement
from fractionate.types import Answer, AnswerForm


@dataclass(frozen=True, slots=True)
class Reader:
    """How answers of one form are read: out of a whole reply, and out of one place that names an answer."""

    extract: Callable[[str], Answer | None]
    statement: Callable[[Statement], object | None]


READERS: Mapping[AnswerForm, Reader] = {
    "number": Reader(extract_number, read_statement),
    "span": Reader(extract_spans, read_spans),
    "yes-no": Reader(extract_yes_no, read_yes_no),
    "choice": Reader(extract_choice, read_choice),
    "text": Reader(extract_final, read_span),
}


def statement_reader(form: AnswerForm) -> Callable[[Statement], object | None]:
    """Return what reads a named answer of a form, for `final.split_final`."""
    return READERS[form].statement
