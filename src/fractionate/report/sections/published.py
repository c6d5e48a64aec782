"""Beside published figures: what others reported for a pair, and what was measured here."""

from __future__ import annotations

from fractionate.report.amounts import percent, points, shares_between
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Entry, Row, Section, table_section


def section(facts: Facts) -> Section | None:
    """Return each published figure with its measured cell."""
    columns = (
        facts.test_set_column,
        Column("strategy", "strategy"),
        Column("decomposer", "decomposer", "head"),
        Column("solver", "solver", "head"),
        Column("published", "published", "number"),
        Column("measured", "measured", "number"),
        Column("difference", "difference", "number"),
        Column("source", "source"),
    )
    rows = [_row(facts, row) for row in facts.results["published"]]
    return table_section("published", "Beside published figures", columns, rows, formats=PAGES)


def _row(facts: Facts, row: Record) -> Row:
    measured = row["measured"] is not None
    return {
        "test_set": facts.by_name[row["cell"]]["test_set"] if row["cell"] else row["dataset"],
        "strategy": row["strategy"],
        "decomposer": facts.name(row["decomposer"]),
        "solver": facts.name(row["solver"]),
        "published": percent(row["published"]),
        "measured": Entry(percent(row["measured"]), shares_between(row["ci_low"], row["ci_high"]))
        if measured
        else "not measured",
        "difference": points(row["difference"]) if measured else "",
        "source": row["source"],
    }
