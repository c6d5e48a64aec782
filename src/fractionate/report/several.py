"""A page over the runs of a folder: what each one answers, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.report.amounts import UNKNOWN, count, dollars, percent, points, points_between
from fractionate.report.render import templates
from fractionate.report.results import read_results

PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run in words: its verdict, and outcome and bill (per 1,000 questions) before and after."""

    name: str
    link: str
    distill: str
    action: str
    questions: str = ""
    outcome: str = ""
    difference: str = ""
    bill: str = ""

    def text(self) -> str:
        """Return the run on one line."""
        figures = ", ".join(part for part in (self.outcome, self.difference, self.bill, self.questions) if part)
        return f"{self.name}: {self.action} {figures}".strip()


def read_runs(folder: Path) -> list[RunLine]:
    """Return the runs below a folder that have results, by name. Raises UsageError where there is none."""
    found = sorted(folder.glob("*/results.json"))
    if not found:
        raise UsageError(f"{folder} holds no config.json and no run with results: name a run's folder, or its config")
    return [_line(path.parent, read_results(path)) for path in found]


def write_runs_page(folder: Path, runs: Sequence[RunLine]) -> Path:
    """Write index.html beside the runs, and return its path."""
    page = templates().get_template("runs.html.j2").render(name=folder.resolve().name, runs=runs)
    write_text(page + "\n", folder / PAGE)
    return folder / PAGE


def _line(folder: Path, results: Mapping[str, Any]) -> RunLine:
    verdict = results["verdict"]
    outcome, saving = verdict.get("outcome"), verdict.get("saving")
    line = {
        "name": folder.name,
        "link": f"{folder.name}/report.html",
        "distill": verdict["distill"],
        "action": str(verdict.get("action") or verdict["because"]),
    }
    if outcome:
        between = points_between(outcome["ci_low"], outcome["ci_high"])
        line |= {
            "questions": f"{count(outcome['n'])} questions",
            "outcome": f"{percent(outcome['before'])} → {percent(outcome['after'])}",
            "difference": f"{points(outcome['difference'])} pp ({between})",
        }
        known = saving is not None
        line["bill"] = (
            f"{dollars(saving['usd_per_1000_before'])} → {dollars(saving['usd_per_1000_after'])} per 1,000"
            if known
            else f"bill {UNKNOWN}"
        )
    return RunLine(**line)
