"""Comparisons: pairs of cells over the same questions, drawn on one scale."""

from __future__ import annotations

from fractionate.report.amounts import count, p_value, points, points_between
from fractionate.report.charts import Forest
from fractionate.report.facts import Facts, Record
from fractionate.report.section import HTML, PAGES, Column, Entry, Row, Section, Table

_OPEN = 12
"""Up to this many comparisons are shown at once, more are folded away."""


def section(facts: Facts) -> Section | None:
    """Return every comparison; those that stand after Holm's adjustment are marked."""
    found = facts.results["comparisons"]
    if not found:
        return None
    forest = Forest([row[key] for row in found for key in ("ci_low", "ci_high")])
    columns = (
        facts.test_set_column,
        Column("pair", "a against b", "head"),
        Column("plot", "a − b in points", "plot", HTML, ticks=forest.axis()),
        Column("difference", "a − b, points", "number"),
        Column("family", "family"),
        Column("p", "p", "number"),
        Column("p_adjusted", "p, Holm", "number"),
        Column("n", "n", "number"),
        Column("test", "test"),
    )
    table = Table(
        columns,
        tuple(_row(facts, row, forest) for row in found),
        summary=f"{count(len(found))} comparisons",
        folded=len(found) > _OPEN,
    )
    lead = (
        "Paired over the same questions. The verdict rests on the primary ones; the rest explore. Holm's adjustment "
        "covers the two families apart. Those that stand after it are in bold and marked ●."
    )
    return Section("comparisons", "Comparisons", (table,), lead, PAGES)


def _row(facts: Facts, row: Record, forest: Forest) -> Row:
    a, b = facts.by_name[row["a"]], facts.by_name[row["b"]]
    stands = facts.stands(row["p_adjusted"])
    difference = points(row["difference"])
    return {
        "test_set": a["test_set"],
        "pair": Entry(facts.label(a), f"against {facts.label(b)}"),
        "plot": Entry(drawing=forest.row(row["difference"], row["ci_low"], row["ci_high"], difference)),
        "difference": Entry(difference, points_between(row["ci_low"], row["ci_high"])),
        "family": row["family"],
        "p": p_value(row["p_value"]),
        "p_adjusted": Entry(("● " if stands else "") + p_value(row["p_adjusted"]), strong=stands),
        "n": count(row["n"]),
        "test": row["test"],
    }
