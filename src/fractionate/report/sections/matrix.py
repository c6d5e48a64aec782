"""Decomposer × solver: one table per test set and two-stage strategy, stronger colour for better outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from fractionate.report.amounts import percent, shares_between
from fractionate.report.facts import Facts, Record, metric_label
from fractionate.report.section import HTML, Column, Entry, Section, Table

_LEAD = "The stronger the colour the better, on one scale per test set; ▲ marks the best decomposer of each solver."
_MISSING = Entry(detail="not measured")


def section(facts: Facts) -> Section | None:
    """Return the matrices, with the single-stage cells as their first rows."""
    tables = tuple(table for test_set in facts.test_sets for table in _tables(facts, test_set))
    return Section("matrix", "Decomposer × solver", tables, _LEAD, HTML, beside=True) if tables else None


def _tables(facts: Facts, test_set: str) -> list[Table]:
    cells = [cell for cell in facts.cells if cell["test_set"] == test_set and cell["n"]]
    single = [cell for cell in cells if cell["stages"] == "single"]
    strategies = list(dict.fromkeys(cell["strategy"] for cell in cells if cell["stages"] != "single"))
    solvers = list(dict.fromkeys(cell["solver"] for cell in cells))
    columns = (
        Column("", "decomposer ↓ solver →", "head"),
        *(Column(solver, facts.name(solver), hint=solver) for solver in solvers),
    )
    return [
        Table(
            columns,
            tuple(_rows(facts, [*single, *(cell for cell in cells if cell["strategy"] == strategy)], cells)),
            _title(facts, test_set, strategy, cells[0]["metric"]),
            look="heat",
        )
        for strategy in (strategies or [""])
        if cells
    ]


def _title(facts: Facts, test_set: str, strategy: str, metric: str) -> str:
    text = f"{facts.strategy(strategy) if strategy else 'single stage'}, {metric_label(metric)}"
    return f"{test_set}: {text}" if len(facts.test_sets) > 1 else text


def _rows(facts: Facts, cells: Sequence[Record], of_test_set: Sequence[Record]) -> list[dict[str, Entry]]:
    """Return a row per decomposer or single-stage strategy; the scale of colours is the whole test set's."""
    values = [cell["value"] for cell in of_test_set]
    low, spread = min(values), (max(values) - min(values)) or 1.0
    solvers = {cell["solver"] for cell in cells}
    best = {solver: max(cell["value"] for cell in cells if cell["solver"] == solver) for solver in solvers}
    missing = dict.fromkeys((cell["solver"] for cell in of_test_set), _MISSING)
    rows: dict[tuple[str, str], dict[str, Entry]] = {}
    for cell in cells:
        single = cell["stages"] == "single"
        head = Entry(detail=cell["strategy_label"]) if single else Entry(facts.name(cell["decomposer"]))
        row = rows.setdefault((cell["strategy"] if single else "", cell["decomposer"]), {**missing, "": head})
        row[cell["solver"]] = Entry(
            percent(cell["value"]) + (" ▲" if cell["value"] == best[cell["solver"]] else ""),
            shares_between(cell["ci_low"], cell["ci_high"]),
            strength=(cell["value"] - low) / spread,
            strong=True,
        )
    return list(rows.values())
