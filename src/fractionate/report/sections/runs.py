"""Run by run: in a pooled report, each cell's value in every run that measured it."""

from __future__ import annotations

from fractionate.report.amounts import percent
from fractionate.report.facts import Facts
from fractionate.report.section import PAGES, Column, Section, table_section

_LEAD = (
    "Each cell's value in every run that measured it. The intervals elsewhere resample questions, not runs: they hold "
    "for the mean over these runs."
)


def section(facts: Facts) -> Section | None:
    """Return the values of the runs side by side, with their mean."""
    pooled = facts.results["runs"]
    runs = list(dict.fromkeys(name for values in pooled.values() for name in values))
    columns = (
        facts.test_set_column,
        Column("pair", "pair", "head"),
        *(Column(f"run {run}", run, "number") for run in runs),
        Column("mean", "mean", "number"),
    )
    rows = [
        {
            "test_set": cell["test_set"],
            "pair": facts.label(cell),
            **{f"run {run}": percent(value) if (value := values.get(run)) is not None else "–" for run in runs},
            "mean": percent(cell["value"]),
        }
        for cell in facts.cells
        if (values := pooled.get(cell["name"]))
    ]
    return table_section("runs", "Run by run", columns, rows, _LEAD, PAGES)
