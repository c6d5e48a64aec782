"""The dev split: questions that students are chosen by, apart from those of training and of the tests."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping

from fractionate.datasets.overlap import find_overlap
from fractionate.errors import UsageError
from fractionate.files import utf8
from fractionate.types import Problem


def hold_out(problems: Mapping[str, Problem], share: float, seed: int) -> dict[str, Problem]:
    """Return about a share (0 to 1) of the problems by id, in their order: whole groups or passages, drawn by the seed.

    Each group drawn is held out where that comes closer to the share; where none does, a smallest one is. A group with
    a question that is asked outside it too is not held out. Raises UsageError where no group is left to hold out.
    """
    sizes = Counter(problem.cluster for problem in problems.values())
    drawn = sorted(sizes, key=lambda one: hashlib.sha256(utf8(f"{seed} {one}")).digest())
    wanted, count, taken = share * len(problems), 0, set[str]()
    for cluster in drawn:
        if abs(count + sizes[cluster] - wanted) < abs(count - wanted):
            taken.add(cluster)
            count += sizes[cluster]
    taken = taken or {min(drawn, key=lambda one: sizes[one])}
    if len(taken) == len(sizes):
        taken.clear()  # something has to be learnt from
    while repeated := _asked_outside(problems, taken):
        taken -= repeated
    if not taken:
        raise UsageError(
            f"data.dev_share = {share:g} of {len(problems)} training questions holds out none: they are of "
            f"{len(sizes)} passages or repeat each other; name other questions as data.dev"
        )
    return {key: problem for key, problem in problems.items() if problem.cluster in taken}


def dev_overlaps(train: Mapping[str, Problem], dev: Mapping[str, Problem]) -> Iterator[str]:
    """Yield what the report must say of a dev split beside training. Raises UsageError where it is learnt from."""
    shared = find_overlap(train.values(), dev.values())
    if shared:
        raise UsageError(
            f"{len(shared)} of {len(dev)} questions of the dev split are training questions (first: {shared[0]}): "
            "take them out of data.train or data.dev"
        )
    passages = {problem.cluster for problem in train.values() if problem.cluster != problem.id}
    beside = sum(problem.cluster in passages for problem in dev.values())
    if beside:
        yield (
            f"{beside} of {len(dev)} questions of the dev split share a passage with training questions, so the loss "
            "on them is lower than on new passages; data.dev_share holds out whole passages."
        )


def _asked_outside(problems: Mapping[str, Problem], taken: set[str]) -> set[str]:
    """Return the clusters taken that hold a question which is asked in one that was not."""
    rest = (problem for problem in problems.values() if problem.cluster not in taken)
    held = {key: problem for key, problem in problems.items() if problem.cluster in taken}
    return {held[key].cluster for key in find_overlap(rest, held.values())}
