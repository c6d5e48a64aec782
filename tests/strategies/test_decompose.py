"""Reading subquestions: every form decoders write them in, nothing lost, what cannot be read is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.strategies.decompose import MOST_REFERENCES, fill_references, parse_decomposition

EXPECTED = ("How many eggs, in all, are there?", "What is #1 times 2.5?")
FORMS = {
    "numbered": "1. How many eggs, in all, are there?\n2. What is #1 times 2.5?",
    "parentheses": "1) How many eggs, in all, are there?\n2) What is #1 times 2.5?",
    "both parentheses": "(1) How many eggs, in all, are there?\n(2) What is #1 times 2.5?",
    "bullets": "- How many eggs, in all, are there?\n- What is #1 times 2.5?",
    "stars": "* How many eggs, in all, are there?\n* What is #1 times 2.5?",
    "Q labels": "Q1: How many eggs, in all, are there?\nQ2: What is #1 times 2.5?",
    "doubled Q label": "Q1: Q1: How many eggs, in all, are there?\nQ2: What is #1 times 2.5?",
    "bullet and number": "- 1. How many eggs, in all, are there?\n- 2. What is #1 times 2.5?",
    "Subquestion labels": "Subquestion 1: How many eggs, in all, are there?\n\nSubquestion 2: What is #1 times 2.5?",
    "sub-question": "Sub-question 1. How many eggs, in all, are there?\nSub-question 2. What is #1 times 2.5?",
    "bold": "1. **How many eggs, in all, are there?**\n2. **What is #1 times 2.5?**",
    "bold numbers": "**1.** How many eggs, in all, are there?\n**2.** What is #1 times 2.5?",
    "one line": "1. How many eggs, in all, are there? 2. What is #1 times 2.5?",
    "one line of Q": "Q1: How many eggs, in all, are there? Q2: What is #1 times 2.5?",
    "preamble": "Sure, here they are:\n\n1. How many eggs, in all, are there?\n2. What is #1 times 2.5?",
    "trailing chatter": "1. How many eggs, in all, are there?\n2. What is #1 times 2.5?\n\nI hope this helps!",
    "chatter at once": "1. How many eggs, in all, are there?\n2. What is #1 times 2.5?\nLet me know if you need more.",
    "no markers": "How many eggs, in all, are there?\nWhat is #1 times 2.5?",
    "no markers, one line": "How many eggs, in all, are there? What is #1 times 2.5?",
    "no markers, preamble": "Subquestions:\nHow many eggs, in all, are there?\nWhat is #1 times 2.5?",
    "blank lines": "\n\n1. How many eggs, in all, are there?\n\n\n2. What is #1 times 2.5?\n\n",
    "wrapped": "1. How many eggs,\n   in all, are there?\n2. What is #1 times 2.5?",
    "marker on its own line": "1.\nHow many eggs, in all, are there?\n2.\nWhat is #1 times 2.5?",
    "carriage returns": "1. How many eggs, in all, are there?\r\n2. What is #1 times 2.5?\r\n",
    "thinking": "<think>maybe 1. this? 2. that?</think>1. How many eggs, in all, are there?\n2. What is #1 times 2.5?",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_the_same(form: str) -> None:
    read = parse_decomposition(FORMS[form])
    assert read.subquestions == EXPECTED
    assert read.status == "ok"
    assert read.raw == FORMS[form]


@pytest.mark.parametrize(
    "output", ["No decomposition", "no decomposition.", "Answer: No decomposition", "**No decomposition**"]
)
def test_none_needed_is_told_from_unreadable(output: str) -> None:
    assert parse_decomposition(output).status == "none"


@pytest.mark.parametrize("output", ["", "   \n", "I cannot help with that.", "Paris", "<think>1. What?"])
def test_what_cannot_be_read_is_unparsed(output: str) -> None:
    read = parse_decomposition(output)
    assert (read.status, read.subquestions) == ("unparsed", ())


def test_imperative_items_are_kept() -> None:
    assert parse_decomposition("1. Find the price of one egg.\n2. Multiply it by 12").subquestions == (
        "Find the price of one egg.",
        "Multiply it by 12",
    )


def test_a_question_without_marker_between_marked_ones_is_kept() -> None:
    assert len(parse_decomposition("1. What is a?\nWhat is b?\n2. What is c?").subquestions) == 3


def test_numbers_inside_a_question_do_not_cut_it() -> None:
    for question in ("What is 2 + 2. 5?", "Is 1.5 more than 3.25?", "What share do 2 of 3 have?"):
        assert parse_decomposition(f"1. {question}").subquestions == (question,)


def test_the_cap_drops_and_counts() -> None:
    read = parse_decomposition("\n".join(f"{n}. What is {n}?" for n in range(1, 6)), cap=3)
    assert (len(read.subquestions), read.dropped) == (3, 2)


_WORDS = st.text(st.characters(categories=("Ll", "Lu", "Nd"), include_characters=",'-$ "), min_size=1, max_size=40)
_QUESTIONS = st.lists(_WORDS.map(lambda words: "What about " + " ".join(words.split()) + "?"), min_size=1, max_size=6)
_MARKERS = st.sampled_from([lambda n: f"{n}. ", lambda n: f"{n}) ", lambda n: f"Q{n}: ", lambda n: "- "])


@given(_QUESTIONS, _MARKERS)
def test_marked_questions_survive_word_for_word(questions, marker) -> None:  # type: ignore[no-untyped-def]
    output = "\n".join(f"{marker(number)}{question}" for number, question in enumerate(questions, 1))
    assert parse_decomposition(output).subquestions == tuple(questions)


@given(st.text(max_size=300))
def test_any_text_is_read_without_error(text: str) -> None:
    read = parse_decomposition(text, cap=3)
    assert len(read.subquestions) <= 3
    assert (read.status == "ok") == bool(read.subquestions)


def test_references_are_filled_and_unknown_ones_stay() -> None:
    assert fill_references("Is #1 more than #2 or #12?", ["3 eggs", "4"]) == "Is 3 eggs more than 4 or #12?"
    assert fill_references("What is #2?", ["", ""]) == "What is #2?"


def test_an_output_without_end_is_cut_and_what_is_dropped_is_counted() -> None:
    lines = [f"{number}. What is it?" for number in range(1, 100)] * 1000
    read = parse_decomposition("\n".join(lines), cap=3)
    assert len(read.subquestions) == 3
    assert len(lines) - 3 - 1 <= read.dropped <= len(lines) - 3


def test_thoughts_without_an_opening_mark_are_left_out() -> None:
    assert parse_decomposition("1. Is it this?</think>1. Who is it?").subquestions == ("Who is it?",)
    assert parse_decomposition("1. Who is it?<|im_end|>\n2. And then?").subquestions == ("Who is it?",)


def test_references_without_end_are_filled_up_to_a_bound() -> None:
    assert fill_references("#1" * 1000, ["x" * 1000]).count("#1") == 1000 - MOST_REFERENCES


@pytest.mark.parametrize(
    "piece", ["\n", "1. a? 2. b?\n", "Q1: ", "step ", "- a\n", "1.\n", "a\n", "? A", "<think>", "#1 ", "*", " "]
)
def test_a_huge_output_is_read_in_linear_time(piece: str) -> None:
    parse_decomposition(piece * (1_000_000 // len(piece)))
    parse_decomposition("1. " + piece * (1_000_000 // len(piece)))
