"""How numbers and names read in the reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractionate.analysis.sentence import HEADLINES, level, percent, points, usd
from fractionate.analysis.short_names import short_pair_names

__all__ = [
    "HEADLINES", "count", "dollars", "level", "names_of", "p_value", "pair_label", "per_correct", "percent", "points",
    "run_rows", "seconds", "usd",
]  # fmt: skip

UNKNOWN = "unknown"
STRATEGIES = {
    "single": "single stage, direct",
    "single-cot": "single stage, chain of thought",
    "static": "static two stage",
    "stepwise": "stepwise two stage",
    "dynamic": "dynamic (self-ask)",
}
METRICS = {"exact_match": "exact match", "f1": "F1"}
RUNS = (
    "Each cell's value in every run that measured it. The intervals elsewhere resample questions, not runs: they hold "
    "for the mean over these runs."
)
HOW_TO_READ = (
    "A cell is one decomposer, strategy and solver on one test set. Its value is the mean of the metric over n "
    "questions, with its interval; an output that no answer could be read from counts as wrong.",
    "Dollars are those of answering the test set, by role, at the prices listed; they leave out the teacher's "
    "demonstrations and training. An unknown price gives an unknown cost, never zero.",
    "Comparisons are paired: both cells answered the same questions. p is the exact McNemar test for right/wrong, a "
    "paired bootstrap for F1; Holm's adjustment covers every comparison of the run, so an adjusted p below 0.05 stands "
    "among all of them.",
    "The verdict asks of a student whether its pair is non-inferior to the undistilled pair within the margin and "
    "cheaper, each with the stated confidence. The full rule is docs/verdict.md.",
)


def dollars(value: float | None) -> str:
    """Return dollars, or "unknown"."""
    return UNKNOWN if value is None else usd(value)


def seconds(value: float | None) -> str:
    """Return seconds with two significant decimals below ten, or a dash."""
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def per_correct(cell: Mapping[str, Any]) -> str:
    """Return a cell's dollars a correct answer, or why there are none."""
    if cell["usd_per_correct"] is None and cell["usd"]["total"] is not None:
        return "none correct"
    return dollars(cell["usd_per_correct"])


def pair_label(cell: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return a cell's strategy and pair in short names: "static, D-R → teacher"."""
    return f"{cell['strategy']}, {names[cell['decomposer']]} → {names[cell['solver']]}"


def count(value: int) -> str:
    """Return a whole number with thousands set apart."""
    return f"{value:,}"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def names_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the short form of every decomposer and solver of a run."""
    cells = results["cells"]
    return short_pair_names((cell["decomposer"] for cell in cells), (cell["solver"] for cell in cells))


def run_rows(results: Mapping[str, Any], names: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of a pooled report: each cell's value in every run; no rows otherwise."""
    runs = list(dict.fromkeys(name for values in results["runs"].values() for name in values))
    cells = [cell for cell in results["cells"] if cell["name"] in results["runs"]]
    body = [
        [
            cell["test_set"],
            pair_label(cell, names),
            *(percent(of_run[run]) if run in of_run else "–" for run in runs),
            percent(cell["value"]),
        ]
        for cell in cells
        for of_run in (results["runs"][cell["name"]],)
    ]
    return ["test set", "pair", *runs, "mean"], body
