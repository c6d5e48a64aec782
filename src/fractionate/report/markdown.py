"""report.md: all sections as Markdown that reads well as it is, in which nothing from data is markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.files import write_text
from fractionate.report.facts import Facts
from fractionate.report.section import Block, Entry, Example, Figure, Lines, Section, Table
from fractionate.report.sections import sections_of

_SPECIAL = re.compile(
    r"[\\`*\[\]~]"  # code, emphasis, links, images, reference definitions, strikethrough
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; inside a word an underscore is none
    r"|(?<!\S)#|^>|^[-+](?=[-+\s]|$)"  # headings, quotes, lists and rules
    r"|:(?=//)|(?<=\bwww)\.|@(?=[\w-]+\.\w)",  # addresses that readers turn into links by themselves
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(\d+)(?=[.)](\s|$))")


def write_markdown(results: Mapping[str, Any], path: Path) -> None:
    """Write report.md. Raises FractionateError naming the file where that fails."""
    write_text(markdown(results), path)


def markdown(results: Mapping[str, Any]) -> str:
    """Return the report of a results.json as Markdown."""
    facts = Facts(results)
    parts = [f"# {plain(facts.title)}", f"**{plain(facts.because)}**"]
    for section in sections_of(facts, "markdown"):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    lead = [plain(section.lead)] if section.lead else []
    return [f"## {plain(section.title)}", *lead, *(part for block in section.body for part in _block(block))]


def _block(block: Block) -> list[str]:
    match block:
        case Table():
            return _titled(block.title, _table(block))
        case Figure():
            return _titled(block.title, plain(block.caption))
        case Lines():
            return ["\n".join(f"- {plain(line)}" for line in block.lines)]
        case Example():
            return _titled(block.question, _example(block))


def _titled(title: str, text: str) -> list[str]:
    return [f"### {plain(title)}", text] if title else [text]


def _table(table: Table) -> str:
    columns = table.shown("markdown")
    lines = [
        _line([plain(column.title) for column in columns]),
        "|" + "".join("---:|" if column.kind == "number" else "---|" for column in columns),
    ]
    for row in table.laid_out("markdown"):
        texts = []
        for _, entry in row:
            texts += [_entry(entry), *[""] * (entry.span - 1)]
        lines.append(_line(texts))
    return "\n".join(lines)


def _entry(entry: Entry) -> str:
    text = f"**{plain(entry.text)}**" if entry.strong and entry.text else plain(entry.text)
    return f"{text} ({plain(entry.detail)})" if text and entry.detail else text or plain(entry.detail)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _example(example: Example) -> str:
    lines = [f"- Known answer: {plain(example.known)}"]
    for tried in example.attempts:
        read = "none could be read" if tried.prediction is None else tried.prediction
        lines.append(f"- {plain(tried.pair)}: {'right' if tried.right else 'wrong'}, answer read: {plain(read)}")
    return "\n".join(lines)


def plain(text: str) -> str:
    """Return text on one line that every Markdown reader shows as it is: no link, image, HTML, table or emphasis.

    The characters that could start one are escaped, as CommonMark and GitHub's dialect of it read them
    (https://spec.commonmark.org, https://github.github.com/gfm).
    """
    line = _SPECIAL.sub(lambda found: "\\" + found.group(), " ".join(text.split()))
    line = _NUMBERED.sub(r"\1\\", line)
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    return re.sub(r"<(?!\s|\d|$)", "&lt;", line).replace("|", "&#124;")
