"""Agreement of decompositions: how closely each decomposer follows the teacher's subquestions."""

from __future__ import annotations

from fractionate.report.amounts import count, percent
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Section, table_section

_LEAD = "How closely each decomposer follows the teacher's subquestions on the same questions."


def section(facts: Facts) -> Section | None:
    """Return one row per decomposer and test set."""
    columns = (
        facts.test_set_column,
        Column("decomposer", "decomposer", "head"),
        Column("reference", "against"),
        Column("n", "n", "number"),
        Column("exact", "same words", "number"),
        Column("token_f1", "token F1", "number"),
        Column("subquestions", "subquestions", "number"),
        Column("reference_subquestions", "against's", "number"),
    )
    rows = [
        {
            "test_set": _test_set(facts, row),
            "decomposer": facts.name(row["decomposer"]),
            "reference": facts.name(row["reference"]),
            "n": count(row["n"]),
            "exact": percent(row["exact"]),
            "token_f1": f"{row['token_f1']:.2f}",
            "subquestions": f"{row['subquestions']:.2f}",
            "reference_subquestions": f"{row['reference_subquestions']:.2f}",
        }
        for row in facts.results["agreement"]
    ]
    return table_section("agreement", "Agreement of decompositions", columns, rows, _LEAD, PAGES)


def _test_set(facts: Facts, row: Record) -> str:
    """Return the name of the row's test set; a data set may be there with several splits."""
    named = (cell["test_set"] for cell in facts.cells if all(cell[key] == row[key] for key in ("dataset", "split")))
    return str(next(named, row["dataset"]))
