"""What the user decided about judging, in one record: all that analysis takes from a config besides prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fractionate.analysis.statistics import interim_confidence
from fractionate.config import Config
from fractionate.types import Role

Caps = Mapping[tuple[str, str, str, str, str], Mapping[Role, int]]
"""The most output tokens that a question can take, by cell (`matrix.key_of`) and role, where calls are capped."""
NO_CAPS: Caps = {}


@dataclass(frozen=True, slots=True)
class Rule:
    """How cells are judged. `margin` is in percentage points, `confidence` that of two-sided intervals.

    `strategy` and `solver` name the judged two-stage strategy and the undistilled solver ("" for the defaults of
    docs/verdict.md); `usd_per_correct` is what one more right answer is worth (None: not said). `interim` holds, by
    test set, how many questions each earlier verdict of the run rested on; `caps` how long replies may be.
    """

    margin: float = 2.0
    confidence: float = 0.95
    strategy: str = ""
    solver: str = ""
    usd_per_correct: float | None = None
    interim: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    caps: Caps = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, interim: Mapping[str, tuple[int, ...]] | None = None, caps: Caps = NO_CAPS) -> Rule:
        """Return the rule that a config states."""
        verdict = config.verdict
        return cls(
            verdict.margin,
            verdict.confidence,
            verdict.strategy,
            verdict.solver,
            verdict.usd_per_correct,
            dict(interim or {}),
            caps,
        )

    def confidence_at(self, test_set: str, questions: int) -> float:
        """Return the confidence of the verdict at this interim analysis, so that all together err no more than one."""
        sizes = sorted({size for size in self.interim.get(test_set, ()) if size < questions} | {max(questions, 1)})
        return interim_confidence(self.confidence, sizes)


def question_points(points: float, name: str = "margin") -> str:
    """Return why a margin or difference, in percentage points, looks like a share; "" where it does not."""
    if not 0 < abs(points) < 0.1:
        return ""
    return f"a {name} is in percentage points, so this is {points:g} %; if a share is meant, write {points * 100:g}"
