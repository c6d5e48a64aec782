"""A report's sections as one HTML page, as Markdown, as terminal text and as JSON. Nothing in any of them is fetched.

Every format decides how a section looks; what is in it is the same. Text that comes from data, models or configs is
escaped here, so that it is shown as it is and obeyed by no reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from fractionate.errors import printable
from fractionate.files import write_text
from fractionate.report.facts import Facts
from fractionate.report.section import Block, Column, Entry, Example, Figure, Lines, Section, Table
from fractionate.report.sections import FIRST, sections_of

if TYPE_CHECKING:
    from jinja2 import Environment


def write_html(results: Mapping[str, Any], path: Path, examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write report.html; `examples` come from `pick_examples`. Raises FractionateError where that fails."""
    write_text(html(results, examples), path)


def html(results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page as text. Everything that came from data, models or configs is escaped."""
    facts = Facts(results, examples)
    template = templates().get_template("report.html.j2")
    page = template.render(
        facts=facts,
        distill=results["verdict"]["distill"],
        unbroken=_unbroken,
        sections=[(one, _least_width(one), one.key not in FIRST) for one in sections_of(facts, "html")],
    )
    return page + "\n"


@cache
def templates() -> Environment:
    """Return the templates of pages. Each is compiled once in a process, which takes as long as many pages do."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("fractionate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _unbroken(line: str) -> Markup:
    """Return a line of the verdict whose figures keep their units, and whose names of variants are not cut in two."""
    text = str(escape(re.sub(r" (%|pp)(?!\w)", "\u00a0\\1", line)))
    return Markup(re.sub(r"\([A-Z]-[\w-]+\)", r'<span class="name">\g<0></span>', text))


def _least_width(section: Section) -> int:
    """Return the width in rem below which blocks that stand side by side go under each other."""
    tables = [block for block in section.body if isinstance(block, Table)]
    return 7 + 7 * max((len(table.shown("html")) for table in tables), default=4)


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
    action, *others = facts.lines
    parts = [f"# {plain(facts.title)}", f"**{plain(action)}**", *map(plain, others)]
    for section in sections_of(facts, "markdown"):
        parts += _markdown_section(section)
    return "\n\n".join(parts) + "\n"


def markdown_of(sections: Sequence[Section]) -> str:
    """Return sections as Markdown."""
    return "\n\n".join(part for section in sections for part in _markdown_section(section)) + "\n"


def _markdown_section(section: Section) -> list[str]:
    lead = [plain(section.lead)] if section.lead else []
    return [f"## {plain(section.title)}", *lead, *(part for block in section.body for part in _markdown_block(block))]


def _markdown_block(block: Block) -> list[str]:
    match block:
        case Table():
            return _titled(block.title, _markdown_table(block))
        case Figure():
            return _titled(block.title, plain(block.caption))
        case Lines():
            return ["\n".join(f"- {plain(line)}" for line in block.lines)]
        case Example():
            return _titled(block.question, _example(block))


def _titled(title: str, text: str) -> list[str]:
    return [f"### {plain(title)}", text] if title else [text]


def _markdown_table(table: Table) -> str:
    columns = table.shown("markdown")
    lines = [
        _markdown_line([plain(column.title) for column in columns]),
        "|" + "".join("---:|" if column.kind == "number" else "---|" for column in columns),
    ]
    for row in table.laid_out("markdown"):
        texts = []
        for _, entry in row:
            texts += [_markdown_entry(entry), *[""] * (entry.span - 1)]
        lines.append(_markdown_line(texts))
    return "\n".join(lines)


def _markdown_entry(entry: Entry) -> str:
    text = f"**{plain(entry.text)}**" if entry.strong and entry.text else plain(entry.text)
    return f"{text} ({plain(entry.detail)})" if text and entry.detail else text or plain(entry.detail)


def _markdown_line(texts: Sequence[str]) -> str:
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
            parts.append(_text_table(block))
        elif isinstance(block, Lines):
            parts.append("\n".join(f"- {one_line(line)}" for line in block.lines))
    return "\n".join(parts)


def _text_table(table: Table) -> str:
    columns = table.shown("terminal")
    rows = [[one_line(column.short_title) for column in columns]]
    for row in table.laid_out("terminal"):
        texts = []
        for _, entry in row:
            texts += [_text_entry(entry), *[""] * (entry.span - 1)]
        rows.append(texts)
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    right = [column.kind == "number" for column in columns]
    lines = [_text_line(row, widths, right) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _text_line(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        text.rjust(width) if to_the_right else text.ljust(width)
        for text, width, to_the_right in zip(texts, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _text_entry(entry: Entry) -> str:
    return one_line(f"{entry.text} ({entry.detail})" if entry.text and entry.detail else entry.text or entry.detail)


def with_sections(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with the key "sections" for what they do not hold themselves; without such sections as they are.

    A section is {"title", "lead", "rows" (one per table row: sort value or text by column), "lines"}.
    """
    found = {section.key: _section_as_data(section) for section in sections_of(Facts(results), "json")}
    return {**results, "sections": found} if found else dict(results)


def _section_as_data(section: Section) -> dict[str, Any]:
    rows: list[dict[str, float | str]] = []
    lines: list[str] = []
    for block in section.body:
        match block:
            case Table():
                rows += [_row_as_data(entries) for entries in block.laid_out("json")]
            case Lines():
                lines += block.lines
            case Figure():
                lines += [block.caption] if block.caption else []
            case Example():
                lines.append(block.question)
    return {"title": section.title, "lead": section.lead, "rows": rows, "lines": lines}


def _row_as_data(entries: Sequence[tuple[Column, Entry]]) -> dict[str, float | str]:
    row: dict[str, float | str] = {}
    for column, entry in entries:
        row[column.key] = entry.sort_value
        if entry.detail:
            row[f"{column.key}_detail"] = entry.detail
    return row
