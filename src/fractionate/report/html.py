"""report.html: one self-contained page, made from results.json alone. Nothing in it is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.files import write_text
from fractionate.report.charts import Forest, Point, scatter, shape
from fractionate.report.formatting import (
    HEADLINES,
    HOW_TO_READ,
    METRICS,
    RUNS,
    STRATEGIES,
    UNKNOWN,
    count,
    dollars,
    level,
    names_of,
    p_value,
    pair_label,
    per_correct,
    percent,
    points,
    run_rows,
    seconds,
)
from fractionate.report.generalisation import LEAD, generalisation_rows

Row = Mapping[str, Any]
_OPEN_COMPARISONS = 12
"""Up to this many comparisons are shown at once, more are folded away."""
_ANSWERS = {"yes": "✓ yes", "no": "✗ no", "undecided": "? open", "unknown": "? unknown"}


def write_html(results: Mapping[str, Any], path: Path, examples: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write report.html; `examples` come from `pick_examples`. Raises FractionateError where that fails."""
    write_text(html(results, examples), path)


def html(results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page as text. Everything that came from data, models or configs is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fractionate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(_page(results, examples)) + "\n"


def _page(results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = names_of(results)
    verdict = results["verdict"]
    numbers = {cell["name"]: number for number, cell in enumerate(results["cells"], 1)}
    sets = list(dict.fromkeys(cell["test_set"] for cell in results["cells"]))
    comparisons = _comparisons(results, names)
    return {
        "name": str(results["run"].get("name") or "report"),
        "distill": verdict["distill"],
        "headline": HEADLINES[verdict["distill"]],
        "clauses": _clauses(verdict["because"]),
        "margin": verdict["rule"]["margin_points"],
        "confidence": level(verdict["rule"]["confidence"]),
        "evidence": _evidence(verdict["evidence"], names),
        "scatters": [_scatter(results, name, names, numbers, key) for key, name in enumerate(sets)],
        "matrices": [matrix for name in sets for matrix in _matrices(results, name, names)],
        "matrix_rem": 14 + 7 * len({cell["solver"] for cell in results["cells"]}),
        "cells": [_cell(cell, names, numbers) for cell in results["cells"]],
        "several_sets": len(sets) > 1,
        "comparisons": comparisons,
        "comparisons_open": len(comparisons["rows"]) <= _OPEN_COMPARISONS,
        "runs": run_rows(results, names),
        "runs_lead": RUNS,
        "generalisation": generalisation_rows(results, names),
        "generalisation_lead": LEAD,
        "agreement": [
            {
                **row,
                "decomposer": names.get(row["decomposer"], row["decomposer"]),
                "exact": percent(row["exact"]),
            }
            for row in results["agreement"]
        ],
        "published": [_published(row, names) for row in results["published"]],
        "examples": list(examples),
        "prices": results["prices"],
        "notes": results["notes"],
        "how_to_read": HOW_TO_READ,
        "run": {key: value for key, value in results["run"].items() if value not in ("", None)},
    }


def _clauses(sentence: str) -> list[str]:
    """Return the sentence cut after its semicolons, so that each claim stands on its own line."""
    parts = sentence.split("; ")
    return [part + ";" for part in parts[:-1]] + parts[-1:]


def _evidence(evidence: Sequence[Row], names: Mapping[str, str]) -> dict[str, Any]:
    findings = [row for row in evidence if row["part"] != "decomposing"]
    benefits = [row for row in evidence if row["part"] == "decomposing"]
    bounds = [row[key] for row in evidence for key in ("ci_low", "ci_high")]
    margin = findings[0]["margin"] if findings else 0.0
    forest = Forest(bounds, (0.0, -margin))
    rows = [_finding(row, names, forest) for row in findings] + [_benefit(row, forest) for row in benefits]
    return {"rows": rows, "axis": forest.axis()}


def _finding(row: Row, names: Mapping[str, str], forest: Forest) -> dict[str, Any]:
    said = f"{points(row['difference'])} points, {points(row['ci_low'])} to {points(row['ci_high'])}"
    return {
        "dataset": row["dataset"],
        "what": {
            "decomposer": f"{names[row['decomposer']]} decomposes",
            "solver": f"{names[row['solver']]} solves",
            "pair": f"{names[row['decomposer']]} decomposes, {names[row['solver']]} solves",
        }[row["part"]],
        "full": f"{row['decomposer']} → {row['solver']}",
        "against": f"{percent(row['value'])} against {percent(row['reference_value'])}, n = {count(row['n'])}",
        "forest": forest.row(row["difference"], row["ci_low"], row["ci_high"], said, row["margin"]),
        "difference": points(row["difference"]),
        "interval": f"{points(row['ci_low'])} to {points(row['ci_high'])}",
        "level": level(row["confidence"]),
        "usd": UNKNOWN if row["usd_difference"] is None else dollars(row["usd_difference"] * 1000),
        "usd_interval": _span(row["usd_ci_low"], row["usd_ci_high"]),
        "non_inferior": row["non_inferior"],
        "cheaper": row["cheaper"],
        "worth": row["worth"],
        "said": {key: _ANSWERS[row[key]] for key in ("non_inferior", "cheaper", "worth")},
        "n_to_decide": count(row["n_to_decide"]) if row["n_to_decide"] else "",
    }


def _benefit(row: Row, forest: Forest) -> dict[str, Any]:
    said = f"{points(row['difference'])} points, {points(row['ci_low'])} to {points(row['ci_high'])}"
    return {
        "dataset": row["dataset"],
        "what": f"Decomposing at all, against {STRATEGIES[row['baseline']]}",
        "full": f"{row['a']} against {row['b']}",
        "against": f"{percent(row['value'])} against {percent(row['reference_value'])}, n = {count(row['n'])}",
        "forest": forest.row(row["difference"], row["ci_low"], row["ci_high"], said),
        "difference": points(row["difference"]),
        "interval": f"{points(row['ci_low'])} to {points(row['ci_high'])}",
        "level": level(row["confidence"]),
        "helps": row["helps"],
        "said": {"helps": {"yes": "✓ helps", "no": "✗ hurts"}.get(row["helps"], "? not shown to help")},
    }


def _span(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    least, most = dollars(low * 1000), dollars(high * 1000)
    return f"{least} to {most}" if least != most else ""


def _scatter(
    results: Mapping[str, Any], test_set: str, names: Mapping[str, str], numbers: Mapping[str, int], key: int
) -> dict[str, Any]:
    cells = [cell for cell in results["cells"] if cell["test_set"] == test_set and cell["n"]]
    money = sum(1 for cell in cells if cell["usd"]["total"]) >= 2
    drawn = [cell for cell in cells if not money or cell["usd"]["total"] is not None]
    marks = [
        Point(
            numbers[cell["name"]],
            f"{numbers[cell['name']]}. {pair_label(cell, names)}: {percent(cell['value'])}, "
            f"{dollars(cell['usd']['total'])} in all",
            cell["usd"]["total"] / cell["n"] * 1000 if money else _tokens(cell) / cell["n"],
            cell["value"],
            cell["ci_low"],
            cell["ci_high"],
            cell["decomposer_kind"],
            cell["strategy"],
            cell["student_solver"],
        )
        for cell in drawn
    ]
    title = "dollars per 1,000 questions" if money else "tokens a question"
    strategies = list(dict.fromkeys(cell["strategy"] for cell in drawn))
    return {
        "test_set": test_set,
        "metric": METRICS[cells[0]["metric"]] if cells else "",
        "money": money,
        "wide": scatter(marks, title, money, 860, 430, f"wide{key}") if marks else "",
        "narrow": scatter(marks, title, money, 380, 400, f"narrow{key}") if marks else "",
        "shapes": [(STRATEGIES[name], shape(name, 9, 9)) for name in strategies],
        "kinds": list(dict.fromkeys(cell["decomposer_kind"] for cell in drawn)),
        "hollow": any(mark.hollow for mark in marks),
        "left_out": [str(numbers[cell["name"]]) for cell in cells if cell not in drawn],
    }


def _tokens(cell: Row) -> int:
    return sum(int(usage["input_tokens"]) + int(usage["output_tokens"]) for usage in cell["usage"].values())


def _matrices(results: Mapping[str, Any], test_set: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a decomposer × solver table a two-stage strategy, with the single-stage cells as its first rows."""
    cells = [cell for cell in results["cells"] if cell["test_set"] == test_set and cell["n"]]
    solvers = list(dict.fromkeys(cell["solver"] for cell in cells))
    single = [cell for cell in cells if cell["stages"] == "single"]
    strategies = list(dict.fromkeys(cell["strategy"] for cell in cells if cell["stages"] != "single"))
    values = [cell["value"] for cell in cells]
    return [
        {
            "test_set": test_set,
            "strategy": STRATEGIES[strategy] if strategy else "single stage",
            "metric": METRICS[cells[0]["metric"]],
            "solvers": [{"name": names[solver], "full": solver} for solver in solvers],
            "rows": _heat_rows(
                [*single, *(cell for cell in cells if cell["strategy"] == strategy)], solvers, names, values
            ),
        }
        for strategy in (strategies or [""])
        if cells
    ]


def _heat_rows(
    cells: Sequence[Row], solvers: Sequence[str], names: Mapping[str, str], values: Sequence[float]
) -> list[dict[str, Any]]:
    low, spread = min(values), (max(values) - min(values)) or 1.0
    best = {
        solver: max((cell["value"] for cell in cells if cell["solver"] == solver), default=-1) for solver in solvers
    }
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        single = cell["stages"] == "single"
        key = (cell["strategy"] if single else "", cell["decomposer"])
        header = STRATEGIES[cell["strategy"]] if single else names[cell["decomposer"]]
        row = rows.setdefault(key, {"name": header, "full": cell["decomposer"], "single": single, "found": {}})
        row["found"][cell["solver"]] = {
            "value": percent(cell["value"]),
            "interval": f"{cell['ci_low'] * 100:.1f} to {cell['ci_high'] * 100:.1f}",
            "heat": round((cell["value"] - low) / spread * 100),
            "best": cell["value"] == best[cell["solver"]],
        }
    return [{**row, "cells": [row["found"].get(solver) for solver in solvers]} for row in rows.values()]


def _cell(cell: Row, names: Mapping[str, str], numbers: Mapping[str, int]) -> dict[str, Any]:
    usage, usd = cell["usage"], cell["usd"]
    tokens = {
        role: count(usage[role]["input_tokens"] + usage[role]["output_tokens"]) for role in ("decomposer", "solver")
    }
    detail = {
        role: f"{count(usage[role]['calls'])} calls; {count(usage[role]['input_tokens'])} in "
        f"({count(usage[role]['cached_input_tokens'])} cached), {count(usage[role]['output_tokens'])} out"
        for role in ("decomposer", "solver")
    }
    return {
        "number": numbers[cell["name"]],
        "test_set": cell["test_set"],
        "strategy": cell["strategy"],
        "decomposer": names[cell["decomposer"]],
        "decomposer_full": cell["decomposer_model"] or cell["decomposer"],
        "solver": names[cell["solver"]],
        "solver_full": cell["solver_model"] or cell["solver"],
        "metric": METRICS[cell["metric"]],
        "n": count(cell["n"]),
        "raw": cell,
        "value": percent(cell["value"]) if cell["n"] else "–",
        "interval": f"{cell['ci_low'] * 100:.1f} to {cell['ci_high'] * 100:.1f}" if cell["n"] else "",
        "low": cell["ci_low"] * 100 if cell["n"] else 0,
        "high": cell["ci_high"] * 100 if cell["n"] else 0,
        "middle": cell["value"] * 100 if cell["n"] else 0,
        "unextracted": count(cell["unextracted"]),
        "fell_back": count(cell["fell_back"]),
        "tokens": tokens,
        "token_numbers": {
            role: usage[role]["input_tokens"] + usage[role]["output_tokens"] for role in ("decomposer", "solver")
        },
        "detail": detail,
        "usd": {key: dollars(value) for key, value in usd.items()},
        "per_correct": per_correct(cell),
        "p50": seconds(cell["latency_p50_s"]),
        "p95": seconds(cell["latency_p95_s"]),
    }


def _comparisons(results: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    cells = {cell["name"]: cell for cell in results["cells"]}
    found = results["comparisons"]
    forest = Forest([row[key] for row in found for key in ("ci_low", "ci_high")])
    rows = [
        {
            "test_set": cells[row["a"]]["test_set"],
            "a": pair_label(cells[row["a"]], names),
            "b": pair_label(cells[row["b"]], names),
            "n": count(row["n"]),
            "forest": forest.row(row["difference"], row["ci_low"], row["ci_high"], points(row["difference"])),
            "difference": points(row["difference"]),
            "interval": f"{points(row['ci_low'])} to {points(row['ci_high'])}",
            "p": p_value(row["p_value"]),
            "p_adjusted": p_value(row["p_adjusted"]),
            "stands": row["p_adjusted"] < 1 - results["verdict"]["rule"]["confidence"],
            "test": row["test"],
        }
        for row in found
    ]
    return {"rows": rows, "axis": forest.axis()}


def _published(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    measured = row["measured"] is not None
    return {
        **row,
        "decomposer": names.get(row["decomposer"], row["decomposer"]),
        "solver": names.get(row["solver"], row["solver"]),
        "published": percent(row["published"]),
        "measured": percent(row["measured"]) if measured else "not measured",
        "interval": f"{row['ci_low'] * 100:.1f} to {row['ci_high'] * 100:.1f}" if measured else "",
        "difference": points(row["difference"]) if measured else "",
    }
