"""The table of generalisation as both reports show it: one row a student and what it is laid beside, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractionate.report.formatting import count, p_value, percent, points

LEAD = (
    "Each student beside the part it stands in for, and beside a student of its kind that learnt from other data; same "
    "questions, strategy and partner. Seen: whether it learnt from this data set and these kinds of questions. The "
    "figures are those of the run's comparisons, Holm's adjustment included."
)


def generalisation_rows(results: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of the table as text; `stands` marks differences that stand after Holm's adjustment."""
    level = 1 - results["verdict"]["rule"]["confidence"]
    return [
        {
            "test_set": row["test_set"],
            "part": row["part"],
            "student": row["student"],
            "learnt_from": ", ".join(row["learnt_from"]),
            "seen": row["seen"] or "–",
            "partner": names.get(row["partner"], row["partner"]),
            "n": count(row["n"]),
            "value": percent(row["value"]),
            "against": names.get(row["against"], row["against"]),
            "against_value": percent(row["against_value"]),
            "difference": points(row["difference"]),
            "interval": f"{points(row['ci_low'])} to {points(row['ci_high'])}",
            "p_adjusted": p_value(row["p_adjusted"]),
            "stands": row["p_adjusted"] < level,
        }
        for row in results["generalisation"]
    ]
