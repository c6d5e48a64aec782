"""Screening by the answer: a demonstration is kept when the teacher's own solution along it reaches the gold answer.

At most one demonstration per question is kept, the first that passes (paper §3: D-R).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fractionate.students.demonstrate import Demonstration


@dataclass(frozen=True)
class Screening:
    """What passed. `kept_after[k]` is the number of questions kept when each has k+1 chances."""

    questions: int
    kept: tuple[Demonstration, ...]
    kept_after: tuple[int, ...]

    def summary(self) -> str:
        """Return one line: how many questions each further chance brought."""
        if not self.questions:
            return "nothing to screen"
        parts = [
            f"{count} of {self.questions} ({count / self.questions:.0%}) after {chance} chance{'s' * (chance > 1)}"
            for chance, count in enumerate(self.kept_after, 1)
        ]
        return "kept " + ", ".join(parts)


def screen(demonstrations: Sequence[Demonstration], samples: int) -> Screening:
    """Keep the first correct and readable demonstration of each question."""
    kept: dict[str, Demonstration] = {}
    for demonstration in demonstrations:
        if demonstration.correct and demonstration.decomposition.status != "unparsed":
            kept.setdefault(demonstration.problem_id, demonstration)
    after = tuple(sum(one.sample <= chance for one in kept.values()) for chance in range(samples))
    return Screening(len({one.problem_id for one in demonstrations}), tuple(kept.values()), after)
