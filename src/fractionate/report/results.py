"""results.json: everything the reports show, in one file that other programs read (schema 1)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel, ValidationError

from fractionate.analysis.comparisons import compare, published_rows
from fractionate.analysis.contrasts import is_read_leniently, mean, outcomes, share, unparsed_cells, value_interval
from fractionate.analysis.corrections import correction_fields, value_of
from fractionate.analysis.findings import Distill
from fractionate.analysis.matrix import (
    Key,
    Matrix,
    is_candidate_decomposer,
    is_candidate_solver,
    key_of,
    matrices,
    of_whole_students,
)
from fractionate.analysis.next_step import Place
from fractionate.analysis.pricing import Pricing
from fractionate.analysis.rule import NO_CAPS, Caps, Rule, Standing
from fractionate.analysis.students import measure_agreement, measure_generalisation
from fractionate.analysis.verdict import decide
from fractionate.columns import TOOL_AMOUNTS, Columns, tool_column, total
from fractionate.config import Config
from fractionate.config.addresses import TOOL, tools_of
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.report.curves import learning_curves
from fractionate.report.run_cost import RunCost, break_even
from fractionate.types import ROLES, Cell, Component, Role, Throughput, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1


def build_results(
    cells: Sequence[Cell],
    config: Config,
    notes: Sequence[str],
    run: Mapping[str, Any],
    pooled: Mapping[Key, Mapping[str, float]] | None = None,
    warnings: Sequence[str] = (),
    throughput: Mapping[str, Throughput] | None = None,
    standings: Mapping[str, Standing] | None = None,
    spent: RunCost | None = None,
    tried: Sequence[Mapping[str, Any]] = (),
    caps: Caps = NO_CAPS,
    place: Place | None = None,
) -> dict[str, Any]:
    """Return results.json of measured cells: cells, comparisons, verdict, prices, published figures and notes.

    Values, intervals and differences are shares of 1; dollars are floats, or null where a price is not known; tokens
    are counts; latencies are seconds. The same cells, config, notes and run give the same result. `run` is passed
    through as it is; `pooled` holds the values of pooled cells run by run; `warnings` say what went wrong on the way
    and stand at the top of every report; `throughput` is that of local models by name;
    `standings` say where the verdict stands among earlier looks, by test set; `spent` is what the run took besides its
    answers (None: not known); `tried` is what was tried on the dev split, a row
    per candidate; `caps` is the most output tokens of a question by cell and role, where calls have a cap; `place` is
    where the run lies, for the command that comes next.
    """
    pricing, rule = Pricing.of(config, throughput), Rule.of(config, standings, caps)
    tests = matrices(cells)
    measured = [_cell(matrix, cell, pricing, rule) for matrix in tests for cell in matrix.cells]
    named = {key_of(cell): matrix.name(cell) for matrix in tests for cell in matrix.cells}
    judged = of_whole_students(cells)
    comparisons = compare(judged, rule)
    verdict = decide(judged, pricing, rule, place or Place.of(config)).as_dict()
    return {
        "schema": SCHEMA,
        "run": dict(run),
        "warnings": list(warnings),
        "unread": [one.as_dict() for matrix in tests for one in unparsed_cells(matrix)],
        "cells": measured,
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        "verdict": verdict,
        "break_even": break_even(spent, verdict["evidence"], pricing),
        "curve": learning_curves(cells, spent, pricing),
        "runs": {named[key]: dict(values) for key, values in (pooled or {}).items()},
        "generalisation": [one.as_dict() for one in measure_generalisation(judged, rule, comparisons)],
        "agreement": [asdict(agreement) for agreement in measure_agreement(judged)],
        "tried": [dict(row) for row in tried],
        "published": published_rows(config.published, measured),
        "prices": _prices(cells, pricing),
        **({"prompts": dict(config.prompts.own())} if any(config.prompts.own()) else {}),
        **({"examples": [one.question for one in config.prompts.examples]} if config.prompts.examples else {}),
        "notes": [*notes, *_remarks(measured)],
    }


def to_json(results: Mapping[str, Any]) -> str:
    """Return results as JSON text. Raises ValueError for a number that JSON does not know (NaN, infinity)."""
    return json.dumps(results, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def write_json(results: Mapping[str, Any], path: Path) -> None:
    """Write results.json, whole or not at all. Raises FractionateError naming the file where that fails."""
    write_text(to_json(results), path)


def read_results(path: Path) -> dict[str, Any]:
    """Read results.json. Raises UsageError, in one line, for a file that holds something else."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        checked = _Results.model_validate(results)
    except FileNotFoundError:
        raise UsageError(f"{path} is not there: run fractionate report first") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        said = str(error)
    else:
        return {**results, **{name: getattr(checked, name) for name in ("warnings", "cells")}}
    raise UsageError(f"{path} cannot be read ({said}): run fractionate report again")


