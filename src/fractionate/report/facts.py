"""What sections read: results.json, the examples picked from the attempts, and what both call things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fractionate.analysis.matrix import short_pair_names
from fractionate.analysis.sentence import HEADLINES
from fractionate.report.section import EVERYWHERE, TEXT, Column

Record = Mapping[str, Any]
_METRICS = {"exact_match": "exact match", "f1": "F1"}


def metric_label(metric: str) -> str:
    """Return a metric in words; one that is not known by any is called by its name."""
    return _METRICS.get(metric, metric)


def verdict_lines(verdict: Record) -> list[str]:
    """Return the lines of a verdict: what to do, what it does to outcome and bill, and "Next: COMMAND".

    Results that were written before the lines were hold one sentence.
    """
    said = [str(verdict.get("action") or verdict["because"]), str(verdict.get("effect") or "")]
    following = str(verdict.get("next") or "")
    return [line for line in (*said, following and f"Next: {following}") if line]


@dataclass(frozen=True)
class Facts:
    """One report's facts. `results` is results.json as a dict, `examples` come from `pick_examples`."""

    results: Record
    examples: Sequence[Record] = ()

    @property
    def title(self) -> str:
        """Return what the run is called."""
        return str(self.results["run"].get("name") or "Report")

    @property
    def headline(self) -> str:
        """Return the verdict in a few words."""
        return HEADLINES[self.results["verdict"]["distill"]]

    @property
    def lines(self) -> list[str]:
        """Return the verdict: what to do, what it does to outcome and bill, and the next command."""
        return verdict_lines(self.results["verdict"])

    @property
    def cells(self) -> Sequence[Record]:
        """Return the measured cells."""
        found: Sequence[Record] = self.results["cells"]
        return found

    @cached_property
    def by_name(self) -> dict[str, Record]:
        """Return the measured cells by name."""
        return {cell["name"]: cell for cell in self.cells}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return each cell's number, from 1, by its name."""
        return {cell["name"]: number for number, cell in enumerate(self.cells, 1)}

    @cached_property
    def test_sets(self) -> list[str]:
        """Return the test sets in order."""
        return list(dict.fromkeys(cell["test_set"] for cell in self.cells))

    @cached_property
    def _names(self) -> dict[str, str]:
        return short_pair_names((cell["decomposer"] for cell in self.cells), (cell["solver"] for cell in self.cells))

    @cached_property
    def _strategies(self) -> dict[str, str]:
        return {cell["strategy"]: cell["strategy_label"] for cell in self.cells}

    def strategy(self, name: str) -> str:
        """Return a strategy in words."""
        return self._strategies.get(name, name)

    def name(self, full: str) -> str:
        """Return the short form of a decomposer or solver."""
        return self._names.get(full, full)

    def pair(self, row: Record) -> str:
        """Return who decomposes and who solves, in short names: "D-R → teacher"."""
        return f"{self.name(row['decomposer'])} → {self.name(row['solver'])}"

    def label(self, cell: Record) -> str:
        """Return a cell's strategy and pair in short names: "static, D-R → teacher"."""
        return f"{cell['strategy']}, {self.pair(cell)}"

    def stands(self, p_adjusted: float) -> bool:
        """Return whether a difference stands after Holm's adjustment at the verdict's confidence."""
        return bool(p_adjusted < 1 - self.results["verdict"]["rule"]["confidence"])

    @property
    def test_set_column(self) -> Column:
        """Return the column "test_set", which a page leaves out where there is only one."""
        return Column("test_set", "test set", formats=EVERYWHERE if len(self.test_sets) > 1 else TEXT)
