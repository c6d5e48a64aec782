"""Controls: what each distilled configuration has to beat before "no worse" means anything."""

from __future__ import annotations

from fractionate.report.amounts import count, level, percent, points, points_between
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Entry, Row, Section, table_section
from fractionate.report.sections.evidence import answer

_CLAIMS = {
    "decomposing": "decomposing beats one stage",
    "decomposer": "training the decomposer beats the untrained model",
    "solver": "training the solver beats the untrained model",
}


def section(facts: Facts) -> Section | None:
    """Return each control once, in the order of the configurations."""
    split = any(
        control.get("substance")
        for finding in facts.results["verdict"]["evidence"]
        for control in finding.get("controls", [])
    )
    columns = (
        facts.test_set_column,
        Column("claim", "claim", "head"),
        Column("pair", "pair"),
        Column("against", "against"),
        Column("difference", "points", "number"),
        Column("values", "values", "number"),
        *((Column("form", "of it form", "number"), Column("substance", "of it substance", "number")) if split else ()),
        Column("passed", "shown", "answer"),
    )
    seen: dict[tuple[str, ...], Row] = {}
    for finding in facts.results["verdict"]["evidence"]:
        for control in finding.get("controls", []):
            key = (
                finding["dataset"],
                control["claim"],
                control.get("a", finding["a"]),
                control.get("b", control["missing"]),
            )
            seen.setdefault(key, _row(finding, control, facts))
    lead = (
        "A configuration that is no worse than the undistilled pair shows nothing where that pair is no better than "
        "answering in one stage, or where the student does as well untrained. Not measured is not passed."
    )
    if split:
        lead += (
            " What training gains is substance as far as the lenient reading gains it too, and form (answers stated so "
            "that they can be read) for the rest."
        )
    return table_section("controls", "Controls", columns, seen.values(), lead, PAGES)


def _row(finding: Record, control: Record, facts: Facts) -> Row:
    pair = facts.by_name.get(control.get("a", finding["a"]), finding)
    row: dict[str, Entry | str] = {
        "test_set": finding["dataset"],
        "claim": _CLAIMS[control["claim"]],
        "pair": facts.pair(pair),
        "passed": answer(control["passed"]),
    }
    if control["missing"]:
        return {**row, "against": f"not measured: {control['missing']}"}
    rival = facts.by_name.get(control["b"])
    return {
        **row,
        "against": f"{facts.strategy(rival['strategy'])}, {facts.pair(rival)}" if rival else control["b"],
        "difference": Entry(
            points(control["difference"]),
            f"{points_between(control['ci_low'], control['ci_high'])}, {level(control['confidence'])}",
        ),
        "values": Entry(
            f"{percent(control['value'])} / {percent(control['reference_value'])}", f"n = {count(control['n'])}"
        ),
        **{key: _gain(control[key]) for key in ("form", "substance") if control.get(key)},
    }


def _gain(gain: Record) -> Entry:
    return Entry(points(gain["difference"]), points_between(gain["ci_low"], gain["ci_high"]))
