"""Cells: every pair that was measured, with its outcome, tokens, dollars and latency."""

from __future__ import annotations

from fractionate.report.amounts import PER, count, dollars, level, percent, seconds, shares_between
from fractionate.report.charts import bar
from fractionate.report.facts import Facts, Record, metric_label
from fractionate.report.section import HTML, MARKDOWN, PAGES, TERMINAL, Column, Entry, Row, Section, Table

_LEAD = (
    "Every pair that was measured. An output that no answer could be read from counts as wrong: it is unread. The "
    "lenient reading takes what such an output may have meant (its last number, name or choice): it guesses, and "
    "stands beside the value to tell form from reasoning. It is blank where a data set reads answers in its own way."
)
_BOTH_WAYS = "input and output together"


def section(facts: Facts) -> Section | None:
    """Return the cells, numbered as the charts number them."""
    if not facts.cells:
        return None
    confidences = dict.fromkeys(level(cell["confidence"]) for cell in facts.cells)
    columns = (
        Column("number", "#", "number", HTML),
        facts.test_set_column,
        Column("strategy", "strategy"),
        Column("decomposer", "decomposer", "head"),
        Column("solver", "solver", "head"),
        Column("metric", "metric", formats=MARKDOWN),
        Column("value", f"value ({', '.join(confidences)})", "number"),
        Column("lenient_value", "read leniently", "number", PAGES),
        Column("lenient", "lenient", "number", TERMINAL),
        Column("n", "n", "number"),
        Column("unextracted", "unread", "number"),
        Column("cut_off", "cut off", "number"),
        Column("decomposer_tokens", "decomposer tokens", "number", HTML, hint=_BOTH_WAYS),
        Column("solver_tokens", "solver tokens", "number", HTML, hint=_BOTH_WAYS),
        Column("decomposer_usage", "decomposer tokens (in / cached / out)", "number", MARKDOWN),
        Column("solver_usage", "solver tokens (in / cached / out)", "number", MARKDOWN),
        Column("tokens_each", "tokens per question", "number", TERMINAL, short="tokens/question"),
        Column("usd_decomposer", "$ decomposer", "number", PAGES),
        Column("usd_solver", "$ solver", "number", PAGES),
        Column("usd_total", "$ total", "number", PAGES),
        Column("usd_each", f"$ per {PER:,} questions", "number", TERMINAL),
        Column("usd_per_correct", "$ per correct answer", "number", PAGES),
        Column("p50", "latency p50", "number", PAGES, hint="of one call, or of a whole batch on this machine"),
        Column("p95", "latency p95", "number", PAGES, hint="of one call, or of a whole batch on this machine"),
    )
    table = Table(columns, tuple(_row(facts, cell) for cell in facts.cells), sortable=True)
    return Section("cells", "Cells", (table,), _LEAD, PAGES | TERMINAL)


def _row(facts: Facts, cell: Record) -> Row:
    n, usd, number = cell["n"], cell["usd"], facts.numbers[cell["name"]]
    each = usd["total"] / n * PER if n and usd["total"] is not None else None
    return {
        "number": Entry(str(number), sort=number),
        "test_set": cell["test_set"],
        "strategy": cell["strategy"],
        "decomposer": Entry(facts.name(cell["decomposer"]), hint=cell["decomposer_model"] or cell["decomposer"]),
        "solver": Entry(facts.name(cell["solver"]), hint=cell["solver_model"] or cell["solver"]),
        "metric": metric_label(cell["metric"]),
        "value": _value(cell),
        "n": Entry(count(n) + (f" × {cell['repeats']}" if cell.get("repeats", 1) > 1 else ""), sort=n),
        "lenient_value": _lenient(cell),
        "lenient": _lenient(cell).text,
        "unextracted": _share_of(cell, "unextracted"),
        "cut_off": _share_of(cell, "cut_off"),
        "decomposer_tokens": _tokens(cell["usage"]["decomposer"]),
        "solver_tokens": _tokens(cell["usage"]["solver"]),
        "decomposer_usage": _usage(cell["usage"]["decomposer"]),
        "solver_usage": _usage(cell["usage"]["solver"]),
        "tokens_each": count(round(sum(map(_sum, cell["usage"].values())) / n)) if n else "–",
        "usd_decomposer": _dollars(usd["decomposer"]),
        "usd_solver": _dollars(usd["solver"]),
        "usd_total": _dollars(usd["total"]),
        "usd_each": dollars(each) if n else "–",
        "usd_per_correct": _per_correct(cell),
        "p50": _seconds(cell["latency_p50_s"], cell["latency_of"]),
        "p95": _seconds(cell["latency_p95_s"], cell["latency_of"]),
    }


def _value(cell: Record) -> Entry:
    if not cell["n"]:
        return Entry("–", sort="")
    value, low, high = cell["value"], cell["ci_low"], cell["ci_high"]
    return Entry(percent(value), shares_between(low, high), value, drawing=bar(low, value, high), strong=True)


def _lenient(cell: Record) -> Entry:
    value = cell.get("lenient_value")  # results.json of an earlier version has none
    if value is None:
        return Entry("–", sort="")
    return Entry(percent(value), shares_between(cell["lenient_ci_low"], cell["lenient_ci_high"]), value)


def _share_of(cell: Record, key: str) -> Entry:
    held = cell.get(f"{key}_share", 0)
    return Entry(count(cell[key]), percent(held) if held else "", sort=held)


def _tokens(usage: Record) -> Entry:
    calls = (
        f"{count(usage['calls'])} calls; {count(usage['input_tokens'])} in ({count(usage['cached_input_tokens'])} "
        f"cached), {count(usage['output_tokens'])} out"
    )
    return Entry(count(_sum(usage)), sort=_sum(usage), hint=calls)


def _usage(usage: Record) -> str:
    return " / ".join(count(usage[key]) for key in ("input_tokens", "cached_input_tokens", "output_tokens"))


def _sum(usage: Record) -> int:
    return int(usage["input_tokens"]) + int(usage["output_tokens"])


def _dollars(value: float | None) -> Entry:
    return Entry(dollars(value), sort="" if value is None else value)


def _per_correct(cell: Record) -> Entry:
    value = cell["usd_per_correct"]
    if value is None and cell["usd"]["total"] is not None:
        return Entry("none correct", sort="")
    return _dollars(value)


def _seconds(value: float | None, of: str) -> Entry:
    return Entry(seconds(value), "per batch" if of == "batch" else "", sort="" if value is None else value)