class _Verdict(BaseModel):
    distill: Distill
    because: str


class _Results(BaseModel):
    """What every reader of results.json relies on; sections check what they show."""

    verdict: _Verdict
    warnings: list[str] = []
    cells: list[dict[str, Any]]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _judge(cell: Cell) -> dict[str, Any]:
    """Return the judge of a cell, and the mean of its own scores, which labels by people may correct."""
    return {"identity": cell.judge, "judged_value": mean(outcomes(cell.columns, cell.metric))}


def _cell(matrix: Matrix, cell: Cell, pricing: Pricing, rule: Rule) -> dict[str, Any]:
    columns = cell.columns
    outputs = columns.outputs
    n = len(columns)
    interval = value_interval(cell, rule.confidence) if n else None
    lenient = n > 0 and is_read_leniently(cell)
    lenient_interval = value_interval(cell, rule.confidence, "lenient") if lenient else None
    usages = {role: total_usage(columns, role) for role in ROLES}
    tools = [used for role in ROLES for used in _tools(cell, role, pricing)]
    dollars = _dollars(cell, usages, tools, pricing)
    correct = _whole(math.fsum(columns.column("exact_match").tolist()))
    latencies = outputs.column("latency_s")
    return {
        "name": matrix.name(cell),
        "test_set": matrix.label,
        "dataset": cell.dataset,
        "split": cell.split,
        "strategy": cell.strategy,
        "stages": cell.stages,
        "strategy_label": cell.label or cell.strategy,
        "decomposer": cell.decomposer.name,
        "solver": cell.solver.name,
        "decomposer_model": cell.decomposer.model,
        "solver_model": cell.solver.model,
        "decomposer_kind": _decomposer_kind(cell.decomposer),
        "student_solver": is_candidate_solver(cell.solver),
        "metric": cell.metric,
        **({"judge": _judge(cell)} if cell.judge else {}),
        "n": n,
        "repeats": columns.repeats,
        "outputs": len(outputs),
        "value": value_of(cell) if n else None,
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "confidence": rule.confidence,
        "lenient_value": mean(outcomes(columns, cell.metric, "lenient")) if lenient else None,
        "lenient_ci_low": lenient_interval.low if lenient_interval else None,
        "lenient_ci_high": lenient_interval.high if lenient_interval else None,
        **correction_fields(cell),
        "correct": correct,
        "unextracted": int(outputs.column("unextracted").sum()),
        "unextracted_share": share(outputs.column("unextracted")),
        "fell_back": int(outputs.column("fell_back").sum()),
        "unparsed": int(outputs.column("unparsed").sum()),
        "failures": int(outputs.column("failures").sum()),
        "cut_off": int(outputs.cut_off.sum()),
        "cut_off_share": share(outputs.cut_off),
        "clusters": int(columns.clusters.max()) + 1 if n else 0,
        "counted_tokens": sum(usage.counted for usage in usages.values()),
        "usage": {role: _usage(usage) for role, usage in usages.items()},
        "tools": tools,
        "usd": dollars,
        "usd_per_correct": dollars["total"] / correct if dollars["total"] is not None and correct else None,
        "latency_p50_s": _quantile(latencies, 0.5),
        "latency_p95_s": _quantile(latencies, 0.95),
        "latency_of": "batch" if _is_local(cell) else "call",
    }


