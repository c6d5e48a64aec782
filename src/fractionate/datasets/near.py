"""Test questions and passages that are nearly the same as training ones: what a student may have seen in other words.

Two texts are nearly the same where their sets of three words in a row have a Jaccard similarity of at least `ALIKE`.
Found exactly and in about linear time by prefix filtering (Chaudhuri, Ganti & Kaushik, ICDE 2006; Bayardo, Ma &
Srikant, WWW 2007): texts so alike share one of each one's few rarest triples. Memory is that of the training side and
of a block of test problems: a large test set is looked at block by block, with the same result.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fractionate.datasets.overlap import folded
from fractionate.types import Problem

ALIKE = 0.8
"""The least Jaccard similarity of two texts that are nearly the same."""
BLOCK = 20_000
"""Test problems that are looked at together."""
_IN_A_ROW = 3
_WORD = re.compile(r"\w+(?:[.,]\w+)*|[^\w\s.,:;!?\"'()]")


@dataclass(frozen=True, slots=True)
class Leak:
    """What a test set shares with training: from a test problem's id to that of the first training problem it meets.

    `near` are questions that nearly repeat a training question, on a passage that is (nearly) the same or where one has
    none; `passages` stand on a training passage, `near_passages` on one that is nearly the same.
    """

    near: Mapping[str, str]
    passages: Mapping[str, str]
    near_passages: Mapping[str, str]


def find_leak(train: Sequence[Problem], test: Iterable[Problem], known: Iterable[str] = ()) -> Leak:
    """Return what test problems share with training ones; `known` ids are not looked at for near questions.

    A repeated question on another passage is another problem, as in `find_overlap`.
    """
    near: dict[str, str] = {}
    passages: dict[str, str] = {}
    near_passages: dict[str, str] = {}
    problems, skipped = iter(test), set(known)
    while block := list(islice(problems, BLOCK)):
        found = _leak_of(train, block, skipped)
        near |= found.near
        passages |= found.passages
        near_passages |= found.near_passages
    return Leak(near, passages, near_passages)


def _leak_of(train: Sequence[Problem], test: Sequence[Problem], skipped: Collection[str]) -> Leak:
    passages, near_passages = _passages(train, test)
    of_train = {one.id: one for one in train}
    near: dict[str, str] = {}
    asked = [one for one in test if one.id not in skipped]
    for side_train, side_test in (
        ([one for one in train if not one.context], asked),
        ([one for one in train if one.context], [one for one in asked if not one.context]),
    ):
        near |= _near_questions(side_train, [one for one in side_test if one.id not in near])
    on_passage: dict[str, list[Problem]] = defaultdict(list)
    for one in train:
        on_passage[one.context].append(one)
    met = {**near_passages, **passages}
    by_pair: dict[str, list[Problem]] = defaultdict(list)
    for one in asked:
        if one.id in met and one.id not in near:
            by_pair[of_train[met[one.id]].context].append(one)
    for context, problems in by_pair.items():
        near |= _near_questions(on_passage[context], problems)
    order = {one.id: place for place, one in enumerate(test)}
    return Leak(dict(sorted(near.items(), key=lambda pair: order[pair[0]])), passages, near_passages)


def near_matches(
    train: Iterable[str],
    test: Sequence[str],
    alike: float = ALIKE,
    as_set: Callable[[Iterable[int]], frozenset[int]] = frozenset,
) -> dict[int, int]:
    """Return, by the place of each test text that is nearly the same as a training text, the first such text's place.

    Texts are compared by their sets of three words in a row (of all words, where there are fewer). An empty text is
    like none. `alike` lies in (0, 1]. `as_set` makes the sets that are compared (a test counts with it).
    """
    sets = [_triples(text) for text in test]
    counts = Counter(triple for triples in sets for triple in triples)
    rank = {triple: place for place, (triple, _) in enumerate(sorted(counts.items(), key=lambda pair: pair[1]))}
    ranked = [as_set(rank[triple] for triple in triples) for triples in sets]
    rarest: dict[int, list[int]] = defaultdict(list)
    for place, ranks in enumerate(ranked):
        for one in sorted(ranks)[: _prefix(len(ranks), alike)]:
            rarest[one].append(place)
    found: dict[int, int] = {}
    for number, text in enumerate(train):
        triples = _triples(text)
        known = {rank[triple] for triple in triples if triple in rank}
        # Triples that no test text has are the rarest of all: they take up the first places of the prefix.
        room = _prefix(len(triples), alike) - (len(triples) - len(known))
        if room <= 0:
            continue
        for one in sorted(known)[:room]:
            waiting = [place for place in rarest.get(one, ()) if place not in found]
            for place in waiting:
                shared = len(ranked[place] & known)
                if shared >= alike * (len(triples) + len(ranked[place]) - shared) - 1e-9:
                    found[place] = number
            if one in rarest:  # what was found is not looked at again, however often its like comes
                rarest[one] = waiting
    return dict(sorted(found.items()))


def _passages(train: Sequence[Problem], test: Sequence[Problem]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the test problems on a training passage, and those on one that is nearly the same."""
    first: dict[str, str] = {}
    for one in train:
        if one.context:
            first.setdefault(folded(one.context), one.id)
    same: dict[str, str] = {}
    others: dict[str, list[str]] = defaultdict(list)
    for one in test:
        passage = folded(one.context) if one.context else ""
        if passage in first:
            same[one.id] = first[passage]
        elif passage:
            others[passage].append(one.id)
    theirs = list(first)
    matches = near_matches(theirs, list(others))
    of_passage = dict(enumerate(others.values()))
    return same, {name: first[theirs[number]] for place, number in matches.items() for name in of_passage[place]}


def _near_questions(train: Sequence[Problem], test: Sequence[Problem]) -> dict[str, str]:
    matches = near_matches(map(_said, train), list(map(_said, test))) if test else {}
    return {test[place].id: train[number].id for place, number in matches.items()}


def _said(one: Problem) -> str:
    """Return a question after what was said before it; system text, which many chats have in common, is left out."""
    return " ".join([*(text for role, text in one.history if role != "system"), one.question])


def _triples(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(folded(text))
    if len(words) < _IN_A_ROW:
        return {tuple(words)} if words else set()
    return set(zip(*(words[start:] for start in range(_IN_A_ROW)), strict=False))


def _prefix(size: int, alike: float) -> int:
    """Return how many of a text's rarest triples must hold one of any text that is so alike."""
    return size - math.ceil(alike * size - 1e-9) + 1 if size else 0
