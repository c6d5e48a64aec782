"""Scenarios: which parts of the teacher's compute a plan pays for (arXiv 2502.08606v2, section 5.3).

Needs no NumPy, so that `fractionate plan --help` names the scenarios without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fractionate.errors import UsageError


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which of the teacher's costs the plan pays for: inference over the student's tokens, and pretraining."""

    name: str
    inference: bool
    pretraining: bool
    meaning: str


SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("best-case", False, False, "the teacher is free: its logits are stored, or it runs anyway"),
        Scenario("teacher-inference", True, False, "the teacher exists; its logits are computed for the student"),
        Scenario("teacher-pretraining", False, True, "the teacher is trained for this; its logits cost nothing"),
        Scenario("both", True, True, "the teacher is trained for this, and its logits are computed"),
    )
}


def scenario(name: str) -> Scenario:
    """Return the scenario of that name. Raises UsageError that lists the known ones."""
    if name not in SCENARIOS:
        raise UsageError(f"there is no scenario {name!r}: use {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
