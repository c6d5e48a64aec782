"""Near repetitions and shared passages between train and test: all are found, no others, in linear work."""

from __future__ import annotations

import random
import re
from collections.abc import Set

from hypothesis import given, settings
from hypothesis import strategies as st

from fractionate.datasets.near import find_leak, near_matches
from fractionate.types import Problem


def problem(identifier: str, question: str, context: str = "") -> Problem:
    return Problem(id=identifier, question=question, answers=(("1",),), context=context)


def every_pair(train: list[str], test: list[str], alike: float) -> dict[int, int]:
    """The same by comparing every text with every other."""

    def triples(text: str) -> set[str]:
        words = re.findall(r"[a-z]+", text.lower())
        return {" ".join(words[n : n + 3]) for n in range(max(len(words) - 2, 1))} if words else set()

    sets = [triples(text) for text in train]
    found = {}
    for place, text in enumerate(test):
        mine = triples(text)
        near = (n for n, other in enumerate(sets) if mine and len(mine & other) / len(mine | other) >= alike - 1e-9)
        first = next(near, None)
        if first is not None:
            found[place] = first
    return found


WORDS = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)


@settings(max_examples=100)
@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_it_finds_what_comparing_every_pair_finds(train: list[str], test: list[str], alike: float) -> None:
    assert near_matches(train, test, alike) == every_pair(train, test, alike)


def test_one_word_more_is_nearly_the_same_and_another_number_in_the_middle_is_not() -> None:
    train = ["Tom bought 12 red apples and 5 green pears at the market before noon. How many pieces of fruit has he?"]
    said = ["Yesterday " + train[0], train[0].replace("12 red", "90 blue").replace("5 green", "7 ripe")]
    assert near_matches(train, said) == {0: 0}


def test_what_is_asked_on_another_passage_is_another_question() -> None:
    zoo, ship = ("The zoo has lions and tigers and many apes in it", "The ship has sailors and cooks aboard of it now")
    question = "How many of them are there in all, counted together?"
    train = [problem("t0", question, zoo)]
    test = [
        problem("a", question + " Please", ship),
        problem("b", question + " Please", zoo),
        problem("c", question + " Please", zoo + " today"),
        problem("d", "Which is the largest?", zoo.upper()),
        problem("e", question + " Please"),
        problem("f", "Which is the largest?", ship),
    ]
    leak = find_leak(train, test)
    assert leak.near == {"b": "t0", "c": "t0", "e": "t0"}
    assert leak.passages == {"b": "t0", "d": "t0"}
    assert leak.near_passages == {"c": "t0"}
    assert find_leak(train, test, known=["b"]).near == {"c": "t0", "e": "t0"}


def test_it_names_the_first_training_question_that_is_met_and_keeps_the_order_of_the_test_set() -> None:
    train = [
        problem(f"t{n}", f"Say how many lions live today in the old zoo of the little town {word}")
        for n, word in enumerate("xyz")
    ]
    test = [problem(f"q{n}", one.question + " now") for n, one in enumerate(reversed(train))]
    assert list(find_leak(train, test).near.items()) == [("q0", "t0"), ("q1", "t0"), ("q2", "t0")]


def comparisons(train: list[str], test: list[str]) -> int:
    """Count the pairs of texts whose triples are intersected: all of the work that can grow with the product."""

    class Counting(frozenset[int]):
        pairs = 0

        def __and__(self, other: Set[object]) -> frozenset[int]:
            Counting.pairs += 1
            return super().__and__(other)

    near_matches(train, test, as_set=Counting)
    return Counting.pairs


def test_few_pairs_are_compared_even_where_all_texts_are_the_same() -> None:
    draw = random.Random(0)
    words = [f"word{n}" for n in range(3000)]
    train, test = ([" ".join(draw.choices(words, k=10)) for _ in range(2_000)] for _ in range(2))
    repeated = ["How long was the longest field goal of the third quarter of this game?"] * 2_000
    assert near_matches(train, test) == {}
    assert len(near_matches(repeated, repeated)) == 2_000
    assert comparisons(train, test) < 2_000
    assert 2_000 <= comparisons(repeated, repeated) <= 4 * 2_000
