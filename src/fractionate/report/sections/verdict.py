"""The evidence for the verdict: each distilled configuration against the undistilled pair, and its controls."""

from __future__ import annotations

from collections.abc import Iterator

from fractionate.report.amounts import PER, count, dollars, dollars_between, level, percent, points, points_between
from fractionate.report.charts import Forest
from fractionate.report.facts import Facts, Record
from fractionate.report.section import HTML, PAGES, TEXT, Column, Entry, Row, Section, State, Table, table_section

_ANSWERS: dict[str, tuple[str, State]] = {
    "yes": ("✓ yes", "yes"),
    "no": ("✗ no", "no"),
    "undecided": ("? open", "open"),
    "unknown": ("? unknown", "open"),
}


def evidence(facts: Facts) -> Section | None:
    """Return the rows behind the verdict: the configurations first, then the effect of decomposing itself."""
    verdict = facts.results["verdict"]
    findings = [row for row in verdict["evidence"] if row["part"] != "decomposing"]
    benefits = [row for row in verdict["evidence"] if row["part"] == "decomposing" and "difference" in row]
    if not findings and not benefits:
        return None
    margin = findings[0]["margin"] if findings else 0.0
    forest = Forest([row[key] for row in (*findings, *benefits) for key in ("ci_low", "ci_high")], (0.0, -margin))
    by_value = verdict["rule"]["usd_per_correct"] is not None
    columns = (
        facts.test_set_column,
        Column("change", "what is distilled", "head"),
        Column("pair", "decomposer → solver", formats=TEXT),
        Column("plot", "difference in percentage points, margin shaded", "plot", HTML, ticks=forest.axis()),
        Column("difference", "difference (pp)", "number", short="pp"),
        Column("usd", f"$ per {PER:,} questions", "number", short=f"$ per {PER:,}"),
        Column("outcome", "outcome", "answer"),
        Column("cheaper", "cheaper", "answer"),
        *((Column("net", f"net $ per {PER:,}", "answer"),) if by_value else ()),
        Column("controls", "controls", "answer"),
        Column("worth", "passes", "answer"),
    )
    rows = [_finding(row, facts, forest) for row in findings] + [_benefit(row, facts, forest) for row in benefits]
    lead = (
        "Each distilled configuration against the undistilled pair, on the same questions. A configuration passes if "
        f"its whole interval lies above the margin of −{verdict['rule']['margin_points']:g} percentage points, if it "
        f"costs less, and if its controls pass. Confidence {level(verdict['rule']['confidence'])}, shared among "
        "interim analyses and configurations."
    )
    lead = " ".join([lead, *_spent(verdict), *(limit["text"] for limit in verdict.get("limits", []))])
    return Section("evidence", "Evidence", (Table(columns, tuple(rows), look="cards"),), lead, PAGES)


def _spent(verdict: Record) -> Iterator[str]:
    """Yield how much of each test set's error the looks so far have spent."""
    spent = verdict["rule"].get("error_spent", {})
    if spent:
        shares = ", ".join(f"{100 * share:.0f} % of the error on {name}" for name, share in spent.items())
        yield f"The looks so far have spent {shares}; another look is judged by what is left."


def _finding(row: Record, facts: Facts, forest: Forest) -> Row:
    changes = {
        "decomposer": f"{facts.name(row['decomposer'])} decomposes",
        "solver": f"{facts.name(row['solver'])} solves",
        "both": f"{facts.name(row['decomposer'])} decomposes, {facts.name(row['solver'])} solves",
    }
    return {
        "test_set": row["dataset"],
        "change": Entry(changes[row["part"]], _values(row), hint=f"{row['decomposer']} → {row['solver']}"),
        "pair": facts.pair(row),
        "plot": _drawn(row, forest, row["margin"]),
        "difference": _difference(row),
        "usd": Entry(
            dollars(_per(row["usd_difference"])),
            dollars_between(_per(row["usd_ci_low"]), _per(row["usd_ci_high"])),
        ),
        "outcome": _outcome(row),
        "cheaper": answer(row["cheaper"]),
        **({} if row["net_usd"] is None else {"net": answer(row["net"], dollars(_per(row["net_usd"])))}),
        "controls": _controls_passed(row["controls"]),
        "worth": answer(row["worth"]),
    }


def _outcome(row: Record) -> Entry:
    """Return the result for the outcome: better, no worse within the margin, worse, or open."""
    if row["superior"] == "yes":
        return Entry("✓ better", state="yes")
    words: dict[str, tuple[str, State]] = {"yes": ("✓ no worse", "yes"), "no": ("✗ worse", "no")}
    text, state = words.get(row["non_inferior"], ("? open", "open"))
    needed = [row[key] for key in ("n_to_decide_low", "n_to_decide_high")]
    least, most = (count(n) if n is not None else "any number" for n in needed)
    decides = f"{least} to {most} questions decide it" if state == "open" and needed[0] is not None else ""
    return Entry(text, decides, state=state)


def _controls_passed(controls: list[Record]) -> Entry:
    answers = [control["passed"] for control in controls]
    worst = next((one for one in ("no", "unknown", "undecided") if one in answers), "yes")
    text = {"no": "✗ failed", "unknown": "? not measured", "undecided": "? open"}.get(worst, "✓ passed")
    named = dict.fromkeys(control["claim"] for control in controls if control["passed"] == worst != "yes")
    return Entry(text, ", ".join(named), state=_ANSWERS[worst][1])


def _benefit(row: Record, facts: Facts, forest: Forest) -> Row:
    hurts = row["ci_high"] < 0
    words: dict[str, tuple[str, State]] = {"yes": ("✓ helps", "yes")}
    text, state = words.get(row["passed"], ("✗ hurts", "no") if hurts else ("? not shown to help", "open"))
    baseline = facts.by_name.get(row["b"])
    return {
        "test_set": row["dataset"],
        "change": Entry(
            f"Decomposing at all, against {facts.strategy(baseline['strategy']) if baseline else row['b']}",
            _values(row),
            hint=f"{row['a']} against {row['b']}",
        ),
        "pair": facts.pair(facts.by_name[row["a"]]) if row["a"] in facts.by_name else "",
        "plot": _drawn(row, forest, None),
        "difference": _difference(row),
        "usd": "–",
        "outcome": Entry(text, state=state, span=2),
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


def answer(shown: str, detail: str = "") -> Entry:
    """Return the answer to a claim as an entry in the colour of that answer."""
    text, state = _ANSWERS[shown]
    return Entry(text, detail, state=state)


def _per(usd: float | None) -> float | None:
    return None if usd is None else usd * PER


_CLAIMS = {
    "decomposing": "decomposing beats one stage",
    "decomposer": "training the decomposer beats the untrained model",
    "solver": "training the solver beats the untrained model",
}


def controls(facts: Facts) -> Section | None:
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
        Column("difference", "difference (pp)", "number", short="pp"),
        Column("values", "values", "number"),
        *(
            (Column("form", "formatting gain", "number"), Column("substance", "content gain", "number"))
            if split
            else ()
        ),
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
            seen.setdefault(key, _control(finding, control, facts))
    lead = (
        "Being no worse than the undistilled pair proves nothing if that pair is no better than answering in one "
        "stage, or if the untrained student does as well. A control that was not measured counts as not passed."
    )
    if split:
        lead += (
            " The part of a training gain that the lenient reading shows too is content gain; the rest is formatting "
            "gain: answers stated so that they can be read."
        )
    return table_section("controls", "Controls", columns, seen.values(), lead, PAGES)


def _control(finding: Record, control: Record, facts: Facts) -> Row:
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
