"""The overlap check: which questions count as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractionate.datasets.overlap import find_overlap
from fractionate.types import Problem


def problem(question: str, context: str = "", identifier: str = "x") -> Problem:
    return Problem(id=identifier, question=question, answers=(("1",),), context=context)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How many apples?", "how many  apples ?"),
        ("How many apples?", " How many apples\n"),
        ("“How” is it?", '"How" is it?'),
        ("What’s up?", "What's up?"),
        ("ﬁnd it", "find it"),
        ("Straße", "STRASSE"),
        ("What is 3 − 4?", "What is 3 - 4?"),
    ],
)
def test_the_same_words_are_the_same_question(a, b):
    assert find_overlap([problem(a)], [problem(b)]) == ["x"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3.5?", "What is 35?"),
        ("How many apples?", "How many pears?"),
        ("+", "-"),
        ("?", "!"),
    ],
)
def test_other_signs_are_another_question(a, b):
    assert find_overlap([problem(a)], [problem(b)]) == []


def test_the_same_question_on_another_context_is_another_problem():
    train = [problem("Who won?", "A played B.")]
    assert find_overlap(train, [problem("Who won?", "C played D.")]) == []
    assert find_overlap(train, [problem("Who won?", "a played  b")]) == ["x"]


def test_without_a_context_on_either_side_the_question_decides():
    assert find_overlap([problem("Who won?", "A played B.")], [problem("Who won?")]) == ["x"]
    assert find_overlap([problem("Who won?")], [problem("Who won?", "C played D.")]) == ["x"]


def test_question_and_context_do_not_run_into_each_other():
    assert find_overlap([problem("ab", "c")], [problem("a", "bc")]) == []


QUESTIONS = st.lists(st.text(min_size=1), max_size=8)


@given(QUESTIONS, QUESTIONS)
def test_every_shared_question_is_found_in_the_order_of_the_test_set(train, extra):
    mixed = [*extra, *train]
    test = [problem(question, identifier=str(n)) for n, question in enumerate(mixed)]
    found = find_overlap([problem(question) for question in train], test)
    assert set(range(len(extra), len(mixed))) <= set(map(int, found))
    assert found == sorted(found, key=int)


def test_no_training_means_no_overlap():
    assert find_overlap([], [problem("q")]) == []
