"""What the user decided about judging, in one record: all that analysis takes from a config besides prices."""

from __future__ import annotations

from dataclasses import dataclass

from fractionate.config import Config


@dataclass(frozen=True, slots=True)
class Rule:
    """How cells are judged. `margin` is in points of 100, `confidence` that of two-sided intervals.

    `strategy` and `solver` name the judged two-stage strategy and the undistilled solver ("" for the defaults of
    docs/verdict.md); `seed` is that of resampling.
    """

    margin: float = 2.0
    confidence: float = 0.95
    strategy: str = ""
    solver: str = ""
    seed: int = 0

    @classmethod
    def of(cls, config: Config) -> Rule:
        """Return the rule that a config states."""
        verdict = config.verdict
        return cls(verdict.margin, verdict.confidence, verdict.strategy, verdict.solver, config.run.seed)
