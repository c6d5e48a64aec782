"""`fractionate run CONFIG`: the whole job."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from fractionate.cli.common import add_config_arguments, add_place_argument, exit_code, open_run, print_results

if TYPE_CHECKING:
    from fractionate.run.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run a config from questions to a verdict: the teacher demonstrates, its demonstrations are screened by the\n"
        "answers, students are trained, every decomposer × solver pair is measured, reports are written.\n"
        "Every completed call is stored before it is used: the same command resumes, and repeats without a call.\n\n"
        "Strategies (run.strategies): single, single-cot and self-consistency (single stage); static and stepwise\n"
        "(two stage); dynamic. run.repeats answers every test question several times, and self-consistency takes the\n"
        "majority of run.votes answers."
    )
    parser.epilog = (
        "example:\n"
        "  fractionate run fractionate.toml --set run.samples=3 --out runs/three-samples\n"
        '  fractionate run fractionate.toml --set models.teacher="http://localhost:8000/v1#my-model"\n'
        "  fractionate run fractionate.toml --curve --dry-run\n"
        "  fractionate run fractionate.toml --on ray"
    )
    add_config_arguments(parser)
    add_place_argument(parser)
    parser.add_argument(
        "--curve",
        action="store_true",
        help="train the students on 1/8, 1/4 and 1/2 of the demonstrations too, or on curve.shares, and extrapolate",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print calls, tokens, dollars, time and what the questions can show; send and write "
        "nothing, and need no key",
    )
    parser.add_argument(
        "--start-anyway", action="store_true", help="start where the forecast passes the budget, and stop at the cap"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from fractionate.run.stages import run_everything

    if arguments.curve:
        arguments.set = ["curve={}", *arguments.set]
    with open_run(arguments, keyless=arguments.dry_run) as opened:
        if arguments.dry_run:
            return _dry_run(opened, as_json=arguments.json, start_anyway=arguments.start_anyway)
        results = run_everything(opened, start_anyway=arguments.start_anyway)
        opened.progress.stage(opened.closing_line())
        print_results(results, opened.folder.path, as_json=arguments.json)
    return exit_code(results)


def _dry_run(opened: Run, *, as_json: bool, start_anyway: bool) -> int:
    from fractionate.run.forecast import forecast_run, spent_before, training_lines
    from fractionate.run.promise import promise_lines, promised
    from fractionate.run.stages import check_before_spending

    check_before_spending(opened)
    plan = forecast_run(opened)
    if as_json:
        print(json.dumps({**plan.as_json(), "shows": [one.as_json() for one in promised(opened)]}))
    else:
        print("\n".join([*plan.lines(), *training_lines(opened), *promise_lines(opened)]))
    if not start_anyway:
        plan.check(opened.config.budget, spent_before(opened))
    return 0
