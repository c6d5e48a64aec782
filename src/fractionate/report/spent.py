"""What a run took to make and to prove its students, as usage and hours: what break-even and learning curves rest on.

Raw, like the usage of cells, so that a fixed price changes the bill without a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fractionate.analysis.pricing import Pricing
from fractionate.types import Usage

DEMONSTRATIONS, SCREENING, CHANCES = "demonstrations", "screening", "further chances"
TRAINING, EVALUATION, CURVE = "training", "evaluation", "learning curve"
ITEMS = (DEMONSTRATIONS, SCREENING, CHANCES, TRAINING, EVALUATION, CURVE)
"""The items of a bill: the teacher's first decompositions, its solutions along them, all that it did at further
chances, the training of the students, the measuring of all cells, and both of these for a learning curve."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training one student took: `examples` it learnt from, wall hours, and the parameters of its base.

    `share` is that of the demonstrations. `hours` is None where no training.json says them, `parameters` 0.
    """

    base: str
    examples: int
    hours: float | None
    parameters: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Usage by item and model, what training took by student, and by item why something of it is not known.

    A student has several trainings where several runs were pooled.
    """

    usage: Mapping[str, Mapping[str, Usage]] = field(default_factory=dict)
    trained: Mapping[str, Sequence[Trained]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def priced(self, pricing: Pricing) -> dict[str, float | str]:
        """Return the dollars of each item that there was, or in words why they are not known."""
        bill: dict[str, float | str] = {}
        for item in ITEMS:
            parts = [*self._calls(item, pricing), *self._hours(item, pricing)]
            parts += [self.missing[item]] if item in self.missing else []
            unknown = [part for part in parts if isinstance(part, str)]
            if parts:
                bill[item] = "; ".join(dict.fromkeys(unknown)) or sum(one for one in parts if isinstance(one, float))
        return bill

    def training_hours(self) -> float | None:
        """Return the hours of training of all students, None where those of any are not known."""
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
