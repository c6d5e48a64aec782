"""The forms of answers: how each is read out of a reply, how it is scored, and which one gold answers have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fractionate.scoring import dates, metrics, quantities
from fractionate.scoring.choices import extract_choice, extract_yes_no, read_choice, read_yes_no
from fractionate.scoring.final import extract_final, extract_spans, read_span, read_spans
from fractionate.scoring.number_answers import extract_number, read_statement
from fractionate.scoring.reply import visible
from fractionate.scoring.statements import Statement
from fractionate.types import Answer, AnswerForm, Score

MOST_GOLDS = 2000
"""Gold answers that a form is inferred from, the first ones."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How answers of one form are read, out of a whole reply and out of one statement, and how they are scored."""

    extract: Callable[[str], Answer | None]
    statement: Callable[[Statement], object | None]
    score: Callable[[Answer | None, Sequence[Answer]], Score]


def read_whole(output: str) -> Answer | None:
    """Return all that a reply says, without a reasoning model's thoughts; None where it says nothing."""
    said = visible(output).strip()
    return (said,) if said else None


def _day_first(predicted: str, gold: str) -> bool:
    return dates.same_date(predicted, gold, day_first=True)


READERS: Mapping[AnswerForm, Reader] = {
    "number": Reader(extract_number, read_statement, metrics.score_number),
    "numbers": Reader(quantities.extract_numbers, quantities.read_numbers, metrics.score_numbers),
    "money": Reader(quantities.extract_money, quantities.read_money, metrics.scored_where_same(quantities.same_money)),
    "quantity": Reader(
        quantities.extract_quantity, quantities.read_quantity, metrics.scored_where_same(quantities.same_quantity)
    ),
    "date": Reader(*dates.date_readers(), metrics.scored_where_same(dates.same_date)),
    "date-day-first": Reader(*dates.date_readers(day_first=True), metrics.scored_where_same(_day_first)),
    "time": Reader(*dates.time_readers(), metrics.scored_where_same(dates.same_time)),
    "yes-no": Reader(extract_yes_no, read_yes_no, metrics.score_yes_no),
    "choice": Reader(extract_choice, read_choice, metrics.score_choice),
    "span": Reader(extract_spans, read_spans, metrics.drop_score),
    "text": Reader(extract_final, read_span, metrics.text_score),
    "free": Reader(read_whole, read_span, metrics.text_score),
}


FORM_NAMES: Mapping[AnswerForm, str] = {
    "number": "numbers",
    "numbers": "one or several numbers",
    "money": "amounts of money",
    "quantity": "numbers with a unit",
    "date": "dates (05/01/2021 is 1 May)",
    "date-day-first": "dates (05/01/2021 is 5 January)",
    "time": "times of day",
    "yes-no": "yes or no",
    "choice": "letters of choices",
    "span": "spans of text",
    "text": "free text",
    "free": "whole replies",
}
"""Each form in words, for messages."""


def statement_reader(form: AnswerForm) -> Callable[[Statement], object | None]:
    """Return what reads a stated answer of a form, for `final.split_final`."""
    return READERS[form].statement


_YES_NO = frozenset(("yes", "no", "true", "false"))
_LETTER = re.compile(r"\(?[A-Ha-h]\)?\.?")
_NUMBER = re.compile(r"(?:####)?\s*[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\d+[ ]\d+/\d+|\d+/\d+)(?:e[-+]?\d+)?\s*%?")
_CURRENCY = re.compile(r"[$€£¥₹]|\b(?:USD|EUR|GBP|JPY|INR|dollars?|euros?|cents?|rupees?)\b", re.IGNORECASE)
_CLOCK = re.compile(r"\d{1,2}:\d\d|\b[ap]\.?m\b|noon|midnight|o['’]clock", re.IGNORECASE)
_SLASHED = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-]\d{2,4}")
_WITH_UNIT = re.compile(r"[-+]?\d[\d,.]*(?:/\d+)?[ ]?(?:[a-z°%][\w°²³^/.]*)(?:[ ][a-z0-9²³^/.]+){0,3}", re.IGNORECASE)


def infer_form(answers: Iterable[Sequence[Answer]]) -> AnswerForm:
    """Return the form that gold answers have, "text" where they have no form in common.

    `answers` gives for each question its alternatives. A form is taken only where every one of them has it, so that one
    odd row makes the answers text, which any reply can be compared with.
    """
    golds = [answer for alternatives in islice(answers, MOST_GOLDS) for answer in alternatives]
    spans = [span.strip() for answer in golds for span in answer]
    if not spans:
        return "text"
    if any(len(answer) > 1 for answer in golds):
        return "numbers" if all(map(_NUMBER.fullmatch, spans)) else "span"
    if all(span.casefold() in _YES_NO for span in spans):
        return "yes-no"
    if all(map(_LETTER.fullmatch, spans)) and len(set(spans)) > 1:
        return "choice"
    if all(map(_NUMBER.fullmatch, spans)):
        return "number"
    if all(_is_full_date(span) for span in spans):
        return _order_of_dates(spans)
    if all(_CLOCK.search(span) and dates.time_of(span) for span in spans):
        return "time"
    if all(_CURRENCY.search(span) and quantities.money_of(span) for span in spans):
        return "money"
    if all(_WITH_UNIT.fullmatch(span) and quantities.is_measured(span) for span in spans):
        return "quantity"
    return "text"


def _is_full_date(span: str) -> bool:
    date = dates.date_of(span)
    return date is not None and date.day > 0 and len(span) <= 40


def _order_of_dates(spans: Sequence[str]) -> AnswerForm:
    """Tell from dates such as 25/12/2020 whether the day stands first; where none shows it, the month does."""
    slashed = [match for span in spans if (match := _SLASHED.fullmatch(span))]
    day_first = any(int(match[1]) > 12 for match in slashed) and not any(int(match[2]) > 12 for match in slashed)
    return "date-day-first" if day_first else "date"
