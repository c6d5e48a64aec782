"""Run: what it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Column, Section, Table


def section(facts: Facts) -> Section | None:
    """Return the run's own fields that say something."""
    rows = [
        {"name": str(name), "value": _said(value)}
        for name, value in facts.results["run"].items()
        if value not in ("", None)
    ]
    if not rows:
        return None
    columns = (Column("name", "", "head"), Column("value", ""))
    return Section("run", "Run", (Table(columns, tuple(rows), look="fields"),), formats=PAGES)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {of_name}" for name, of_name in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
