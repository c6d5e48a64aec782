"""Cells beside each other: paired comparisons, generalisation, agreement, published figures, and run by run."""

from __future__ import annotations

from fractionate.report.amounts import count, p_value, percent, points, points_between, shares_between
from fractionate.report.charts import Forest
from fractionate.report.facts import Facts, Record
from fractionate.report.section import HTML, PAGES, Column, Entry, Row, Section, Table, table_section

_SHOWN = 12
"""More comparisons than this are folded."""


def comparisons(facts: Facts) -> Section | None:
    """Return every comparison; those that are significant after Holm's adjustment are marked."""
    found = facts.results["comparisons"]
    if not found:
        return None
    forest = Forest([row[key] for row in found for key in ("ci_low", "ci_high")])
    columns = (
        facts.test_set_column,
        Column("pair", "a against b", "head"),
        Column("plot", "a − b in percentage points", "plot", HTML, ticks=forest.axis()),
        Column("difference", "a − b (pp)", "number"),
        Column("family", "family"),
        Column("p", "p", "number"),
        Column("p_adjusted", "p, Holm", "number"),
        Column("n", "n", "number"),
        Column("test", "test"),
    )
    table = Table(
        columns,
        tuple(_comparison(facts, row, forest) for row in found),
        summary=f"{count(len(found))} comparisons",
        folded=len(found) > _SHOWN,
    )
    lead = (
        "Paired over the same questions. The verdict uses the primary comparisons; the others are exploratory. Holm's "
        "adjustment covers each family separately. Comparisons significant after it are bold and marked ●."
    )
    return Section("comparisons", "Comparisons", (table,), lead, PAGES)


def _comparison(facts: Facts, row: Record, forest: Forest) -> Row:
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


_GENERALISATION_LEAD = (
    "Each student beside the part that it replaces, and beside a student of its kind trained on other data, on the "
    "same questions with the same strategy and partner. Seen: whether its training data had this data set and these "
    "kinds of questions. The figures are those of the comparisons, Holm's adjustment included."
)


def generalisation(facts: Facts) -> Section | None:
    """Return one row per student and the model that it is compared with."""
    columns = (
        facts.test_set_column,
        Column("student", "student", "head"),
        Column("seen", "seen"),
        Column("partner", "partner"),
        Column("n", "n", "number"),
        Column("value", "value", "number"),
        Column("against", "against"),
        Column("against_value", "value there", "number"),
        Column("difference", "difference", "number"),
        Column("p_adjusted", "p, Holm", "number"),
    )
    rows = [_generalisation(facts, row) for row in facts.results["generalisation"]]
    return table_section("generalisation", "Generalisation", columns, rows, _GENERALISATION_LEAD, PAGES)


def _generalisation(facts: Facts, row: Record) -> Row:
    stands = facts.stands(row["p_adjusted"])
    return {
        "test_set": row["test_set"],
        "student": Entry(row["student"], f"{row['part']}, from {', '.join(row['learnt_from'])}"),
        "seen": row["seen"] or "–",
        "partner": facts.name(row["partner"]),
        "n": count(row["n"]),
        "value": percent(row["value"]),
        "against": facts.name(row["against"]),
        "against_value": percent(row["against_value"]),
        "difference": Entry(points(row["difference"]), points_between(row["ci_low"], row["ci_high"])),
        "p_adjusted": Entry(("● " if stands else "") + p_value(row["p_adjusted"]), strong=stands),
    }


_AGREEMENT_LEAD = "How closely each decomposer follows the teacher's subquestions on the same questions."


def agreement(facts: Facts) -> Section | None:
    """Return one row per decomposer and test set."""
    columns = (
        facts.test_set_column,
        Column("decomposer", "decomposer", "head"),
        Column("reference", "against"),
        Column("n", "n", "number"),
        Column("exact", "same words", "number"),
        Column("token_f1", "token F1", "number"),
        Column("subquestions", "subquestions", "number"),
        Column("reference_subquestions", "subquestions there", "number"),
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
    return table_section("agreement", "Agreement of decompositions", columns, rows, _AGREEMENT_LEAD, PAGES)


def _test_set(facts: Facts, row: Record) -> str:
    """Return the name of the row's test set; a data set may have several splits."""
    named = (cell["test_set"] for cell in facts.cells if all(cell[key] == row[key] for key in ("dataset", "split")))
    return str(next(named, row["dataset"]))


def published(facts: Facts) -> Section | None:
    """Return each published figure with its measured cell."""
    columns = (
        facts.test_set_column,
        Column("strategy", "strategy"),
        Column("decomposer", "decomposer", "head"),
        Column("solver", "solver", "head"),
        Column("published", "published", "number"),
        Column("measured", "measured", "number"),
        Column("difference", "difference", "number"),
        Column("source", "source"),
    )
    rows = [_published(facts, row) for row in facts.results["published"]]
    return table_section("published", "Published figures", columns, rows, formats=PAGES)


def _published(facts: Facts, row: Record) -> Row:
    measured = row["measured"] is not None
    return {
        "test_set": facts.by_name[row["cell"]]["test_set"] if row["cell"] else row["dataset"],
        "strategy": row["strategy"],
        "decomposer": facts.name(row["decomposer"]),
        "solver": facts.name(row["solver"]),
        "published": percent(row["published"]),
        "measured": Entry(percent(row["measured"]), shares_between(row["ci_low"], row["ci_high"]))
        if measured
        else "not measured",
        "difference": points(row["difference"]) if measured else "",
        "source": row["source"],
    }


_RUNS_LEAD = "Each cell's value in every run that measured it. Intervals elsewhere are for the mean over these runs."


def runs(facts: Facts) -> Section | None:
    """Return the values of the runs side by side, with their mean."""
    pooled = facts.results["runs"]
    names = list(dict.fromkeys(name for values in pooled.values() for name in values))
    columns = (
        facts.test_set_column,
        Column("pair", "pair", "head"),
        *(Column(f"run {run}", run, "number") for run in names),
        Column("mean", "mean", "number"),
    )
    rows = [
        {
            "test_set": cell["test_set"],
            "pair": facts.label(cell),
            **{f"run {run}": percent(value) if (value := values.get(run)) is not None else "–" for run in names},
            "mean": percent(cell["value"]),
        }
        for cell in facts.cells
        if (values := pooled.get(cell["name"]))
    ]
    return table_section("runs", "Run by run", columns, rows, _RUNS_LEAD, PAGES)
