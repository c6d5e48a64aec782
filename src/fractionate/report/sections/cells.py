"""The measured cells: as a chart of outcome and cost, as a decomposer × solver matrix, and one by one."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fractionate.report.amounts import PER, count, dollars, level, percent, seconds, shares_between
from fractionate.report.charts import Point, bar, legend_mark, scatter
from fractionate.report.facts import Facts, Record, metric_label
from fractionate.report.section import HTML, MARKDOWN, PAGES, TERMINAL, Column, Entry, Figure, Row, Section, Table

_KINDS = {
    "none": "no decomposer",
    "reference": "teacher or gold decomposes",
    "student": "student or other model decomposes",
}
_OUTCOME_LEAD = (
    "Every pair by what it costs and how often it is right: higher is better, further left is cheaper. Bars are "
    "intervals, numbers the rows of the cells table. No pair is both better and cheaper than one on the dotted line."
)


def outcome(facts: Facts) -> Section | None:
    """Return a chart per test set; its numbers are those of the cells table."""
    figures = tuple(_figure(facts, name, key) for key, name in enumerate(facts.test_sets))
    return Section("outcome", "Outcome and cost", figures, _OUTCOME_LEAD, HTML) if figures else None


def _figure(facts: Facts, test_set: str, key: int) -> Figure:
    cells = [cell for cell in facts.cells if cell["test_set"] == test_set and cell["n"]]
    money = sum(1 for cell in cells if cell["usd"]["total"]) >= 2
    drawn = [cell for cell in cells if not money or cell["usd"]["total"] is not None]
    marks = [_mark(facts, cell, money) for cell in drawn]
    axis = f"dollars per {PER:,} questions" if money else "tokens per question"
    missing = ", ".join(str(facts.numbers[cell["name"]]) for cell in cells if cell not in drawn)
    metric = metric_label(cells[0]["metric"]) if cells else "nothing was measured"
    caption = [f"Outcome: {metric} on {test_set}."]
    caption += [] if money else ["Fewer than two cells cost known dollars, so the chart shows tokens instead."]
    caption += [f"Not drawn, cost unknown: {missing}."] if missing else []
    return Figure(
        test_set if len(facts.test_sets) > 1 else "",
        scatter(marks, axis, money, 860, 430, f"wide{key}") if marks else None,
        scatter(marks, axis, money, 380, 400, f"narrow{key}") if marks else None,
        tuple(_legend(facts, drawn)),
        " ".join(caption),
    )


def _mark(facts: Facts, cell: Record, money: bool) -> Point:
    number, total = facts.numbers[cell["name"]], cell["usd"]["total"]
    return Point(
        number,
        f"{number}. {facts.label(cell)}: {percent(cell['value'])}, {dollars(total)} in all",
        total / cell["n"] * PER if money else _tokens_of(cell) / cell["n"],
        cell["value"],
        cell["ci_low"],
        cell["ci_high"],
        cell["decomposer_kind"],
        cell["strategy"],
        cell["student_solver"],
        cell["name"] in recommended_cells(facts),
    )


def recommended_cells(facts: Facts) -> set[str]:
    """Return the names of the cells that the verdict recommends, on each test set."""
    chosen = facts.results["verdict"].get("recommended")
    if not chosen:
        return set()
    key = tuple(chosen[name] for name in ("strategy", "decomposer", "solver"))
    return {cell["name"] for cell in facts.cells if (cell["strategy"], cell["decomposer"], cell["solver"]) == key}


def _tokens_of(cell: Record) -> int:
    return sum(int(usage["input_tokens"]) + int(usage["output_tokens"]) for usage in cell["usage"].values())


def _legend(facts: Facts, cells: Sequence[Record]) -> list[tuple[Markup, str]]:
    drawn = {cell["decomposer_kind"] for cell in cells}
    entries = [(legend_mark(kind=kind), text) for kind, text in _KINDS.items() if kind in drawn]
    if any(cell["student_solver"] for cell in cells):
        entries.append((legend_mark(hollow=True), "hollow: a student solves"))
    strategies = dict.fromkeys(cell["strategy"] for cell in cells)
    return [*entries, *((legend_mark(strategy=name), facts.strategy(name)) for name in strategies)]


_MATRIX_LEAD = (
    "A stronger colour is a better value, on one scale per test set; ▲ marks the best decomposer for each solver."
)
_MISSING = Entry(detail="not measured")


def matrix(facts: Facts) -> Section | None:
    """Return the matrices, with the single-stage cells as their first rows."""
    tables = tuple(table for test_set in facts.test_sets for table in _matrix_tables(facts, test_set))
    return Section("matrix", "Decomposer × solver", tables, _MATRIX_LEAD, HTML, beside=True) if tables else None


def _matrix_tables(facts: Facts, test_set: str) -> list[Table]:
    cells = [cell for cell in facts.cells if cell["test_set"] == test_set and cell["n"]]
    single = [cell for cell in cells if cell["stages"] == "single"]
    strategies = list(dict.fromkeys(cell["strategy"] for cell in cells if cell["stages"] != "single"))
    solvers = list(dict.fromkeys(cell["solver"] for cell in cells))
    columns = (
        Column("", "decomposer ↓ solver →", "head"),
        *(Column(solver, facts.name(solver), hint=solver) for solver in solvers),
    )
    return [
        Table(
            columns,
            tuple(_matrix_rows(facts, [*single, *(cell for cell in cells if cell["strategy"] == strategy)], cells)),
            _title(facts, test_set, strategy, cells[0]["metric"]),
            look="heat",
        )
        for strategy in (strategies or [""])
        if cells
    ]


def _title(facts: Facts, test_set: str, strategy: str, metric: str) -> str:
    text = f"{facts.strategy(strategy) if strategy else 'single stage'}, {metric_label(metric)}"
    return f"{test_set}: {text}" if len(facts.test_sets) > 1 else text


def _matrix_rows(facts: Facts, cells: Sequence[Record], of_test_set: Sequence[Record]) -> list[dict[str, Entry]]:
    """Return a row per decomposer or single-stage strategy; the scale of colours is the whole test set's."""
    values = [cell["value"] for cell in of_test_set]
    low, spread = min(values), (max(values) - min(values)) or 1.0
    solvers = {cell["solver"] for cell in cells}
    best = {solver: max(cell["value"] for cell in cells if cell["solver"] == solver) for solver in solvers}
    missing = dict.fromkeys((cell["solver"] for cell in of_test_set), _MISSING)
    rows: dict[tuple[str, str], dict[str, Entry]] = {}
    for cell in cells:
        single = cell["stages"] == "single"
        head = Entry(detail=cell["strategy_label"]) if single else Entry(facts.name(cell["decomposer"]))
        row = rows.setdefault((cell["strategy"] if single else "", cell["decomposer"]), {**missing, "": head})
        row[cell["solver"]] = Entry(
            percent(cell["value"]) + (" ▲" if cell["value"] == best[cell["solver"]] else ""),
            shares_between(cell["ci_low"], cell["ci_high"]),
            strength=(cell["value"] - low) / spread,
            strong=True,
        )
    return list(rows.values())


