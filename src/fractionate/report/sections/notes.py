"""Notes: what a reader must know besides the figures."""

from __future__ import annotations

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Lines, Section


def section(facts: Facts) -> Section | None:
    """Return the notes of the run and of its report."""
    notes = tuple(facts.results["notes"])
    return Section("notes", "Notes", (Lines(notes),), formats=PAGES) if notes else None
