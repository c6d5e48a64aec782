"""Published figures laid beside the measured cells of the same pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractionate.config import PublishedFigure


def published_rows(published: Sequence[PublishedFigure], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per published figure and matching cell: published, measured and measured − published, in [0, 1].

    A figure names its pair by the names of the matrix or by model names. Without a strategy it belongs to every
    two-stage cell of the pair (single-stage ones where the decomposer is "none"), without a data set to every test
    set. `cells` are those of results.json. A figure without a measured cell is kept, with nulls.
    """
    rows: list[dict[str, Any]] = []
    for figure in published:
        matching = [cell for cell in cells if _matches(figure, cell)]
        rows += [_row(figure, cell) for cell in matching] or [_row(figure, None)]
    return rows


def _matches(figure: PublishedFigure, cell: Mapping[str, Any]) -> bool:
    right_stage = (cell["stages"] == "single") == (figure.decomposer == "none")
    return (
        figure.decomposer in (cell["decomposer"], cell["decomposer_model"])
        and figure.solver in (cell["solver"], cell["solver_model"])
        and (cell["strategy"] == figure.strategy if figure.strategy else right_stage)
        and figure.dataset in ("", cell["dataset"])
    )


def _row(figure: PublishedFigure, cell: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = cell["value"] if cell else None
    return {
        "dataset": cell["dataset"] if cell else figure.dataset,
        "strategy": cell["strategy"] if cell else figure.strategy,
        "decomposer": figure.decomposer,
        "solver": figure.solver,
        "cell": cell["name"] if cell else None,
        "published": figure.share,
        "source": figure.source,
        "measured": measured,
        "ci_low": cell["ci_low"] if cell else None,
        "ci_high": cell["ci_high"] if cell else None,
        "n": cell["n"] if cell else 0,
        "difference": measured - figure.share if measured is not None else None,
    }