_CELLS_LEAD = (
    "Every measured pair. An output without a readable answer is unparsed and counts as wrong. The lenient reading "
    "guesses what such an output means: its last number, name or choice. Comparing both values tells formatting from "
    "reasoning. The lenient value is blank where a data set has a reader of its own."
)
_CELLS_BOTH_WAYS = "input and output together"


def cells(facts: Facts) -> Section | None:
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
        Column("unextracted", "unparsed", "number"),
        Column("cut_off", "cut off", "number"),
        Column("decomposer_tokens", "decomposer tokens", "number", HTML, hint=_CELLS_BOTH_WAYS),
        Column("solver_tokens", "solver tokens", "number", HTML, hint=_CELLS_BOTH_WAYS),
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
    table = Table(columns, tuple(_cell_row(facts, cell) for cell in facts.cells), sortable=True)
    return Section("cells", "Cells", (table,), _CELLS_LEAD, PAGES | TERMINAL)


_TOOLS_LEAD = "What solvers and decomposers looked up, per question. Dollars of tools are part of the cells' dollars."


def tools(facts: Facts) -> Section | None:
    """Return what each cell used of its tools; None where no cell has any."""
    used = [(cell, one) for cell in facts.cells for one in cell.get("tools", ())]
    if not used:
        return None
    columns = (
        Column("number", "#", "number", HTML),
        facts.test_set_column,
        Column("strategy", "strategy"),
        Column("decomposer", "decomposer", "head"),
        Column("solver", "solver", "head"),
        Column("tool", "tool", "code"),
        Column("calls", "calls per question", "number"),
        Column("errors", "errors", "number"),
        Column("tokens", "tokens per question", "number", PAGES),
        Column("seconds", "seconds per question", "number", PAGES),
        Column("usd", f"$ per {PER:,} questions", "number"),
    )
    return Section("tools", "Tools", (Table(columns, tuple(_tool_row(facts, *one) for one in used)),), _TOOLS_LEAD)


