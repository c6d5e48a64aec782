"""The sections that a terminal shows, as aligned plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.errors import printable
from fractionate.report.facts import Facts
from fractionate.report.section import Entry, Lines, Section, Table
from fractionate.report.sections import sections_of


def terminal(results: Mapping[str, Any]) -> str:
    """Return the terminal's sections; no control character of a name or a model's words is left in it."""
    return "\n\n".join(section_text(section) for section in sections_of(Facts(results), "terminal"))


def one_line(text: str) -> str:
    """Return text on one line, control characters as escapes."""
    return printable(" ".join(text.split()))


def section_text(section: Section) -> str:
    """Return a section as text, its drawings left out."""
    parts = [one_line(section.title)]
    for block in section.body:
        if isinstance(block, Table):
            parts += [one_line(block.title)] if block.title else []
            parts.append(_table(block))
        elif isinstance(block, Lines):
            parts.append("\n".join(f"- {one_line(line)}" for line in block.lines))
    return "\n".join(parts)


def _table(table: Table) -> str:
    columns = table.shown("terminal")
    rows = [[one_line(column.short_title) for column in columns]]
    for row in table.laid_out("terminal"):
        texts = []
        for _, entry in row:
            texts += [_entry(entry), *[""] * (entry.span - 1)]
        rows.append(texts)
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    right = [column.kind == "number" for column in columns]
    lines = [_line(row, widths, right) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        text.rjust(width) if to_the_right else text.ljust(width)
        for text, width, to_the_right in zip(texts, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _entry(entry: Entry) -> str:
    return one_line(f"{entry.text} ({entry.detail})" if entry.text and entry.detail else entry.text or entry.detail)
