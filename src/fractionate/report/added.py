"""Sections of other packages as data: what `--json` prints of them beside results.json's own fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.report.facts import Facts
from fractionate.report.section import Column, Entry, Example, Figure, Lines, Section, Table
from fractionate.report.sections import sections_of


def with_sections(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with the key "sections" for what they do not hold themselves; without such sections as they are.

    A section is {"title", "lead", "rows" (one per table row: sort value or text by column), "lines"}.
    """
    found = {section.key: _section(section) for section in sections_of(Facts(results), "json")}
    return {**results, "sections": found} if found else dict(results)


def _section(section: Section) -> dict[str, Any]:
    rows: list[dict[str, float | str]] = []
    lines: list[str] = []
    for block in section.body:
        match block:
            case Table():
                rows += [_row(entries) for entries in block.laid_out("json")]
            case Lines():
                lines += block.lines
            case Figure():
                lines += [block.caption] if block.caption else []
            case Example():
                lines.append(block.question)
    return {"title": section.title, "lead": section.lead, "rows": rows, "lines": lines}


def _row(entries: Sequence[tuple[Column, Entry]]) -> dict[str, float | str]:
    row: dict[str, float | str] = {}
    for column, entry in entries:
        row[column.key] = entry.sort_value
        if entry.detail:
            row[f"{column.key}_detail"] = entry.detail
    return row
