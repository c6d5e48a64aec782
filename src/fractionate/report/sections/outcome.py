"""Outcome and cost: one chart per test set, a mark per cell."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fractionate.report.amounts import PER, dollars, percent
from fractionate.report.charts import Point, legend_mark, scatter
from fractionate.report.facts import Facts, Record, metric_label
from fractionate.report.section import HTML, Figure, Section

_KINDS = {
    "none": "no decomposer",
    "reference": "teacher or gold decomposes",
    "student": "student or other model decomposes",
}
_LEAD = (
    "Up is better, left is cheaper. Bars are intervals; numbers are the rows of the cells table; the dotted line joins "
    "the cells that no other beats in both."
)


def section(facts: Facts) -> Section | None:
    """Return a chart per test set; its numbers are those of the cells table."""
    figures = tuple(_figure(facts, name, key) for key, name in enumerate(facts.test_sets))
    return Section("outcome", "Outcome and cost", figures, _LEAD, HTML) if figures else None


def _figure(facts: Facts, test_set: str, key: int) -> Figure:
    cells = [cell for cell in facts.cells if cell["test_set"] == test_set and cell["n"]]
    money = sum(1 for cell in cells if cell["usd"]["total"]) >= 2
    drawn = [cell for cell in cells if not money or cell["usd"]["total"] is not None]
    marks = [_mark(facts, cell, money) for cell in drawn]
    axis = f"dollars per {PER:,} questions" if money else "tokens per question"
    missing = ", ".join(str(facts.numbers[cell["name"]]) for cell in cells if cell not in drawn)
    outcome = metric_label(cells[0]["metric"]) if cells else "nothing was measured"
    caption = [f"Outcome: {outcome} on {test_set}."]
    caption += [] if money else ["Fewer than two cells cost known dollars, so the chart shows tokens instead."]
    caption += [f"Not drawn, cost unknown: {missing}."] if missing else []
    return Figure(
        test_set if len(facts.test_sets) > 1 else "",
        scatter(marks, axis, money, 860, 430, f"wide{key}") if marks else None,
        scatter(marks, axis, money, 380, 400, f"narrow{key}") if marks else None,
        tuple(_legend(facts, drawn)),
        " ".join(caption),
    )


def _mark(facts: Facts, cell: Record, money: bool) -> Point:
    number, total = facts.numbers[cell["name"]], cell["usd"]["total"]
    return Point(
        number,
        f"{number}. {facts.label(cell)}: {percent(cell['value'])}, {dollars(total)} in all",
        total / cell["n"] * PER if money else _tokens(cell) / cell["n"],
        cell["value"],
        cell["ci_low"],
        cell["ci_high"],
        cell["decomposer_kind"],
        cell["strategy"],
        cell["student_solver"],
    )


def _tokens(cell: Record) -> int:
    return sum(int(usage["input_tokens"]) + int(usage["output_tokens"]) for usage in cell["usage"].values())


def _legend(facts: Facts, cells: Sequence[Record]) -> list[tuple[Markup, str]]:
    drawn = {cell["decomposer_kind"] for cell in cells}
    entries = [(legend_mark(kind=kind), text) for kind, text in _KINDS.items() if kind in drawn]
    if any(cell["student_solver"] for cell in cells):
        entries.append((legend_mark(hollow=True), "hollow: a student solves"))
    strategies = dict.fromkeys(cell["strategy"] for cell in cells)
    return [*entries, *((legend_mark(strategy=name), facts.strategy(name)) for name in strategies)]
