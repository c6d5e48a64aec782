"""The sections of a report, one file each. A new one is a file with a `section` function and a line in this list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fractionate.errors import FractionateError
from fractionate.report.facts import Facts
from fractionate.report.section import Format, Section
from fractionate.report.sections import (
    agreement,
    cells,
    comparisons,
    evidence,
    examples,
    generalisation,
    how_to_read,
    matrix,
    notes,
    outcome,
    prices,
    published,
    run,
    runs,
)

Builder: TypeAlias = Callable[[Facts], Section | None]
"""Makes a section of a report's facts, or None where there is nothing to show."""

_MEASURED: tuple[Builder, ...] = (
    evidence.section,
    outcome.section,
    matrix.section,
    cells.section,
    runs.section,
    published.section,
    generalisation.section,
    agreement.section,
    comparisons.section,
    examples.section,
)
_ABOUT: tuple[Builder, ...] = (
    prices.section,
    notes.section,
    how_to_read.section,
    run.section,
)
_added: list[Builder] = []


def add_section(builder: Builder) -> None:
    """Add a section of another package to every report made from now on, once; it comes before the prices."""
    if builder not in _added:
        _added.append(builder)


def all_sections() -> tuple[Builder, ...]:
    """Return what makes the sections of a report, in order."""
    return (*_MEASURED, *_added, *_ABOUT)


def sections_of(facts: Facts, format: Format) -> list[Section]:
    """Return the sections that a format shows. Raises FractionateError where two are called by one key."""
    built = [section for builder in all_sections() if (section := builder(facts)) is not None]
    keys = [section.key for section in built]
    for key in keys:
        if keys.count(key) > 1:
            raise FractionateError(f"two sections of the report are called {key!r}: rename the added one")
    return [section for section in built if format in section.formats]
