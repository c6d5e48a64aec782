"""The sections of a report in their order. A new one is a function from facts to a section and a line in this list.

Other packages bring theirs by entry points, group "fractionate.sections"; a program may add one with `add_section`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from fractionate.plugin import all_plugins
from fractionate.report.facts import Facts
from fractionate.report.section import Format, Lines, Section
from fractionate.report.sections import about, answer, break_even, cells, comparisons, curve, verdict

Builder: TypeAlias = Callable[[Facts], Section | None]
"""Makes a section of a report's facts, or None where there is nothing to show."""

_MEASURED: tuple[Builder, ...] = (
    about.warnings,
    about.unparsed,
    cells.outcome,
    answer.compared,
    verdict.evidence,
    answer.still_open,
    verdict.controls,
    break_even.section,
    curve.section,
    cells.matrix,
    cells.cells,
    cells.tools,
    comparisons.runs,
    comparisons.published,
    comparisons.generalisation,
    comparisons.agreement,
    comparisons.comparisons,
    about.tried,
    about.examples,
)
FIRST = frozenset({"warnings", "unparsed", "outcome", "compared", "evidence", "open"})
"""Keys of the sections that a page shows at once; the others are folded."""
_ABOUT: tuple[Builder, ...] = (about.prompts, about.prices, about.notes, about.how_to_read, about.run)
_added: list[Builder] = []


def add_section(builder: Builder) -> None:
    """Add a section to every report made from now on, once."""
    if builder not in _added:
        _added.append(builder)


def all_sections() -> tuple[Builder, ...]:
    """Return what makes the sections of a report, in order; those of other packages come before the prices.

    Raises UsageError for an installed package that cannot be loaded.
    """
    of_packages = [_guarded(name, builder) for name, builder in all_plugins("sections").items()]
    return (*_MEASURED, *of_packages, *_added, *_ABOUT)


def _guarded(name: str, builder: Builder) -> Builder:
    """Return the section of another package, or one that says why it could not be made: a report is not lost by it."""

    def section(facts: Facts) -> Section | None:
        try:
            return builder(facts)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            return Section(name, name, (Lines((f"This section of another package could not be made ({said}).",)),))

    return section


def sections_of(facts: Facts, format: Format) -> list[Section]:
    """Return the sections that a format shows. One whose key another has before it gets a number to its key."""
    sections: list[Section] = []
    for section in (builder(facts) for builder in all_sections()):
        if section is not None:
            taken = sum(section.key == other.key for other in sections)
            sections.append(replace(section, key=f"{section.key}-{taken + 1}") if taken else section)
    return [section for section in sections if format in section.formats]
