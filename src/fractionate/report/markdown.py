"""report.md: the verdict, every cell and comparison, the prices and what to know about them, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.files import write_text
from fractionate.report.formatting import (
    HOW_TO_READ,
    METRICS,
    RUNS,
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


def write_markdown(results: Mapping[str, Any], path: Path) -> None:
    """Write report.md. Raises FractionateError naming the file where that fails."""
    write_text(markdown(results), path)


def markdown(results: Mapping[str, Any]) -> str:
    """Return the report of a results.json as Markdown."""
    names = names_of(results)
    sections = [
        f"# {_text(results['run'].get('name') or 'Report')}",
        f"**{_text(results['verdict']['because'])}**",
        *_evidence(results, names),
        *_cells(results, names),
        *_runs(results, names),
        *_comparisons(results, names),
        *_generalisation(results, names),
        *_agreement(results, names),
        *_published(results, names),
        *_prices(results),
        *_list("Notes", results["notes"]),
        *_list("How to read this", HOW_TO_READ),
        *_run(results["run"]),
    ]
    return "\n\n".join(sections) + "\n"


def _evidence(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    rows = [row for row in results["verdict"]["evidence"] if row["part"] != "decomposing"]
    if not rows:
        return []
    header = ["test set", "replaces", "decomposer", "solver", "n", "value", "undistilled", "difference", "interval",
              "$ a thousand", "interval", "non-inferior", "cheaper", "worth it", "n to decide"]  # fmt: skip
    body = [
        [
            row["dataset"],
            {"pair": "both"}.get(row["part"], row["part"]),
            names[row["decomposer"]],
            names[row["solver"]],
            count(row["n"]),
            percent(row["value"]),
            percent(row["reference_value"]),
            points(row["difference"]),
            f"{points(row['ci_low'])} to {points(row['ci_high'])} ({level(row['confidence'])})",
            _thousand(row["usd_difference"]),
            _span(_thousand(row["usd_ci_low"]), _thousand(row["usd_ci_high"])),
            row["non_inferior"],
            row["cheaper"],
            row["worth"],
            count(row["n_to_decide"]) if row["n_to_decide"] else "–",
        ]
        for row in rows
    ]
    margin = results["verdict"]["rule"]["margin_points"]
    caption = (
        f"Students against the undistilled pair over the same questions. Differences are in points of 100, the margin "
        f"is {margin:g}; dollars are the difference a thousand questions."
    )
    return ["## Evidence", caption, _table(header, body)]


def _cells(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    header = ["test set", "strategy", "decomposer", "solver", "metric", "n", "value", "interval", "unread answers",
              "decomposer tokens (in/cached/out)", "solver tokens (in/cached/out)", "$ decomposer", "$ solver",
              "$ total", "$ a correct answer", "latency p50", "p95"]  # fmt: skip
    body = [
        [
            cell["test_set"],
            cell["strategy"],
            names[cell["decomposer"]],
            names[cell["solver"]],
            METRICS[cell["metric"]],
            count(cell["n"]),
            percent(cell["value"]) if cell["n"] else "–",
            _span(percent(cell["ci_low"]), percent(cell["ci_high"])) if cell["n"] else "–",
            count(cell["unextracted"]),
            _tokens(cell["usage"]["decomposer"]),
            _tokens(cell["usage"]["solver"]),
            dollars(cell["usd"]["decomposer"]),
            dollars(cell["usd"]["solver"]),
            dollars(cell["usd"]["total"]),
            per_correct(cell),
            seconds(cell["latency_p50_s"]),
            seconds(cell["latency_p95_s"]),
        ]
        for cell in results["cells"]
    ]
    return ["## Cells", _table(header, body)] if body else ["## Cells", "Nothing was measured."]


def _runs(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    header, body = run_rows(results, names)
    return ["## Run by run", RUNS, _table(header, body)] if body else []


def _comparisons(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    if not results["comparisons"]:
        return []
    cells = {cell["name"]: cell for cell in results["cells"]}
    label = {name: f"{cell['test_set']}: {pair_label(cell, names)}" for name, cell in cells.items()}
    header = ["a", "b", "n", "a − b, points", "interval", "p", "p (Holm)", "test"]
    body = [
        [
            label[row["a"]],
            label[row["b"]],
            count(row["n"]),
            points(row["difference"]),
            f"{points(row['ci_low'])} to {points(row['ci_high'])}",
            p_value(row["p_value"]),
            p_value(row["p_adjusted"]),
            row["test"],
        ]
        for row in results["comparisons"]
    ]
    caption = f"Paired over the same questions; Holm's adjustment covers all {len(body)} comparisons."
    return ["## Comparisons", caption, _table(header, body)]


def _generalisation(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    header = {
        "test_set": "test set", "part": "part", "student": "student", "learnt_from": "learnt from", "seen": "seen",
        "partner": "beside", "n": "n", "value": "value", "against": "against", "against_value": "its value",
        "difference": "difference", "interval": "interval", "p_adjusted": "p (Holm)",
    }  # fmt: skip
    body = [[row[key] for key in header] for row in generalisation_rows(results, names)]
    return ["## Generalisation", LEAD, _table(list(header.values()), body)] if body else []


def _agreement(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    if not results["agreement"]:
        return []
    header = ["test set", "decomposer", "against", "n", "same words", "token F1", "subquestions", "against's"]
    body = [
        [
            row["dataset"],
            names.get(row["decomposer"], row["decomposer"]),
            row["reference"],
            str(row["n"]),
            percent(row["exact"]),
            f"{row['token_f1']:.2f}",
            f"{row['subquestions']:.2f}",
            f"{row['reference_subquestions']:.2f}",
        ]
        for row in results["agreement"]
    ]
    return ["## Agreement of decompositions", _table(header, body)]


def _published(results: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    if not results["published"]:
        return []
    header = ["test set", "strategy", "decomposer", "solver", "published", "measured", "interval", "difference",
              "source"]  # fmt: skip
    body = []
    for row in results["published"]:
        measured = row["measured"] is not None
        body.append(
            [
                row["dataset"],
                row["strategy"],
                names.get(row["decomposer"], row["decomposer"]),
                names.get(row["solver"], row["solver"]),
                percent(row["published"]),
                percent(row["measured"]) if measured else "not measured",
                _span(percent(row["ci_low"]), percent(row["ci_high"])) if measured else "–",
                points(row["difference"]) if measured else "–",
                row["source"],
            ]
        )
    return ["## Beside published figures", _table(header, body)]


def _prices(results: Mapping[str, Any]) -> list[str]:
    body = [[f"`{row['model']}`", row["source"]] for row in results["prices"]]
    return ["## Prices", _table(["model", "price and where it comes from"], body)] if body else []


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {_text(item)}" for item in items)] if items else []


def _run(run: Mapping[str, Any]) -> list[str]:
    plain = {key: value for key, value in run.items() if isinstance(value, str | int | float) and value != ""}
    return ["## Run", _table(["", ""], [[key, str(value)] for key, value in plain.items()])] if plain else []


def _thousand(value: float | None) -> str:
    return UNKNOWN if value is None else dollars(value * 1000)


def _span(low: str, high: str) -> str:
    return UNKNOWN if UNKNOWN in (low, high) else f"{low} to {high}"


def _tokens(usage: Row) -> str:
    return f"{count(usage['input_tokens'])} / {count(usage['cached_input_tokens'])} / {count(usage['output_tokens'])}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_line(header), "|" + "---|" * len(header), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(_text(item) for item in row) + " |"


def _text(value: object) -> str:
    """Return text that can neither break a table nor start HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
