"""Bayes ceilings: the accuracy that a model with partial knowledge can reach, by exact enumeration.

The score of a Bayes-optimal guess from a feature f is the sum over its values of max(P(f, true), P(f, false)). They
name the stage that a training run is in: a curve that rests at a ceiling has learnt that and no more.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from fractions import Fraction

Counts = tuple[int, ...]
"""How often each class is there, in descending order: classes are exchangeable, so their names do not matter."""

CHANCE = "the label's prior alone"


def allpairs_ceilings(pairs: int, types: int) -> dict[str, Fraction]:
    """Return the ceilings of All-Pairs k-m by what is known, in the order of the reference table."""
    weights = _weights(pairs, types)
    named: dict[str, Fraction] = {
        "presence per class": _ceiling(weights, lambda counts: sum(count > 0 for count in counts)),
        "any class seen exactly once": _ceiling(weights, lambda counts: 1 in counts),
        "largest count only": _ceiling(weights, max),
        "parity of one class": _expected(weights, lambda odd: Fraction(odd, types)),
    }
    if types > 2:
        # Merged, two classes are odd only where one of them is: all is even in a false image whose odd two they are.
        two = Fraction(1, math.comb(types, 2))
        named["parities, two classes confused"] = _expected(weights, lambda odd: 1 - two if odd else Fraction(0))
    named["full histogram"] = _ceiling(weights, lambda counts: counts)
    return named


def pentomino_ceilings() -> dict[str, Fraction]:
    """Return the ceilings of Knowledge Matters before overlapping scenes are redrawn, by what is known."""
    classes = 10
    # Two of three sprites are of one class in every true scene and in a third of the false ones.
    named = {"class of one sprite": Fraction(1, 2), "classes of two of the three sprites": 1 - Fraction(1, 2) / 3}
    for confused in (5, 4, 3, 2, 1):
        # A false scene looks true where its two classes are a confused pair: 2 of 90 ordered pairs for each.
        missed = Fraction(2 * confused, classes * (classes - 1)) / 2
        named[f"all classes, {confused} pair{'s' * (confused > 1)} of them confused"] = 1 - missed
    return {**named, "all classes": Fraction(1)}


def stage(ceilings: Mapping[str, Fraction], low: float, high: float) -> str:
    """Return, in words, where an accuracy with the interval low … high stands among the ceilings."""
    known = {CHANCE: Fraction(1, 2), **ceilings}
    reached = [name for name, value in known.items() if low - 1e-9 <= value <= high + 1e-9]
    if reached:
        return "at " + " = ".join(f"“{name}” ({float(known[name]):.3f})" for name in reached)
    below = max((item for item in known.items() if item[1] < low), key=lambda item: item[1], default=None)
    above = min((item for item in known.items() if item[1] > high), key=lambda item: item[1], default=None)
    parts = [
        f"{word} “{item[0]}” ({float(item[1]):.3f})" for word, item in (("above", below), ("below", above)) if item
    ]
    return " and ".join(parts)


def _weights(pairs: int, types: int) -> dict[Counts, tuple[Fraction, Fraction]]:
    """Return P(counts, false) and P(counts, true) for all counts, as sorted tuples of length m."""
    found: dict[Counts, list[Fraction]] = defaultdict(lambda: [Fraction(0), Fraction(0)])
    for drawn in _partitions(pairs, types, pairs):
        # How many lists of k classes have these counts in some order of the classes.
        orders = math.factorial(types) // math.prod(map(math.factorial, Counter(drawn).values()))
        lists = math.factorial(pairs) // math.prod(map(math.factorial, drawn))
        share = Fraction(orders * lists, types**pairs) / 2
        doubled = [2 * count for count in drawn]
        found[_sorted(doubled)][1] += share
        for first, count in enumerate(drawn):
            # The first entry is of this class with probability count / k; it becomes each other class equally often.
            for other in range(types):
                if count and other != first:
                    changed = list(doubled)
                    changed[first] -= 1
                    changed[other] += 1
                    found[_sorted(changed)][0] += share * Fraction(count, pairs * (types - 1))
    return {counts: (false, true) for counts, (false, true) in found.items()}


def _partitions(total: int, parts: int, largest: int) -> Iterator[Counts]:
    """Yield every way to write a total as so many numbers in descending order, zeros among them."""
    if parts == 0:
        if total == 0:
            yield ()
        return
    for first in range(min(total, largest), -1, -1):
        for rest in _partitions(total - first, parts - 1, first):
            yield (first, *rest)


def _sorted(counts: list[int]) -> Counts:
    return tuple(sorted(counts, reverse=True))


def _ceiling(weights: Mapping[Counts, tuple[Fraction, Fraction]], feature: Callable[[Counts], Hashable]) -> Fraction:
    joint: dict[Hashable, list[Fraction]] = defaultdict(lambda: [Fraction(0), Fraction(0)])
    for counts, (false, true) in weights.items():
        values = joint[feature(counts)]
        values[0] += false
        values[1] += true
    return sum((max(values) for values in joint.values()), Fraction(0))


def _expected(weights: Mapping[Counts, tuple[Fraction, Fraction]], seen: Callable[[int], Fraction]) -> Fraction:
    """Return the ceiling of a yes-or-no feature that is "yes" with the given probability for so many odd classes."""
    yes, no = [Fraction(0), Fraction(0)], [Fraction(0), Fraction(0)]
    for counts, joint in weights.items():
        share = seen(sum(count % 2 for count in counts))
        for label in (0, 1):
            yes[label] += joint[label] * share
            no[label] += joint[label] * (1 - share)
    return max(yes) + max(no)
