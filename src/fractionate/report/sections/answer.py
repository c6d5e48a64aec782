"""What stands beside the verdict: which pairs were compared, in plain names, and what is open about each."""

from __future__ import annotations

from fractionate.analysis.matrix import short_names
from fractionate.analysis.sentence import LEARNT
from fractionate.report.amounts import PER, count, dollars, percent, points
from fractionate.report.facts import Facts, Record, metric_label
from fractionate.report.section import PAGES, Column, Entry, Lines, Row, Section, Table
from fractionate.report.sections.cells import recommended_cells

_GATES = {
    "outcome": "its loss may be more than the margin",
    "cost": "its saving is not shown",
    "net_value": "its worth is not shown",
    "decomposing": "it is not shown to beat one stage",
    "decomposer": "it is not shown to beat the untrained decomposer",
    "solver": "it is not shown to beat the untrained solver",
}
_WHY = {"not measured": "not measured", "no price": "no price is known", "too few questions": "too few questions"}


def compared(facts: Facts) -> Section | None:
    """Return the undistilled pair and every distilled one in plain words, with outcome and bill."""
    evidence = [row for row in facts.results["verdict"]["evidence"] if row["part"] != "decomposing"]
    columns = (
        facts.test_set_column,
        Column("pair", "pair", "head"),
        Column("value", "outcome", "number"),
        Column("usd", f"$ per {PER:,} questions", "number", short=f"$ per {PER:,}"),
        Column("n", "questions", "number"),
    )
    rows: list[Row] = []
    for name in dict.fromkeys(one for row in evidence for one in (row["b"], row["a"])):
        cell = facts.by_name.get(name)
        if cell is not None and cell["n"]:
            rows.append(_pair(facts, cell, name, undistilled=any(row["b"] == name for row in evidence)))
    lead = "The undistilled pair is what is paid for today. All pairs answered the same questions."
    table = Table(columns, tuple(rows), look="cards")
    return Section("compared", "What was compared", (table,), lead, PAGES) if rows else None


def _pair(facts: Facts, cell: Record, name: str, *, undistilled: bool) -> Row:
    usd = cell["usd"]["total"]
    recommended = name in recommended_cells(facts)
    mark = "undistilled, today" if undistilled else "recommended" if recommended else ""
    return {
        "test_set": cell["test_set"],
        "pair": Entry(_said(cell), mark, hint=name, strong=recommended),
        "value": Entry(percent(cell["value"]), metric_label(cell["metric"])),
        "usd": dollars(None if usd is None else usd / cell["n"] * PER),
        "n": count(cell["n"]),
    }


def _said(cell: Record) -> str:
    solver = _plain(cell["solver"], cell["solver_model"])
    if cell["stages"] == "single":
        return f"{solver} answers in one stage"
    return f"{_plain(cell['decomposer'], cell['decomposer_model'])} decomposes; {solver} solves"


def _plain(name: str, model: str) -> str:
    """Return a component in plain words, its name in the run behind it."""
    short = short_names([model or name])[model or name].removesuffix("-Instruct")
    if name in LEARNT:
        return f"{short}, trained on {LEARNT[name]} ({name}),"
    if name == "student":
        return f"the untrained {short}"
    return short if name in (model, "teacher", "solver") else f"{short} ({name})"


def still_open(facts: Facts) -> Section | None:
    """Return a line per pair of which nothing failed and something is open: which gate, and by how much."""
    lines = []
    for row in facts.results["verdict"]["evidence"]:
        gates = row.get("gates", [])
        waiting = [gate for gate in gates if gate["state"] == "open"]
        if waiting and not any(gate["state"] == "failed" for gate in gates):
            where = f" on {row['dataset']}" if len(facts.test_sets) > 1 else ""
            needed = row.get("n_to_decide")
            more = f" About {count(needed)} questions would decide its outcome." if needed else ""
            said = "; ".join(dict.fromkeys(map(_gate, waiting)))
            lines.append(f"{facts.pair(row)}{where}: {said}.{more}")
    return Section("open", "What is open", (Lines(tuple(lines)),), formats=PAGES) if lines else None


def _gate(gate: Record) -> str:
    reason = _WHY.get(gate["reason"])
    if gate["missing"]:
        return f"{_GATES[gate['gate']]} ({gate['missing']} was not measured)"
    if reason:
        return f"{_GATES[gate['gate']]} ({reason})"
    if gate["unit"] == "pp" and gate["bound"] is not None:
        return (
            f"{_GATES[gate['gate']]} (the interval ends at {points(gate['bound'] / 100)} pp, "
            f"the limit is {points(gate['limit'] / 100)} pp)"
        )
    return _GATES[gate["gate"]]
