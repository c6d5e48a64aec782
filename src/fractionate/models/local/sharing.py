"""Which prompts begin alike: what they have in common is then read once."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import pairwise

SHARED_TOKENS = 32
"""The shortest common beginning, in tokens, that is worth reading once for several prompts."""


def share_groups(prompts: Sequence[Sequence[int]], minimum: int = SHARED_TOKENS) -> list[tuple[int, list[int]]]:
    """Group prompts (token ids) so that reading each group's common beginning once saves the most tokens.

    Returns (tokens in common, positions in `prompts`) for each group; a prompt alone has 0 in common. At least one
    token of every prompt is left to read on its own. Neighbours in the result begin alike.
    """
    order = sorted(range(len(prompts)), key=lambda position: list(prompts[position]))
    alike = [min(_common(prompts[a], prompts[b]), len(prompts[a]) - 1, len(prompts[b]) - 1) for a, b in pairwise(order)]
    _, groups = _best_groups(0, len(order), alike, minimum)
    return [(common, order[start:end]) for common, start, end in groups]


def _best_groups(start: int, end: int, alike: list[int], minimum: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Return (tokens saved, groups) for sorted prompts start … end-1: one group, or split where least alike."""
    if end - start == 1:
        return 0, [(0, start, end)]
    least = min(alike[start : end - 1])
    cuts = [start, *(at + 1 for at in range(start, end - 1) if alike[at] == least), end]
    whole = (end - start - 1) * least if least >= minimum else -1
    if len(cuts) == end - start + 1:
        parts = (0, [(0, at, at + 1) for at in range(start, end)])
    else:
        split = [_best_groups(a, b, alike, minimum) for a, b in pairwise(cuts)]
        parts = (sum(saved for saved, _ in split), [group for _, groups in split for group in groups])
    return (whole, [(least, start, end)]) if whole >= parts[0] else parts


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    return bisect.bisect_left(range(length), True, key=lambda at: a[: at + 1] != b[: at + 1])
