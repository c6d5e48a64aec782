"""Two systems' outcomes on the questions that both answered, wherever they come from: cells, scored files, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fractionate.analysis.statistics import paired_difference
from fractionate.errors import UsageError


@dataclass(frozen=True)
class PairedComparison:
    """a − b over `n` shared questions: both means, the difference with its interval, the test and its p-value.

    `clusters` are the independent units that the questions come in.
    """

    n: int
    clusters: int
    a: float
    b: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    confidence: float
    only_a: int
    """Questions of a that b did not answer; they do not count."""
    only_b: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def compare_outcomes(
    a: Mapping[str, float],
    b: Mapping[str, float],
    confidence: float = 0.95,
    groups: Mapping[str, str] | None = None,
) -> PairedComparison:
    """Compare outcomes (0 to 1) by question id; `groups` names what questions share, such as a passage.

    Raises UsageError where no question was answered by both, or an outcome lies outside.
    """
    shared = [identity for identity in a if identity in b]
    if not shared:
        raise UsageError("the two share no question: give both the same ids or indices")
    ours, theirs = [a[identity] for identity in shared], [b[identity] for identity in shared]
    clusters = [groups.get(identity, identity) for identity in shared] if groups else None
    try:
        found = paired_difference(ours, theirs, confidence, clusters)
    except ValueError as error:
        raise UsageError(f"these outcomes cannot be compared: {error}") from None
    return PairedComparison(
        n=len(shared),
        clusters=found.clusters,
        a=sum(ours) / len(shared),
        b=sum(theirs) / len(shared),
        difference=found.difference,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        test=found.test,
        confidence=confidence,
        only_a=len(a) - len(shared),
        only_b=len(b) - len(shared),
    )
