"""report.html: one self-contained page of all sections. Nothing in it is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.files import write_text
from fractionate.report.facts import Facts
from fractionate.report.section import Section, Table
from fractionate.report.sections import sections_of


def write_html(results: Mapping[str, Any], path: Path, examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write report.html; `examples` come from `pick_examples`. Raises FractionateError where that fails."""
    write_text(html(results, examples), path)


def html(results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page as text. Everything that came from data, models or configs is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fractionate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts = Facts(results, examples)
    page = environment.get_template("report.html.j2").render(
        facts=facts,
        distill=results["verdict"]["distill"],
        clauses=_clauses(facts.because),
        sections=[(section, _least_width(section)) for section in sections_of(facts, "html")],
    )
    return page + "\n"


def _clauses(sentence: str) -> list[str]:
    """Return the sentence cut after its semicolons, so that each claim stands on its own line."""
    parts = sentence.split("; ")
    return [part + ";" for part in parts[:-1]] + parts[-1:]


def _least_width(section: Section) -> int:
    """Return the width in rem below which blocks that stand side by side go under each other."""
    tables = [block for block in section.body if isinstance(block, Table)]
    return 7 + 7 * max((len(table.shown("html")) for table in tables), default=4)
