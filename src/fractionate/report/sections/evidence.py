"""Evidence: each student pair, and decomposing at all, against the undistilled pair, drawn on one scale."""

from __future__ import annotations

from fractionate.report.amounts import PER, count, dollars, dollars_between, level, percent, points, points_between
from fractionate.report.charts import Forest
from fractionate.report.facts import Facts, Record
from fractionate.report.section import HTML, PAGES, TEXT, Column, Entry, Row, Section, State, Table

_ANSWERS: dict[str, tuple[str, State]] = {
    "yes": ("✓ yes", "yes"),
    "no": ("✗ no", "no"),
    "undecided": ("? open", "open"),
    "unknown": ("? unknown", "open"),
}


def section(facts: Facts) -> Section | None:
    """Return the rows that the verdict rests on: findings first, then what decomposing itself does."""
    verdict = facts.results["verdict"]
    if not verdict["evidence"]:
        return None
    benefits = [row for row in verdict["evidence"] if "helps" in row]
    findings = [row for row in verdict["evidence"] if "helps" not in row]
    margin = findings[0]["margin"] if findings else 0.0
    forest = Forest([row[key] for row in verdict["evidence"] for key in ("ci_low", "ci_high")], (0.0, -margin))
    columns = (
        facts.test_set_column,
        Column("change", "what changes", "head"),
        Column("pair", "decomposer → solver", formats=TEXT),
        Column("plot", "difference in points, margin shaded", "plot", HTML, ticks=forest.axis()),
        Column("difference", "points", "number"),
        Column("usd", f"$ per {PER:,} questions", "number", short=f"$ per {PER:,}"),
        Column("non_inferior", "non-inferior", "answer"),
        Column("cheaper", "cheaper", "answer"),
        Column("worth", "worth it", "answer"),
    )
    rows = [_finding(row, facts, forest) for row in findings] + [_benefit(row, facts, forest) for row in benefits]
    lead = (
        "Each student pair against the undistilled pair, over the same questions. Its whole interval must stay above "
        f"−{verdict['rule']['margin_points']:g} points, the margin, and it must cost less. "
        f"Confidence {level(verdict['rule']['confidence'])}, shared among the candidates for a part."
    )
    return Section("evidence", "Evidence", (Table(columns, tuple(rows), look="cards"),), lead, PAGES)


def _finding(row: Record, facts: Facts, forest: Forest) -> Row:
    changes = {
        "decomposer": f"{facts.name(row['decomposer'])} decomposes",
        "solver": f"{facts.name(row['solver'])} solves",
        "pair": f"{facts.name(row['decomposer'])} decomposes, {facts.name(row['solver'])} solves",
    }
    decides = f"about {count(row['n_to_decide'])} questions decide it" if row["n_to_decide"] else ""
    return {
        "test_set": row["dataset"],
        "change": Entry(
            changes.get(row["part"], str(row["part"])), _values(row), hint=f"{row['decomposer']} → {row['solver']}"
        ),
        "pair": facts.pair(row),
        "plot": _drawn(row, forest, row["margin"]),
        "difference": _difference(row),
        "usd": Entry(
            dollars(_per(row["usd_difference"])), dollars_between(_per(row["usd_ci_low"]), _per(row["usd_ci_high"]))
        ),
        "non_inferior": _answer(row["non_inferior"]),
        "cheaper": _answer(row["cheaper"]),
        "worth": _answer(row["worth"], decides),
    }


def _benefit(row: Record, facts: Facts, forest: Forest) -> Row:
    told: dict[str, tuple[str, State]] = {"yes": ("✓ helps", "yes"), "no": ("✗ hurts", "no")}
    text, state = told.get(row["helps"], ("? not shown to help", "open"))
    return {
        "test_set": row["dataset"],
        "change": Entry(
            f"Decomposing at all, against {facts.strategy(row['baseline'])}",
            _values(row),
            hint=f"{row['a']} against {row['b']}",
        ),
        "pair": facts.pair(facts.by_name[row["a"]]) if row["a"] in facts.by_name else "",
        "plot": _drawn(row, forest, None),
        "difference": _difference(row),
        "usd": "–",
        "non_inferior": Entry(text, state=state, span=3),
    }


def _values(row: Record) -> str:
    return f"{percent(row['value'])} against {percent(row['reference_value'])}, n = {count(row['n'])}"


def _difference(row: Record) -> Entry:
    return Entry(
        points(row["difference"]), f"{points_between(row['ci_low'], row['ci_high'])}, {level(row['confidence'])}"
    )


def _drawn(row: Record, forest: Forest, margin: float | None) -> Entry:
    said = f"{points(row['difference'])} points, {points_between(row['ci_low'], row['ci_high'])}"
    return Entry(drawing=forest.row(row["difference"], row["ci_low"], row["ci_high"], said, margin))


def _answer(answer: str, detail: str = "") -> Entry:
    text, state = _ANSWERS[answer]
    return Entry(text, detail, state=state)


def _per(usd: float | None) -> float | None:
    return None if usd is None else usd * PER
