"""Hand-labelled replies by class: the shares read correctly, wrongly and not at all.

    python -m pytest tests/scoring/test_corpus.py -s        prints the share per class

The labels say what a careful person takes for the stated answer, null where none is stated. They were written before
any reader saw the replies.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from fractionate.scoring.forms import READERS, infer_form
from fractionate.types import Answer, AnswerForm

CORPUS = Path(__file__).parent / "corpus"
FORMS = sorted(path.stem for path in CORPUS.glob("*.jsonl"))
LEAST_RIGHT = 0.97
"""The share of each form's replies that is read rightly at least."""


def rows(form: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / f"{form}.jsonl").read_text().splitlines()]


def label(row: dict[str, Any]) -> Answer | None:
    return None if row["answer"] is None else tuple(row["answer"])


@pytest.mark.parametrize("form", FORMS)
def test_labelled_replies_are_read_rightly(form: str) -> None:
    extract = READERS[cast("AnswerForm", form)].extract
    total: Counter[str] = Counter()
    right: Counter[str] = Counter()
    misread: list[str] = []
    for row in rows(form):
        total[row["class"]] += 1
        read = extract(row["output"])
        right[row["class"]] += read == label(row)
        if read is not None and read != label(row):
            misread.append(f"{row['output'][-80:]!r} as {read} for {label(row)}")
    for name, count in total.items():
        print(f"{form:9}{name:45}{right[name]:4} of {count}")
    assert right.total() >= LEAST_RIGHT * total.total(), f"{form}: {right.total()} of {total.total()} read rightly"
    assert len(misread) <= (1 - LEAST_RIGHT) * total.total() / 2, misread


def test_the_corpus_is_large_and_has_replies_that_state_nothing() -> None:
    every = [row for form in FORMS for row in rows(form)]
    assert len(every) >= 400
    assert sum(row["answer"] is None for row in every) >= len(every) / 5
    assert len({(row["class"], row["output"]) for row in every}) == len(every)


@pytest.mark.parametrize("form", FORMS)
def test_a_label_scores_against_itself_and_is_of_its_form(form: str) -> None:
    reader = READERS[cast("AnswerForm", form)]
    labels = [answer for row in rows(form) if (answer := label(row)) is not None]
    assert all(reader.score(answer, [answer]) == (1.0, 1.0) for answer in labels)
    assert all(reader.score(answer, [("no such answer",)]) == (0.0, 0.0) for answer in labels if form != "text")


@pytest.mark.parametrize(
    ("golds", "form"),
    [
        (["12", "1,250", "-3.5", "1/2", "40%"], "number"),
        (["12", "x + 1"], "text"),
        ([["12", "15"], ["3"]], "numbers"),
        ([["Rams", "Bears"], ["Oslo"]], "span"),
        (["yes", "No", "true"], "yes-no"),
        (["A", "c", "(B)"], "choice"),
        (["A", "A"], "text"),
        (["05/01/2021", "12/31/1999"], "date"),
        (["25/12/2020", "05/01/2021"], "date-day-first"),
        (["May 1, 2021", "2020-02-29"], "date"),
        (["1999", "2004"], "number"),
        (["10:30 am", "noon"], "time"),
        (["$42.50", "75 cents"], "money"),
        (["3 hours", "90 minutes"], "quantity"),
        (["3 apples", "9 pears"], "text"),
        (["Paris", "12"], "text"),
        ([], "text"),
    ],
)
def test_the_form_is_inferred_from_the_known_answers(golds: list[str | list[str]], form: str) -> None:
    assert infer_form((tuple([gold] if isinstance(gold, str) else gold),) for gold in golds) == form


@pytest.mark.parametrize(
    ("form", "prediction", "gold", "right"),
    [
        ("date", "2021-05-01", "05/01/2021", True),
        ("date", "2021-05-01", "1 May 2021", True),
        ("date", "2021-05-01", "01/05/2021", False),
        ("date-day-first", "2021-05-01", "01/05/2021", True),
        ("date", "2021-07-04", "July 4", True),
        ("date", "--07-04", "July 4, 2021", False),
        ("time", "2:45 pm", "14:45", True),
        ("time", "2:45", "2:45 p.m.", True),
        ("time", "2:45 am", "2:45 pm", False),
        ("time", "23:59", "11:59 pm", True),
        ("money", "42.5 USD", "$42.50", True),
        ("money", "42.5 EUR", "$42.50", False),
        ("money", "42.5", "$42.50", True),
        ("money", "0.75 USD", "75 cents", True),
        ("quantity", "180 minute", "3 hours", True),
        ("quantity", "3 kilometre", "3 hours", False),
        ("quantity", "5 apples", "5 apples", True),
        ("quantity", "6 apples", "5 apples", False),
        ("quantity", "3", "3 hours", True),
        ("quantity", "20 metre/second", "72 km/h", True),
        ("quantity", "1 metre^2", "10000 cm^2", True),
        ("quantity", "9 apple", "9 apples", True),
    ],
)
def test_answers_compare_as_what_they_mean(form: AnswerForm, prediction: str, gold: str, right: bool) -> None:
    assert READERS[form].score((prediction,), [(gold,)]) == (float(right), float(right))


def test_several_numbers_score_in_any_order() -> None:
    score = READERS["numbers"].score
    assert score(("15", "12"), [("12", "15")]) == (1.0, 1.0)
    assert score(("12",), [("12", "15")]) == (0.0, pytest.approx(2 / 3))
    assert score(("12", "12"), [("12",)]) == (0.0, pytest.approx(2 / 3))
    assert score(None, [("12",)]) == (0.0, 0.0)
