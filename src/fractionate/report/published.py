"""Published figures laid beside the measured cells of the same pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.analysis.pairs import SINGLE_STAGE
from fractionate.errors import UsageError

_KNOWN = {"decomposer", "solver", "strategy", "dataset", "value", "source"}


def published_rows(published: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a published figure and matching cell: published, measured and measured − published, in [0, 1].

    A figure names its pair by the names of the matrix or by model names. Without `strategy` it belongs to every
    two-stage cell of the pair (single-stage ones where the decomposer is "none"), without `dataset` to every test set.
    A value over 1 is in points of 100. A figure without a measured cell is kept, with nulls. Raises UsageError for a
    row that lacks a field or holds one that is not known.
    """
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(published, 1):
        value = _value(row, number)
        matching = [cell for cell in cells if _matches(row, cell)]
        rows += [_row(row, value, cell) for cell in matching] or [_row(row, value, None)]
    return rows


def _value(row: Mapping[str, Any], number: int) -> float:
    unknown = sorted(set(row) - _KNOWN)
    if unknown:
        raise UsageError(f"published row {number}: unknown key {unknown[0]!r}; it takes {', '.join(sorted(_KNOWN))}")
    missing = [key for key in ("decomposer", "solver", "value") if key not in row]
    if missing:
        raise UsageError(f"published row {number} lacks {missing[0]!r}")
    value = row["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise UsageError(f"published row {number}: value must be a share (0 to 1) or points (to 100), it is {value!r}")
    return value / 100 if value > 1 else float(value)


def _matches(row: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    strategy = row.get("strategy")
    right_stage = (cell["strategy"] in SINGLE_STAGE) == (row["decomposer"] == "none")
    return (
        row["decomposer"] in (cell["decomposer"], cell["decomposer_model"])
        and row["solver"] in (cell["solver"], cell["solver_model"])
        and (cell["strategy"] == strategy if strategy else right_stage)
        and row.get("dataset", cell["dataset"]) == cell["dataset"]
    )


def _row(row: Mapping[str, Any], value: float, cell: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = cell["value"] if cell else None
    return {
        "dataset": cell["dataset"] if cell else row.get("dataset", ""),
        "strategy": cell["strategy"] if cell else row.get("strategy", ""),
        "decomposer": row["decomposer"],
        "solver": row["solver"],
        "cell": cell["name"] if cell else None,
        "published": value,
        "source": str(row.get("source", "")),
        "measured": measured,
        "ci_low": cell["ci_low"] if cell else None,
        "ci_high": cell["ci_high"] if cell else None,
        "n": cell["n"] if cell else 0,
        "difference": measured - value if measured is not None else None,
    }
