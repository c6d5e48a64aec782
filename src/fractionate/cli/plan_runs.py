"""The actions of `fractionate plan` that read a run's results.json: break-even and the learning curve."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fractionate.api import read_report
from fractionate.errors import UsageError
from fractionate.planning.checks import positive
from fractionate.report.facts import Facts
from fractionate.report.payback import saved_after, saving_of
from fractionate.report.sections import break_even as break_even_section
from fractionate.report.sections import curve as curve_section
from fractionate.report.terminal import section_text


def break_even(args: argparse.Namespace) -> None:
    """Say when each proven pair of a run has paid back, and what it has saved by some numbers of questions."""
    results = _results(args.folder, "break_even")
    found = results["break_even"]
    if found is None:
        raise UsageError(f"nothing was distilled in {args.folder}, so there is no bill to pay back: train a student")
    for questions in args.questions:
        number = int(positive("questions", questions))
        for pair in found["pairs"] if found["usd"] is not None else ():
            pair["saved"].append(saved_after(pair, found["usd"], number))
    if args.plot:
        _draw_break_even(found, Facts(results), args.plot)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    elif section := break_even_section.section(Facts(results)):
        print(section_text(section))


def curve(args: argparse.Namespace) -> None:
    """Say what more demonstrations, or a larger student, would bring to a run's students, and what they would cost."""
    results = _results(args.folder, "curve")
    found = results["curve"]
    if not found:
        raise UsageError(
            f"no student in {args.folder} learnt from less than all of its demonstrations, so there is no curve: "
            "run it again with fractionate run CONFIG --curve"
        )
    fitted = [one for one in found if not one["refused"]]
    if not fitted:
        raise UsageError(found[0]["refused"])
    if args.plot:
        _draw_curves(fitted, args.plot)
    if args.json:
        print(json.dumps({"curves": found}, ensure_ascii=False))
    elif section := curve_section.section(Facts(results)):
        print(section_text(section))


def _draw_curves(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    from fractionate.planning import plots
    from fractionate.planning.curve import Prediction

    drawn = [
        plots.Drawn(
            f"{one['student']} with {one['partner']}, {one['strategy']} ({one['test_set']})",
            one["over"],
            [(point["amount"], point["value"]) for point in one["points"]],
            [Prediction(**told) for told in one["line"]],
            one["confidence"],
        )
        for one in curves
    ]
    plots.save(plots.learning_curves(drawn), path, "Learning curve")


def _draw_break_even(found: dict[str, Any], facts: Facts, path: Path) -> None:
    from fractionate.planning import plots
    from fractionate.planning.break_even import Bill

    if found["usd"] is None:
        raise UsageError(
            "the bill is unknown, so there is nothing to draw: leave out --plot to see which price it lacks"
        )
    if not found["pairs"]:
        raise UsageError("no pair is proven to be no worse and cheaper, so there is nothing to draw: leave out --plot")
    named = {f"{pair['dataset']}: {pair['strategy']}, {facts.pair(pair)}": saving_of(pair) for pair in found["pairs"]}
    plots.save(plots.break_even_lines(Bill({"all": found["usd"]}), named), path, "Break-even")


def _results(folder: Path, entry: str) -> dict[str, Any]:
    """Return a run's results. Raises UsageError where they cannot be read, or are of a version without the entry."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give a run's folder, such as runs/NAME")
    results = dict(read_report(folder).results)
    if entry not in results:
        raise UsageError(f"{folder / 'results.json'} is of an earlier version: run fractionate report {folder} first")
    return results
