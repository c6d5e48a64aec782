"""Break-even: the one-off bill, after how many questions each proven pair has paid it back, and what it saves."""

from __future__ import annotations

from fractionate.report.amounts import PER, UNKNOWN, count, dollars, dollars_between
from fractionate.report.facts import Facts, Record
from fractionate.report.section import PAGES, Column, Entry, Lines, Row, Section, Table

_LEAD = (
    "The bill is paid once and is the whole run's: what did not pass had to be trained and measured too. A pair is "
    "proven where it is no worse within the margin and cheaper; intervals are those of its saving, at the verdict's "
    "confidence. Less than nothing saved means that the bill is not paid back by then."
)


def section(facts: Facts) -> Section | None:
    """Return the bill, and a row per proven pair; nothing where nothing was distilled."""
    found = facts.results.get("break_even")
    if not found:
        return None
    body = (_bill(found), _pairs(facts, found)) if found["pairs"] else (_bill(found), Lines((_none_proven(found),)))
    return Section("break-even", "Break-even", body, _LEAD, PAGES)


def _bill(found: Record) -> Table:
    rows = [
        {"item": row["item"], "usd": Entry(dollars(row["usd"])), "unknown": row["unknown"]} for row in found["bill"]
    ]
    rows.append({"item": "all", "usd": Entry(dollars(found["usd"]), strong=True), "unknown": ""})
    why = (Column("unknown", "why it is unknown"),) if any(row["unknown"] for row in found["bill"]) else ()
    return Table((Column("item", "paid once", "head"), Column("usd", "$", "number"), *why), tuple(rows), "The bill")


def _pairs(facts: Facts, found: Record) -> Table:
    volumes = [each["questions"] for each in found["pairs"][0]["saved"]]
    columns = (
        facts.test_set_column,
        Column("pair", "proven pair", "head"),
        Column("saving", f"$ saved per {PER:,} questions", "number", short=f"$ per {PER:,}"),
        Column("questions", "paid back after", "number"),
        *(Column(f"at {volume}", f"$ saved after {count(volume)}", "number") for volume in volumes),
    )
    return Table(columns, tuple(_row(facts, pair, found["usd"]) for pair in found["pairs"]), "Paid back", look="cards")


def _row(facts: Facts, pair: Record, bill: float | None) -> Row:
    return {
        "test_set": pair["dataset"],
        "pair": Entry(f"{pair['strategy']}, {facts.pair(pair)}", hint=pair["a"]),
        "saving": Entry(dollars(pair["saving_per_1000"]), dollars_between(pair["saving_low"], pair["saving_high"])),
        "questions": _questions(pair) if bill is not None else Entry(UNKNOWN, "the bill is unknown"),
        **{
            f"at {each['questions']}": Entry(dollars(each["usd"]), dollars_between(each["low"], each["high"]))
            for each in pair["saved"]
        },
    }


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
