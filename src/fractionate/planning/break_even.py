"""Break-even: after how many questions distilling has paid for itself, and the savings at given volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fractionate.errors import UsageError

VOLUMES = (10_000, 1_000_000, 100_000_000)
"""Numbers of questions at which savings are reported."""


@dataclass(frozen=True)
class Bill:
    """One-off costs in dollars by item: demonstrations, further samples, screening, training, evaluation."""

    items: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, usd in self.items.items():
            if not (math.isfinite(usd) and usd >= 0):
                raise UsageError(f"the bill's {name!r} must be 0 dollars or more, not {usd:g}")

    @property
    def usd(self) -> float:
        """The sum."""
        return math.fsum(self.items.values())

    def with_training(self, hours: float, usd_per_hour: float) -> Bill:
        """Return the bill with an item for training hours at the user's price."""
        return Bill({**self.items, "training": hours * usd_per_hour})


@dataclass(frozen=True)
class Saving:
    """Dollars saved per 1,000 questions, with its interval; negative where the distilled pair is dearer."""

    usd_per_1000: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.usd_per_1000 <= self.high:
            raise UsageError(
                f"a saving of {self.usd_per_1000:g} lies outside its own interval, {self.low:g} to {self.high:g}"
            )


@dataclass(frozen=True)
class BreakEven:
    """Questions after which the bill is paid back; None for never."""

    questions: int | None
    low: int | None
    """At the upper bound of the saving."""
    high: int | None
    """At the lower bound; None if that bound is no saving."""


def pay_back(bill: Bill, saving: Saving) -> BreakEven:
    """Return after how many questions the saving has paid the bill, with the interval from that of the saving."""
    return BreakEven(*(_paid_back(bill.usd, rate) for rate in (saving.usd_per_1000, saving.high, saving.low)))


def saved(bill: Bill, saving: Saving, questions: float) -> tuple[float, float, float]:
    """Return (dollars saved, low, high) after so many questions, less the bill: negative before it is paid."""
    if questions < 0:
        raise UsageError(f"questions must be 0 or more, not {questions:g}")
    value, low, high = (rate * questions / 1000 - bill.usd for rate in (saving.usd_per_1000, saving.low, saving.high))
    return value, low, high


def saved_at(bill: Bill, saving: Saving, volumes: Sequence[int] = VOLUMES) -> dict[int, tuple[float, float, float]]:
    """Return the saving after each number of questions."""
    return {volume: saved(bill, saving, volume) for volume in volumes}


def _paid_back(usd: float, usd_per_1000: float) -> int | None:
    if usd == 0 and usd_per_1000 >= 0:
        return 0
    if usd_per_1000 <= 0:
        return None
    questions = usd / usd_per_1000 * 1000
    return math.ceil(questions * (1 - 1e-12)) if math.isfinite(questions) else None
