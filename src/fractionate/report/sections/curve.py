"""Learning curves: what students showed by how much they learnt from, or by their size; and what more would bring."""

from __future__ import annotations

from fractionate.report.amounts import UNKNOWN, dollars, level, percent, points, points_between, shares_between
from fractionate.report.facts import Facts, Record
from fractionate.report.line_charts import curve_chart
from fractionate.report.section import PAGES, Block, Column, Entry, Figure, Lines, Row, Section, Table

_LEAD = (
    "Each student answered the same questions beside the same partner. The error is taken to fall as a power law, with "
    "or without a floor; few amounts do not tell which, so the curves are weighed by what was measured. Intervals are "
    "of one more training on the same questions; they hold a standstill and a straight rise too, but no late rise that "
    "these amounts do not show. Students of a share are judged by no verdict. Dollars are paid once: "
    "for the demonstrations that are new, screened as before, and for a training as much longer."
)


def section(facts: Facts) -> Section | None:
    """Return a table and a drawing per curve."""
    blocks: list[Block] = []
    for number, curve in enumerate(facts.results.get("curve") or ()):
        blocks += _blocks(facts, curve, number)
    return Section("curve", "Learning curve", tuple(blocks), _LEAD, PAGES) if blocks else None


def _blocks(facts: Facts, curve: Record, number: int) -> list[Block]:
    who = f"{curve['student']} with {facts.name(curve['partner'])}, {facts.strategy(curve['strategy'])}"
    title = f"{who}, {curve['test_set']}" if len(facts.test_sets) > 1 else who
    if curve["refused"]:
        return [Lines((f"{title}: no curve, {curve['refused']}",))]
    columns = (
        Column("amount", curve["over"], "head"),
        Column("what", "what"),
        Column("value", f"outcome ({level(curve['confidence'])})", "number"),
        Column("gain", "points more than all", "number"),
        Column("usd", "$ once", "number"),
    )
    rows = [_measured(one) for one in curve["points"]] + [_told(curve, one) for one in curve["beyond"]]
    drawings = (curve_chart(curve, 860, 360, f"curve{number}"), curve_chart(curve, 380, 320, f"curve{number}n"))
    caption = f"Dots were measured; to the right of the line is what {_more(curve)} would bring."
    notes = [Lines((curve["note"],))] if curve.get("note") else []
    return [Table(columns, tuple(rows), title), *notes, Figure("", *drawings, caption=caption)]


def _more(curve: Record) -> str:
    return "more demonstrations" if curve["over"] == "demonstrations" else "a larger student"


def _measured(point: Record) -> Row:
    return {
        "amount": _amount(point["amount"]),
        "what": Entry(point["name"], hint=point["cell"]),
        "value": Entry(percent(point["value"]), "measured"),
    }


def _told(curve: Record, told: Record) -> Row:
    largest = [one["value"] for one in curve["points"] if one["amount"] == curve["points"][-1]["amount"]]
    base = sum(largest) / len(largest)
    times = f"{told['factor']:.3g} times as many" if curve["over"] == "demonstrations" else "the next size"
    return {
        "amount": _amount(told["amount"]),
        "what": times,
        "value": Entry(percent(told["outcome"]), shares_between(told["low"], told["high"])),
        "gain": Entry(points(told["outcome"] - base), points_between(told["low"] - base, told["high"] - base)),
        "usd": UNKNOWN if told["usd"] is None else dollars(told["usd"]),
    }


def _amount(amount: float) -> Entry:
    return Entry(f"{amount:,.0f}", sort=amount)
