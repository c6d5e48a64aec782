"""Every reader of model text takes time linear in its length, whatever the text: work for n against work for 4n."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from adversarial import PIECES, READERS, texts

SHORT = 2_500
LONG = 4 * SHORT
MOST_TIMES = 8.0
"""Four times the text may take so many times the work: linear reading takes 4 times, quadratic 16 times."""
CHEAP_S = 0.05
"""Seconds of processor for a long text that no second look is needed at: quadratic reading of it takes longer."""


def _work(read: Callable[[str], object], text: str, runs: int = 1) -> float:
    """Return the processor seconds of the cheapest of several runs, which another process's work does not count in."""
    spent = []
    for _ in range(runs):
        start = time.process_time()
        read(text)
        spent.append(time.process_time() - start)
    return min(spent)


@pytest.mark.parametrize("reader", READERS)
def test_reading_takes_linear_time(reader: str) -> None:
    read = READERS[reader]
    read("The answer is 5.")  # What is imported late is imported now.
    short, long = texts(SHORT), texts(LONG)
    for name, text in long.items():
        if _work(read, text) <= CHEAP_S:
            continue
        ratio = _work(read, text, runs=5) / _work(read, short[name], runs=5)
        assert ratio <= MOST_TIMES, f"{reader} takes {ratio:.0f} times as long for 4 times {name}"


def test_the_check_fails_for_a_quadratic_reader() -> None:
    def read(text: str) -> object:
        return re.search("a*b", text)

    short, long = "a" * SHORT, "a" * LONG
    assert _work(read, long) > CHEAP_S
    assert _work(read, long, runs=3) / _work(read, short, runs=3) > MOST_TIMES


def test_the_texts_are_many_and_of_the_length_asked_for() -> None:
    assert len(PIECES) == len(set(PIECES)) > 100
    assert all(LONG <= len(text) <= LONG + 4000 for text in texts(LONG).values())
