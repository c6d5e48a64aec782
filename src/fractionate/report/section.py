"""What a report is made of: sections of tables, figures, lists and worked examples, the same for every format.

A section says what there is to show and never how: no HTML, no Markdown. Text is plain and every format escapes it;
only a drawing is markup, and the code that makes a drawing escapes the text in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

Format = Literal["html", "markdown", "terminal", "json"]
HTML: frozenset[Format] = frozenset({"html"})
MARKDOWN: frozenset[Format] = frozenset({"markdown"})
TERMINAL: frozenset[Format] = frozenset({"terminal"})
PAGES: frozenset[Format] = HTML | MARKDOWN
TEXT: frozenset[Format] = frozenset({"markdown", "terminal", "json"})
EVERYWHERE: frozenset[Format] = HTML | TEXT

State = Literal["", "yes", "no", "open"]
Kind = Literal["text", "head", "code", "number", "answer", "plot"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    `kind` is what its entries are: "head" names the row, "code" names it in the words of a machine, "number" is set to
    the right, "answer" takes the colour of its state, "plot" holds drawings on the scale of `ticks` (percent from the
    left, text). `hint` is shown on pointing at the heading, `short` is its title where there is little room. The column
    is shown in the `formats` it lists.
    """

    key: str
    title: str
    kind: Kind = "text"
    formats: frozenset[Format] = EVERYWHERE
    ticks: tuple[tuple[float, str], ...] = ()
    hint: str = ""
    short: str = ""

    @property
    def short_title(self) -> str:
        """Return the title where there is little room."""
        return self.short or self.title


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one column of one row.

    `detail` is a second, smaller line; `sort` what the column is sorted by if not `text` ("" comes last); `hint` what
    pointing at it shows; `strength` a background from 0 to 1; `span` how many columns it takes up.
    """

    text: str = ""
    detail: str = ""
    sort: float | str | None = None
    hint: str = ""
    state: State = ""
    drawing: Markup | None = None
    strength: float | None = None
    span: int = 1
    strong: bool = False

    @property
    def sort_value(self) -> float | str:
        """Return what the entry is sorted by."""
        return self.text if self.sort is None else self.sort


Row: TypeAlias = Mapping[str, Entry | str]
"""Entries by the keys of their columns; a key that is missing leaves its place empty."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns. `summary` puts it behind a line that folds it away, `folded` says whether it starts so.

    `look` is how a page sets it: "cards" (one card per row on a phone), "heat" (entries by strength), "fields" (names
    and values, without headings).
    """

    kind: ClassVar[str] = "table"
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    look: Literal["plain", "cards", "heat", "fields"] = "plain"
    sortable: bool = False
    summary: str = ""
    folded: bool = False

    def shown(self, format: Format) -> tuple[Column, ...]:
        """Return the columns of a format."""
        return tuple(column for column in self.columns if format in column.formats)

    def laid_out(self, format: Format) -> Iterator[list[tuple[Column, Entry]]]:
        """Yield each row's entries with their columns; what a wide entry covers is left out."""
        columns = self.shown(format)
        for row in self.rows:
            line, covered = [], 0
            for column in columns:
                if covered:
                    covered -= 1
                    continue
                found = row.get(column.key, "")
                entry = found if isinstance(found, Entry) else Entry(found)
                covered = entry.span - 1
                line.append((column, entry))
            yield line


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing for wide pages and one for narrow ones, with a legend of (mark, text) and a caption."""

    kind: ClassVar[str] = "figure"
    title: str = ""
    wide: Markup | None = None
    narrow: Markup | None = None
    legend: tuple[tuple[Markup, str], ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences, one to a bullet."""

    kind: ClassVar[str] = "lines"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """One pair's attempt at an example's question; `prediction` is None where no answer could be read."""

    pair: str
    right: bool
    subquestions: tuple[str, ...]
    prediction: str | None
    output: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question, its known answer, its passage ("" where it has none), and how pairs worked it through."""

    kind: ClassVar[str] = "example"
    question: str
    known: str
    passage: str
    attempts: tuple[Tried, ...]
    test_set: str = ""


Block: TypeAlias = Table | Figure | Lines | Example


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a report. `key` is unique in the report: it names the section in a page's address and in JSON.

    `beside` lets the blocks of a wide page stand side by side. JSON is for sections whose facts results.json does not
    hold under a key of its own: those of other packages.
    """

    key: str
    title: str
    body: tuple[Block, ...]
    lead: str = ""
    formats: frozenset[Format] = EVERYWHERE
    beside: bool = False


def table_section(
    key: str,
    title: str,
    columns: Iterable[Column],
    rows: Iterable[Row],
    lead: str = "",
    formats: frozenset[Format] = EVERYWHERE,
) -> Section | None:
    """Return a section of one plain table, or None where there are no rows."""
    table = Table(tuple(columns), tuple(rows))
    return Section(key, title, (table,), lead, formats) if table.rows else None
