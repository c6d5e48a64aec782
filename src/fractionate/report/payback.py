"""After how many questions each proven pair has paid back what it took to make and to prove it.

The bill is the whole run's: also what did not pass had to be trained and measured to know it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.analysis.pricing import Pricing
from fractionate.planning.break_even import VOLUMES, Bill, Saving, pay_back, saved
from fractionate.report.amounts import PER
from fractionate.report.spent import Spent

Record = Mapping[str, Any]


def break_even(spent: Spent | None, evidence: Sequence[Record], pricing: Pricing) -> dict[str, Any] | None:
    """Return the `break_even` of results.json; None where nothing was distilled, or what it took was not looked at.

    `evidence` is the verdict's. A pair is proven where it is no worse within the margin and cheaper. `usd` is null
    where any item of the bill has no known price, and then so is when a pair pays back; `questions` null is never.
    """
    findings = [row for row in evidence if row["part"] != "decomposing"]
    if not findings or spent is None:
        return None
    priced = spent.priced(pricing)
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
        "training_hours": spent.training_hours(),
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
"""Dollars that a pair costs more are dollars that it does not save, so the upper bound is the saving's lower one."""


def saving_of(pair: Record) -> Saving:
    """Return the saving of a pair of `break_even`; a bound that is not known is infinite."""
    low, high = pair["saving_low"], pair["saving_high"]
    return Saving(pair["saving_per_1000"], -math.inf if low is None else low, math.inf if high is None else high)


def saved_after(pair: Record, usd: float, questions: float) -> dict[str, Any]:
    """Return {"questions", "usd", "low", "high"}: what a pair has saved by then, less the bill."""
    value, low, high = saved(Bill({"all": usd}), saving_of(pair), questions)
    return {"questions": questions, "usd": value, "low": _finite(low), "high": _finite(high)}


def _per(usd: float | None, empty: float) -> float:
    return empty if usd is None else -usd * PER


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
