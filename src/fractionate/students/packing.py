"""Several examples as one row without padding, each beginning that some share standing in it once.

A row is a sequence of stretches. A beginning is a stretch of its own; what follows it in each example is another, which
sees the beginning and itself, and whose positions go on from the beginning's end. So every token sees what it would see
in its example alone, at the same positions (shared_attention.py does the seeing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from fractionate.students.training_data import IGNORED

SHARED_TOKENS = 32
"""The shortest common beginning, in tokens, that is worth a stretch of its own."""


class Stretch(NamedTuple):
    """Tokens start … end-1 of a row, which see tokens seen_from … seen_to-1 of it, all of them, before themselves."""

    start: int
    end: int
    seen_from: int = 0
    seen_to: int = 0


@dataclass(slots=True)
class Pack:
    """One row: token ids and their positions, its stretches, and which token's output is to say which target."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def add(self, rows: Sequence[dict[str, Any]], common: int) -> None:
        """Add examples whose first `common` tokens are the same; each has at least one more."""
        beginning = len(self.tokens)
        if common:
            self._append(rows[0]["input_ids"][:common], 0)
            self.stretches.append(Stretch(beginning, beginning + common))
        for row in rows:
            start = len(self.tokens)
            self._append(row["input_ids"][common:], common)
            self.stretches.append(Stretch(start, len(self.tokens), beginning, beginning + common))
            for at, label in enumerate(row["labels"]):
                if label != IGNORED:
                    # The token before it says it; that may be the beginning's last one, or one within it.
                    self.sources.append(beginning + at - 1 if at - 1 < common else start + at - 1 - common)
                    self.targets.append(label)

    def _append(self, tokens: Sequence[int], position: int) -> None:
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))


def pack(rows: Sequence[dict[str, Any]], most: int) -> list[Pack]:
    """Pack examples (`input_ids`, `labels`) into rows of at most `most` tokens; a longer example has one to itself.

    Examples are grouped so that the fewest tokens are read. A group too large for a row is cut, its beginning repeated.
    """
    from fractionate.models.local.sharing import share_groups

    tokens = [row["input_ids"] for row in rows]
    cut: list[tuple[int, int, list[int]]] = []
    for common, members in share_groups(tokens, SHARED_TOKENS):
        fresh = True
        for at in members:
            rest = len(tokens[at]) - common
            if fresh or cut[-1][0] + rest > most:
                cut.append((common + rest, common, [at]))
                fresh = False
            else:
                cut[-1] = (cut[-1][0] + rest, common, [*cut[-1][2], at])
    packs: list[Pack] = []
    for size, common, members in sorted(cut, key=lambda group: -group[0]):
        room = next((one for one in packs if len(one.tokens) + size <= most), None)
        if room is None:
            room = Pack()
            packs.append(room)
        room.add([rows[at] for at in members], common if len(members) > 1 else 0)
    return packs


def families(tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the positions of examples (token ids) in groups that share a passage; one that shares none is alone.

    A passage is a beginning of at least SHARED_TOKENS that they share beyond what all examples begin with.
    """
    order = sorted(range(len(tokens)), key=lambda at: list(tokens[at]))
    least = _alike(tokens[order[0]], tokens[order[-1]]) + SHARED_TOKENS if len(order) > 1 else 0
    found = [[at] for at in order[:1]]
    for before, at in pairwise(order):
        if _alike(tokens[before], tokens[at]) >= least:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two examples begin with alike."""
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
