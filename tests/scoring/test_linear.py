"""Every reader of model text is linear in its length, for any text: work for n against work for 4n.

Work is counted, never timed: the characters that patterns are given to look at, and the steps that each pattern takes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator

import pytest
from adversarial import PIECES, READERS, texts
from regex_steps import counting, match_steps, search_steps

SHORT = 800
LONG = 4 * SHORT
MOST_TIMES = 8.0
"""Four times the text may take so many times the work: linear reading takes 4 times, quadratic 16 times."""
CHEAP = 40
"""Looks at each character of a text that are few enough, whatever the ratio."""
FEW = 12
"""Characters of a short text whose steps are counted; a long one has four times as many."""
SAMPLED = 9
"""One piece in so many is tried on every pattern, since counting steps in Python is slow."""

Read = Callable[[str], object]


def _work(read: Read, text: str) -> int:
    with counting() as (work, _):
        read(text)
    return work[0]


@pytest.fixture(scope="module")
def used() -> set[tuple[re.Pattern[str], str]]:
    """The patterns that readers use, each with the method that it is called by."""
    every = "".join(PIECES[:-1])
    with counting() as (_, methods):
        for read in READERS.values():
            for text in (every, f"The answer is {every}", *(f"The answer is: {piece}" for piece in PIECES[::7])):
                read(text)
    return methods


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_gives_patterns_linear_work(reader: str) -> None:
    read = READERS[reader]
    short, long = texts(SHORT), texts(LONG)
    # Readers share the code that finds statements, so that one of three readers tries a piece in one of its two forms.
    turn = list(READERS).index(reader)
    with counting() as (work, _):
        for at, (name, text) in enumerate(long.items()):
            if (at % len(PIECES) + at // len(PIECES) + turn) % 3:
                continue
            work[0] = 0
            read(text)
            spent = work[0]
            if spent <= CHEAP * len(text):
                continue
            work[0] = 0
            read(short[name])
            assert spent <= MOST_TIMES * work[0], (
                f"{reader} does {spent / work[0]:.0f} times the work on 4 times {name}"
            )


@pytest.fixture
def deep() -> Iterator[None]:
    """Room for the recursion of the step counter."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("deep")
def test_a_pattern_takes_linear_steps(used: set[tuple[re.Pattern[str], str]]) -> None:
    assert len(used) > 100
    for pattern, method in sorted(used, key=lambda pair: (pair[0].pattern, pair[1])):
        for piece in PIECES[::SAMPLED]:
            if len(piece) > FEW:
                continue
            short, long = piece * (FEW // len(piece) + 1), piece * (4 * FEW // len(piece) + 1)
            few, many = _steps(pattern, method, short), _steps(pattern, method, long)
            assert many <= MOST_TIMES * (few + FEW), f"{pattern.pattern!r} takes {many} steps for {few} on {piece!r}"


def _steps(pattern: re.Pattern[str], method: str, text: str) -> int:
    """Count the steps of a call, and see that the counter matches what the real engine does."""
    if method in ("match", "fullmatch"):
        steps, end = match_steps(pattern, text)
        real = pattern.match(text)
        assert end == (real.end() if real else -1), (pattern.pattern, text)
        return steps
    steps, spans = search_steps(pattern, text)
    assert [span for span in spans if span[0] < span[1]] == [
        match.span() for match in pattern.finditer(text) if match.end() > match.start()
    ], (pattern.pattern, text)
    return steps


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("quadratic", [r"a*b", r"a*+b", r"(?:a|aa)*+b", r"\s+$"])
def test_the_step_counter_finds_a_quadratic_pattern(quadratic: str) -> None:
    pattern, letter = re.compile(quadratic), " " if quadratic.startswith(r"\s") else "a"
    short, long = letter * 40 + "c", letter * 160 + "c"
    assert _steps(pattern, "search", long) > MOST_TIMES * _steps(pattern, "search", short)


def test_the_count_finds_a_reader_that_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from fractionate.scoring import reply

    def read(text: str) -> object:
        return [reply._NOTE.search(text, place) for place in range(0, len(text), 10)]

    assert _work(read, "a" * LONG) > MOST_TIMES * _work(read, "a" * SHORT)
    assert _work(read, "a" * LONG) > CHEAP * LONG


def test_the_texts_are_many_and_of_the_length_asked_for() -> None:
    assert len(PIECES) == len(set(PIECES)) > 100
    assert all(LONG <= len(text) <= LONG + 4000 for text in texts(LONG).values())