def _tool_row(facts: Facts, cell: Record, used: Record) -> Row:
    each, number = used["per_question"], facts.numbers[cell["name"]]
    role = " (decomposer)" if used["role"] == "decomposer" else ""
    return {
        "number": Entry(str(number), sort=number),
        "test_set": cell["test_set"],
        "strategy": cell["strategy"],
        "decomposer": facts.name(cell["decomposer"]),
        "solver": facts.name(cell["solver"]),
        "tool": used["tool"] + role,
        "calls": f"{each['calls']:.2f}" if cell["n"] else "–",
        "errors": count(round(used["errors"])),
        "tokens": f"{each['tokens']:.1f}" if cell["n"] else "–",
        "seconds": seconds(each["seconds"]),
        "usd": dollars(None if each["usd"] is None else PER * each["usd"]),
    }


def _cell_row(facts: Facts, cell: Record) -> Row:
    n, usd, number = cell["n"], cell["usd"], facts.numbers[cell["name"]]
    each = usd["total"] / n * PER if n and usd["total"] is not None else None
    return {
        "number": Entry(str(number), sort=number),
        "test_set": cell["test_set"],
        "strategy": cell["strategy"],
        "decomposer": Entry(facts.name(cell["decomposer"]), hint=cell["decomposer_model"] or cell["decomposer"]),
        "solver": Entry(facts.name(cell["solver"]), hint=cell["solver_model"] or cell["solver"]),
        "metric": metric_label(cell["metric"]),
        "value": _cell_value(cell),
        "n": Entry(count(n) + (f" × {cell['repeats']}" if cell.get("repeats", 1) > 1 else ""), sort=n),
        "lenient_value": _cell_lenient(cell),
        "lenient": _cell_lenient(cell).text,
        "unextracted": _cell_share_of(cell, "unextracted"),
        "cut_off": _cell_share_of(cell, "cut_off"),
        "decomposer_tokens": _cell_tokens(cell["usage"]["decomposer"]),
        "solver_tokens": _cell_tokens(cell["usage"]["solver"]),
        "decomposer_usage": _cell_usage(cell["usage"]["decomposer"]),
        "solver_usage": _cell_usage(cell["usage"]["solver"]),
        "tokens_each": count(round(sum(map(_cell_sum, cell["usage"].values())) / n)) if n else "–",
        "usd_decomposer": _cell_dollars(usd["decomposer"]),
        "usd_solver": _cell_dollars(usd["solver"]),
        "usd_total": _cell_dollars(usd["total"]),
        "usd_each": dollars(each) if n else "–",
        "usd_per_correct": _cell_per_correct(cell),
        "p50": _cell_seconds(cell["latency_p50_s"], cell["latency_of"]),
        "p95": _cell_seconds(cell["latency_p95_s"], cell["latency_of"]),
    }


def _cell_value(cell: Record) -> Entry:
    if not cell["n"]:
        return Entry("–", sort="")
    value, low, high = cell["value"], cell["ci_low"], cell["ci_high"]
    return Entry(percent(value), shares_between(low, high), value, drawing=bar(low, value, high), strong=True)


def _cell_lenient(cell: Record) -> Entry:
    value = cell.get("lenient_value")  # results.json of an earlier version has none
    if value is None:
        return Entry("–", sort="")
    return Entry(percent(value), shares_between(cell["lenient_ci_low"], cell["lenient_ci_high"]), value)


def _cell_share_of(cell: Record, key: str) -> Entry:
    held = cell.get(f"{key}_share", 0)
    return Entry(count(cell[key]), percent(held) if held else "", sort=held)


def _cell_tokens(usage: Record) -> Entry:
    calls = (
        f"{count(usage['calls'])} calls; {count(usage['input_tokens'])} in ({count(usage['cached_input_tokens'])} "
        f"cached), {count(usage['output_tokens'])} out"
    )
    return Entry(count(_cell_sum(usage)), sort=_cell_sum(usage), hint=calls)


def _cell_usage(usage: Record) -> str:
    return " / ".join(count(usage[key]) for key in ("input_tokens", "cached_input_tokens", "output_tokens"))


def _cell_sum(usage: Record) -> int:
    return int(usage["input_tokens"]) + int(usage["output_tokens"])


def _cell_dollars(value: float | None) -> Entry:
    return Entry(dollars(value), sort="" if value is None else value)


def _cell_per_correct(cell: Record) -> Entry:
    value = cell["usd_per_correct"]
    if value is None and cell["usd"]["total"] is not None:
        return Entry("none correct", sort="")
    return _cell_dollars(value)


def _cell_seconds(value: float | None, of: str) -> Entry:
    return Entry(seconds(value), "per batch" if of == "batch" else "", sort="" if value is None else value)
