"""What a run cost to make and prove its students, and after how many questions a proven pair has paid that back.

The cost is kept raw, as usage and hours, like the usage of cells: a corrected price changes the bill without a call.
The bill is the whole run's, because configurations that did not pass had to be trained and measured too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fractionate.analysis.pricing import Pricing
from fractionate.planning.break_even import VOLUMES, Bill, Saving, pay_back, saved
from fractionate.report.amounts import PER
from fractionate.types import Usage

DEMONSTRATIONS, SCREENING, CHANCES = "demonstrations", "screening", "further chances"
TRAINING, EVALUATION, JUDGING, CURVE = "training", "evaluation", "judging", "learning curve"
ITEMS = (DEMONSTRATIONS, SCREENING, CHANCES, TRAINING, EVALUATION, JUDGING, CURVE)
"""The items of a bill: the teacher's first decompositions, its solutions along them, the teacher's further samples,
the training of the students, the measuring of all cells, what a judge took to score them, and training and measuring
for a learning curve."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The cost of training one student: its number of `examples`, wall hours, and the parameters of its base.

    `share` is the share of the demonstrations it was trained on, in (0, 1]. `hours` is None and `parameters` 0 where
    training.json does not state them.
    """

    base: str
    examples: int
    hours: float | None
    parameters: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class RunCost:
    """Usage by item and model, trainings by student, and the items that are not fully known, with the reason.

    A student has several trainings where several runs were pooled.
    """

    usage: Mapping[str, Mapping[str, Usage]] = field(default_factory=dict)
    trained: Mapping[str, Sequence[Trained]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def priced(self, pricing: Pricing) -> dict[str, float | str]:
        """Return the dollars of each item of this run, or the reason in words where they are unknown."""
        bill: dict[str, float | str] = {}
        for item in ITEMS:
            parts = [*self._calls(item, pricing), *self._hours(item, pricing)]
            parts += [self.missing[item]] if item in self.missing else []
            unknown = [part for part in parts if isinstance(part, str)]
            if parts:
                bill[item] = "; ".join(dict.fromkeys(unknown)) or sum(one for one in parts if isinstance(one, float))
        return bill

    def training_hours(self) -> float | None:
        """Return the training hours of all students, None where those of any student are unknown."""
        hours = [one.hours for several in self.trained.values() for one in several]
        return sum(one for one in hours if one is not None) if None not in hours else None

    def _calls(self, item: str, pricing: Pricing) -> list[float | str]:
        dollars = [(model, pricing.usd(model, usage)) for model, usage in self.usage.get(item, {}).items()]
        return [f"{model}: {pricing.source(model)}" if usd is None else usd for model, usd in dollars]

    def _hours(self, item: str, pricing: Pricing) -> list[float | str]:
        parts: list[float | str] = []
        for name, several in self.trained.items():
            for one in several:
                if item == (TRAINING if one.share == 1 else CURVE):
                    parts.append(_of_training(name, one, pricing))
        return parts


def _of_training(name: str, one: Trained, pricing: Pricing) -> float | str:
    if one.hours is None:
        return f"{name}: its training.json says no hours: train it again"
    usd = pricing.by_hours(one.base, one.hours)
    return f'give prices."{one.base}".per_hour, what its machine costs' if usd is None else usd


Record = Mapping[str, Any]


def break_even(cost: RunCost | None, evidence: Sequence[Record], pricing: Pricing) -> dict[str, Any] | None:
    """Return the `break_even` of results.json; None where nothing was distilled, or its cost was not read.

    `evidence` is the verdict's. A pair is proven if it is no worse within the margin and cheaper. `usd` is null where
    an item of the bill has no known price; then the time of pay-back is unknown too. `questions` null means never.
    """
    findings = [row for row in evidence if row["part"] != "decomposing"]
    if not findings or cost is None:
        return None
    priced = cost.priced(pricing)
    unknown = any(isinstance(amount, str) for amount in priced.values())
    usd = None if unknown else math.fsum(amount for amount in priced.values() if isinstance(amount, float))
    return {
        "bill": [
            {
                "item": item,
                "usd": amount if isinstance(amount, float) else None,
                "unknown": amount if isinstance(amount, str) else "",
            }
            for item, amount in priced.items()
        ],
        "usd": usd,
        "training_hours": cost.training_hours(),
        "configurations": len(findings),
        "pairs": [_pair(row, usd) for row in findings if row["non_inferior"] == "yes" and row["cheaper"] == "yes"],
    }


def _pair(row: Record, usd: float | None) -> dict[str, Any]:
    saving = Saving(*(_per(row[key], empty) for key, empty in _BOUNDS))
    pair = {key: row[key] for key in ("dataset", "part", "strategy", "decomposer", "solver", "a", "worth")}
    pair |= {
        "saving_per_1000": saving.usd_per_1000,
        "saving_low": _finite(saving.low),
        "saving_high": _finite(saving.high),
    }
    if usd is None:
        return {**pair, "questions": None, "questions_low": None, "questions_high": None, "saved": []}
    when = pay_back(Bill({"all": usd}), saving)
    return {
        **pair,
        "questions": when.questions,
        "questions_low": when.low,
        "questions_high": when.high,
        "saved": [saved_after(pair, usd, volume) for volume in VOLUMES],
    }


_BOUNDS = (("usd_difference", 0.0), ("usd_ci_high", -math.inf), ("usd_ci_low", math.inf))
"""A cost difference is a negative saving, so its upper bound is the lower bound of the saving."""


def saving_of(pair: Record) -> Saving:
    """Return the saving of a pair of `break_even`; an unknown bound is infinite."""
    low, high = pair["saving_low"], pair["saving_high"]
    return Saving(pair["saving_per_1000"], -math.inf if low is None else low, math.inf if high is None else high)


def saved_after(pair: Record, usd: float, questions: float) -> dict[str, Any]:
    """Return {"questions", "usd", "low", "high"}: the dollars a pair has saved by then, less the bill."""
    value, low, high = saved(Bill({"all": usd}), saving_of(pair), questions)
    return {"questions": questions, "usd": value, "low": _finite(low), "high": _finite(high)}


def _per(usd: float | None, empty: float) -> float:
    return empty if usd is None else -usd * PER


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
