"""Generalisation: each student beside what it is laid beside, and whether it learnt from what it is asked."""

from __future__ import annotations

from fractionate.report.amounts import count, p_value, percent, points, points_between
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Entry, Row, Section, table_section

_LEAD = (
    "Each student beside the part it stands in for, and beside a student of its kind that learnt from other data; same "
    "questions, strategy and partner. Seen: whether it learnt from this data set and these kinds of questions. The "
    "figures are those of the run's comparisons, Holm's adjustment included."
)


def section(facts: Facts) -> Section | None:
    """Return one row per student and what it is laid beside."""
    columns = (
        facts.test_set_column,
        Column("student", "student", "head"),
        Column("seen", "seen"),
        Column("partner", "beside"),
        Column("n", "n", "number"),
        Column("value", "value", "number"),
        Column("against", "against"),
        Column("against_value", "its value", "number"),
        Column("difference", "difference", "number"),
        Column("p_adjusted", "p, Holm", "number"),
    )
    rows = [_row(facts, row) for row in facts.results["generalisation"]]
    return table_section("generalisation", "Generalisation", columns, rows, _LEAD, PAGES)


def _row(facts: Facts, row: Record) -> Row:
    stands = facts.stands(row["p_adjusted"])
    return {
        "test_set": row["test_set"],
        "student": Entry(row["student"], f"{row['part']}, from {', '.join(row['learnt_from'])}"),
        "seen": row["seen"] or "–",
        "partner": facts.name(row["partner"]),
        "n": count(row["n"]),
        "value": percent(row["value"]),
        "against": facts.name(row["against"]),
        "against_value": percent(row["against_value"]),
        "difference": Entry(points(row["difference"]), points_between(row["ci_low"], row["ci_high"])),
        "p_adjusted": Entry(("● " if stands else "") + p_value(row["p_adjusted"]), strong=stands),
    }
