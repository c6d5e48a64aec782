"""What a test set of n questions can show, before a question is asked: the least loss that it can exclude."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fractionate.statistics import POWER, planned_sample_size

DISCORDANCE = 0.15
"""The share of questions that only one of two good pairs answers right, where nothing was measured yet."""
PASSAGE_CORRELATION = 0.1
"""The intra-class correlation of differences within a passage, where nothing was measured yet."""
_WIDEST = 50.0


@dataclass(frozen=True, slots=True)
class Showable:
    """What a test set can show. Margins are in percentage points.

    `least_margin` is the least loss that `questions` exclude with 80 % power if two pairs are equally good; None where
    even 50 points are too few. `needed` is how many questions exclude a loss of `margin`.
    """

    test_set: str
    questions: int
    clusters: int
    margin: float
    confidence: float
    candidates: int
    least_margin: float | None
    needed: int
    discordance: float = DISCORDANCE
    power: float = POWER

    @property
    def suffices(self) -> bool:
        """Whether the questions are enough for the margin."""
        return self.questions >= self.needed

    def as_json(self) -> dict[str, Any]:
        """Return the fields as `run --dry-run --json` prints them."""
        return asdict(self)

    def line(self) -> str:
        """Return what the questions can show, in one sentence."""
        of = f"{self.questions:,} question{'' if self.questions == 1 else 's'} of {self.test_set}"
        if self.suffices:
            return f"{of} can exclude a loss of {self.margin:g} points, the margin"
        passages = f" in {self.clusters:,} passages" if self.clusters < self.questions else ""
        if self.least_margin is None:
            able = f"{of}{passages} are too few to exclude any loss"
        else:
            able = f"with {of}{passages} a loss of less than {self.least_margin:g} points cannot be excluded"
        return f"{able}; {self.margin:g} points take about {_rounded(self.needed):,}"


def showable(
    test_set: str, questions: int, clusters: int, margin: float, confidence: float = 0.95, candidates: int = 1
) -> Showable:
    """Return what questions in so many independent clusters can show of `candidates` pairs at a margin in points."""
    size = questions / clusters if clusters else 1.0
    icc = PASSAGE_CORRELATION if size > 1 else 0.0

    def takes(points: float) -> int:
        return planned_sample_size(
            points / 100, DISCORDANCE, confidence, cluster_size=size, icc=icc, candidates=candidates
        ).questions

    low, high = 0, int(_WIDEST * 2)  # in half points
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle / 2) <= questions else (middle, high)
    least = high / 2 if takes(high / 2) <= questions else None
    return Showable(test_set, questions, clusters, margin, confidence, candidates, least, takes(margin))


def _rounded(n: int) -> int:
    """Return a number with three significant digits, rounded up."""
    step = int(10 ** max(0, len(str(n)) - 3))
    return -(-n // step) * step
