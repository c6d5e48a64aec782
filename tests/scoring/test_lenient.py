"""The lenient reading gives the intended answer if none is stated, and the stated answer otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.scoring.forms import READERS
from fractionate.scoring.lenient import lenient_reader
from fractionate.types import AnswerForm

CASES: list[tuple[AnswerForm, str, str | None]] = [
    ("number", "She has 16 - 3 = 13 eggs.\nThere are 2 hens, so I", "2"),
    ("number", "16 eggs, 3 of them eaten, that makes", "3"),
    ("number", "The answer is 5, not 7", "5"),
    ("number", "First 16 and then $1,250.50 for the 2 of", "2"),
    ("number", "1. She has 16 eggs\n2. She eats some\n3. And then", "16"),
    ("number", "So there may be five or six", "6"),
    ("number", "She has 5 or 7\n\nProblem: Ann has 9", "7"),
    ("number", "<think>So 16 - 3 is 13 and", "13"),
    ("number", "<think>So 16 - 3 is 13</think> Well, 4 or 5", "5"),
    ("number", "I cannot tell.", None),
    ("number", "", None),
    ("text", "I think that the capital must be Paris because of the river, or so it is said by the people", "Paris"),
    ("text", "It is in France.\nThe capital of France is the city of Paris on the river.\nIt is big.", "Paris"),
    ("text", "We know that the Bank of England is old\nand that it is in the city", "Bank of England"),
    ("text", "The man was J. R. Smith and he lived there\nfor long", "J. R. Smith"),
    ("text", "Paris is the capital\nand it is big", "Paris"),
    ("text", "Therefore it is big.\nThus we see it.", None),
    ("text", "The Rams won in the year\nof 1999 and then", "1999"),
    ("text", "In 1999 it was won by the **St. Louis Rams**\nand by them alone", "St. Louis Rams"),
    ("text", "They met in London that day.\nCats are many there\nand so on", "London"),
    ("text", 'They met (in "London"), so they say. Dogs bark\nthere', "London"),
    ("text", "It is London! Dogs bark\nthere", "London"),
    ("text", "Bank holidays are few. Big Ben is old, and so\nit stays", "Big Ben"),
    ("text", "They met the Rams of Ohio in 5 towns\nthere", "5"),
    ("text", "In 1999 they met the Rams of Ohio\nthere", "Rams of Ohio"),
    ("text", "It was Paris, London\nand so on", "London"),
    ("text", "It’s said that I’m wrong, and\nso on", None),
    ("text", "Problem: who was it? Some say Smith\nand so on:", "Smith"),
    ("number", "a <think>5</think> <think>6 or 7", "7"),
    ("span", "The game was won by the Chicago Bears, who played\nwell", "Chicago Bears"),
    ("span", "It was Łódź that they went to\nthen", "Łódź"),
    ("choice", "It may be (b) or (c), I am\nnot sure", "C"),
    ("choice", "A train of 150 m goes by.\nI like B more\nthan the rest", "B"),
    ("choice", "A train goes by.\nNo letter here\nat all", None),
    ("choice", "It is option a\nor so", "A"),
    ("yes-no", "It could be yes, I guess, since it is far\nand deep", "yes"),
    ("yes-no", "Some say yes. Others say no.\nWho knows", "no"),
    ("yes-no", "That is not true of them\nat all", "no"),
    ("yes-no", "No one knows\nfor sure", None),
]


@pytest.mark.parametrize(("form", "output", "meant"), CASES)
def test_the_last_thing_of_the_kind_is_what_was_meant(form: AnswerForm, output: str, meant: str | None) -> None:
    assert lenient_reader(form)(output) == (None if meant is None else (meant,))


STATED = [form for form in READERS if form != "free"]
"""Forms of which a reply may state nothing; "free" takes every whole reply."""


@pytest.mark.parametrize("form", STATED)
@given(output=st.text(max_size=200))
def test_what_is_stated_is_what_was_meant(form: AnswerForm, output: str) -> None:
    stated = READERS[form].extract(output)
    meant = lenient_reader(form)(output)
    assert stated is None or meant == stated
    assert meant is None or any(character.isalnum() for span in meant for character in span)


@pytest.mark.parametrize("form", STATED)
def test_a_new_problem_is_not_ours(form: AnswerForm) -> None:
    output = "Then it is said of it\nhere\n\nProblem: 7 of the Rams say yes to (b)"
    assert lenient_reader(form)(output) is None


def test_a_long_reply_is_looked_at_from_its_end() -> None:
    assert lenient_reader("number")("5 eggs\n" + "and so on\n" * 3000) is None
    assert lenient_reader("number")("and so on\n" * 3000 + "5 eggs or\n") == ("5",)
