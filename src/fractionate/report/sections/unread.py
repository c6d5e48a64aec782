"""Unparsed: cells of whose outputs too many were not read, or cut off, and what would fix that."""

from __future__ import annotations

from collections.abc import Sequence

from fractionate.report.amounts import percent
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, TERMINAL, Lines, Section

_NAMED = 3
"""Cells that a line names."""


def section(facts: Facts) -> Section | None:
    """Return a line per fix: where it would help, and how bad it is there."""
    by_fix: dict[tuple[str, ...], list[Record]] = {}
    for unread in facts.results.get("unread", []):
        by_fix.setdefault(tuple(unread["fixes"]), []).append(unread)
    lines = tuple(_line(facts, fixes, cells) for fixes, cells in by_fix.items())
    lead = (
        "Of these cells more than a tenth of the outputs was unread or cut off, so their values may be of the form of "
        "the answers and not of the reasoning: see what the lenient reading finds there."
    )
    return Section("unread", "Unparsed or cut off", (Lines(lines),), lead, PAGES | TERMINAL) if lines else None


def _line(facts: Facts, fixes: Sequence[str], cells: Sequence[Record]) -> str:
    names = [facts.label(facts.by_name[cell["cell"]]) for cell in cells[:_NAMED]]
    more = f" and {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    worst = "at most " if len(cells) > 1 else ""
    unread, cut_off = (max(cell[key] for cell in cells) for key in ("unread_share", "cut_off_share"))
    said = f"{'; '.join(names)}{more}: {worst}{percent(unread)} unread, {percent(cut_off)} cut off."
    return f"{said} Fix: {'; '.join(fixes)}." if fixes else said
