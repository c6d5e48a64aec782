"""Break-even: the one-off bill, after how many questions each proven pair has paid it back, and what it saves."""

from __future__ import annotations

from fractionate.report.amounts import PER, UNKNOWN, count, dollars, dollars_between
from fractionate.report.facts import Facts, Record
from fractionate.report.line_charts import HEIGHT, WIDTH, break_even_chart
from fractionate.report.section import PAGES, Block, Column, Entry, Figure, Lines, Row, Section, Table
from fractionate.report.sections.cells import recommended_cells
from fractionate.report.sections.verdict import answer

_LEAD = (
    "The bill is paid once. It covers the whole run: configurations that did not pass had to be trained and measured "
    "too. A pair is proven if it is no worse within the margin and cheaper; to pass, its controls must pass too. "
    "Intervals are those of the saving, at the verdict's confidence. A negative amount means that the bill is not paid "
    "back yet."
)


def section(facts: Facts) -> Section | None:
    """Return the bill, and a row per proven pair; nothing where nothing was distilled."""
    found = facts.results.get("break_even")
    if not found:
        return None
    if not found["pairs"]:
        return Section("break-even", "Break-even", (_bill(found), Lines((_none_proven(found),))), _LEAD, PAGES)
    body: list[Block] = [_bill(found), _pairs(facts, found)]
    if found["usd"] is not None:
        body += [*_drawing(facts, found), _saved(facts, found)]
    return Section("break-even", "Break-even", tuple(body), _LEAD, PAGES)


def _bill(found: Record) -> Table:
    hours = found["training_hours"]
    details = {"training": f"{hours:,.2f} hours"} if hours else {}
    why = (Column("unknown", "reason if unknown"),) if any(row["unknown"] for row in found["bill"]) else ()
    rows = []
    for row in (*found["bill"], {"item": "all", "usd": found["usd"], "unknown": ""}):
        entries = {"item": Entry(row["item"], details.get(row["item"], "")), "usd": Entry(dollars(row["usd"]))}
        rows.append({**entries, **({"unknown": row["unknown"]} if why else {})})
    return Table((Column("item", "paid once", "head"), Column("usd", "$", "number"), *why), tuple(rows), "The bill")


def _pairs(facts: Facts, found: Record) -> Table:
    columns = (
        facts.test_set_column,
        Column("pair", "proven pair", "head"),
        Column("saving", f"$ saved per {PER:,} questions", "number", short=f"$ per {PER:,}"),
        Column("questions", "paid back after", "number"),
        Column("worth", "passes", "answer"),
    )
    return Table(columns, tuple(_row(facts, pair, found["usd"]) for pair in found["pairs"]), "Paid back", look="cards")


def _row(facts: Facts, pair: Record, bill: float | None) -> Row:
    return {
        "test_set": pair["dataset"],
        "pair": Entry(f"{pair['strategy']}, {facts.pair(pair)}", hint=pair["a"]),
        "saving": Entry(dollars(pair["saving_per_1000"]), dollars_between(pair["saving_low"], pair["saving_high"])),
        "questions": _questions(pair) if bill is not None else Entry(UNKNOWN, "the bill is unknown"),
        "worth": answer(pair["worth"]),
    }


def _drawing(facts: Facts, found: Record) -> list[Block]:
    """Return the drawing of the recommended pair, else of the one that pays back first; none without such a pair."""
    paying = [pair for pair in found["pairs"] if pair["questions"] is not None]
    if not paying or found["usd"] <= 0:
        return []
    chosen = recommended_cells(facts)
    first = min(paying, key=lambda pair: (pair["a"] not in chosen, pair["questions"]))
    drawings = (
        break_even_chart(first, found["usd"], WIDTH, HEIGHT, "break-even"),
        break_even_chart(first, found["usd"], 380, 280, "break-even-n"),
    )
    where = f" on {first['dataset']}" if len(facts.test_sets) > 1 else ""
    caption = (
        f"What {first['strategy']}, {facts.pair(first)}{where} has saved, less the bill; the dot is where it is paid "
        "back, the band the interval of the saving."
    )
    return [Figure("", *drawings, caption=caption)]


def _saved(facts: Facts, found: Record) -> Table:
    columns = (
        facts.test_set_column,
        Column("pair", "proven pair", "head"),
        Column("questions", "after questions", "number"),
        Column("usd", "$ saved", "number"),
    )
    rows = [
        {
            "test_set": pair["dataset"],
            "pair": f"{pair['strategy']}, {facts.pair(pair)}",
            "questions": count(each["questions"]),
            "usd": Entry(dollars(each["usd"]), dollars_between(each["low"], each["high"])),
        }
        for pair in found["pairs"]
        for each in pair["saved"]
    ]
    return Table(columns, tuple(rows), "Saved, less the bill")


def _questions(pair: Record) -> Entry:
    """Return when a pair has paid back, and the interval: "never" where its saving may be none."""
    if pair["questions"] is None:
        return Entry("never")
    low, high = pair["questions_low"], pair["questions_high"]
    most = "never" if high is None else count(high)
    return Entry(f"{count(pair['questions'])} questions", f"{count(low)} to {most}" if low != high else "")


def _none_proven(found: Record) -> str:
    return (
        f"Of {found['configurations']} distilled configurations none is proven to be no worse and cheaper, so none is "
        "known to pay back."
        if found["configurations"] > 1
        else "The distilled configuration is not proven to be no worse and cheaper, so it is not known to pay back."
    )
