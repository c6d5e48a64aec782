"""Prices: what each model's tokens or machine time cost, and where the price comes from."""

from __future__ import annotations

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Column, Entry, Section, table_section


def section(facts: Facts) -> Section | None:
    """Return one row per model that was called."""
    columns = (
        Column("model", "model", "code"),
        Column("known", "cost", "answer"),
        Column("source", "price and where it comes from"),
    )
    rows = [
        {
            "model": price["model"],
            "known": Entry("✓ known", state="yes") if price["known"] else Entry("? unknown", state="open"),
            "source": price["source"],
        }
        for price in facts.results["prices"]
    ]
    return table_section("prices", "Prices", columns, rows, formats=PAGES)