def _is_local(cell: Cell) -> bool:
    """Return whether the latencies are those of whole batches on this machine, not of single calls."""
    return any(component.model.startswith("local:") for component in (cell.decomposer, cell.solver))


def _whole(count: float) -> float | int:
    """Return right answers as a count; a mean over several runs may lie between two."""
    return int(count) if count == int(count) else count


def _decomposer_kind(decomposer: Component) -> str:
    if decomposer.kind == "none":
        return "none"
    return "student" if is_candidate_decomposer(decomposer) or decomposer.kind == "model" else "reference"


def total_usage(columns: Columns, role: Role) -> Usage:
    """Return the usage of one role over all attempts."""
    return Usage(**columns.usage(role))


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "compute_s": usage.compute_s,
        "counted": usage.counted,
    }


def _tools(cell: Cell, role: Role, pricing: Pricing) -> list[dict[str, Any]]:
    """Return what a role's tools were used, in all and per question: counts, tokens, seconds, dollars."""
    component = cell.decomposer if role == "decomposer" else cell.solver
    found = []
    for tool in tools_of(component.model):
        used: dict[str, Any] = {}
        for amount in TOOL_AMOUNTS:
            column = cell.columns.column(tool_column(role, tool, amount))
            used[amount] = total(column) if len(column) else 0
        used["usd"] = pricing.usd(f"{TOOL}{tool}", Usage(calls=used["calls"]))
        n = len(cell.columns)
        each = {amount: value / n if n and value is not None else None for amount, value in used.items()}
        found.append({"tool": tool, "role": role, **used, "per_question": each})
    return found


def _dollars(
    cell: Cell, usages: Mapping[Role, Usage], tools: Sequence[Mapping[str, Any]], pricing: Pricing
) -> dict[str, float | None]:
    """Return the dollars of each role, those of its tools included; a tool's own calls are the solver's that it is."""
    dollars: dict[str, float | None] = {}
    for component in (cell.decomposer, cell.solver):
        parts = [pricing.usd(component.model, usages[component.role])]
        if not component.model.startswith(TOOL):
            parts += [used["usd"] for used in tools if used["role"] == component.role]
        known = [part for part in parts if part is not None]
        dollars[component.role] = math.fsum(known) if len(known) == len(parts) else None
    decomposer, solver = dollars["decomposer"], dollars["solver"]
    return {**dollars, "total": None if decomposer is None or solver is None else decomposer + solver}


def _quantile(values: NDArray[np.float64], share: float) -> float | None:
    import numpy as np

    return float(np.quantile(values, share)) if len(values) else None


def _prices(cells: Sequence[Cell], pricing: Pricing) -> list[dict[str, Any]]:
    """Return each model's price source; `known` is whether its calls here could be priced."""
    used: dict[str, Usage] = {}
    for cell in cells:
        for component in (cell.decomposer, cell.solver):
            if component.model:
                usage = total_usage(cell.columns, component.role)
                used[component.model] = used.get(component.model, Usage()) + usage
                for tool in tools_of(component.model):
                    used.setdefault(f"{TOOL}{tool}", Usage())
    return [
        {"model": model, "source": pricing.source(model), "known": pricing.usd(model, usage) is not None}
        for model, usage in used.items()
    ]


def _remarks(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader must know about the cells: counted tokens, fallbacks, unparsed answers, failures, blanks."""
    said = (
        ("counted_tokens", "calls reported no usage: their tokens were counted here"),
        ("fell_back", "attempts had no decomposition and went single stage"),
        ("unparsed", "decompositions could not be read"),
        ("unextracted", "outputs held no answer that could be read: they count as wrong"),
        ("failures", "calls did not end well (cut off, refused or failed)"),
    )
    remarks = []
    for key, text in said:
        total = sum(cell[key] for cell in cells)
        if total:
            where = sum(1 for cell in cells if cell[key])
            remarks.append(f"{total:,} {text}, in {where} of {len(cells)} cells.")
    blank = sum(1 for cell in cells if cell["n"] and cell["lenient_value"] is None)
    if blank:
        remarks.append(
            f"{blank} of {len(cells)} cells have no lenient value: their data set reads answers in a way of its own, "
            "or an earlier version measured them."
        )
    return remarks
