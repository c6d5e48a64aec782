"""Warnings: what went wrong on the way to these results, said before anything else."""

from __future__ import annotations

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Lines, Section


def section(facts: Facts) -> Section | None:
    """Return the warnings of the run; commands print them on standard error themselves."""
    warnings = tuple(facts.results["warnings"])
    return Section("warnings", "Went wrong on the way", (Lines(warnings),), formats=PAGES) if warnings else None
