"""`fractionate report RUN_DIR`: the reports again, from what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from fractionate.cli.common import add_config_arguments, print_results, settings
from fractionate.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write results.json, report.md and report.html from a run's attempts, without a model call.\n"
        "CONFIG is the run's config, or the run's folder (which stores its config). --set may change prices, margins\n"
        "and published figures; the run is then priced and judged anew. Folders of several runs (one config with\n"
        "different seeds) are pooled: a question counts with its mean over them, and the reports go to --out."
    )
    parser.epilog = (
        "example:\n  fractionate report runs/mine\n  fractionate report fractionate.toml --set verdict.margin=5\n"
        "  fractionate report runs/seed-0 runs/seed-1 runs/seed-2 --out runs/seeds"
    )
    add_config_arguments(parser)
    parser.add_argument(
        "more", metavar="RUN_DIR", type=Path, nargs="*", help="folders of further runs, to pool with the first"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the reports."""
    from fractionate.config import load_config
    from fractionate.run.folder import RunFolder, run_folder
    from fractionate.run.reporting import load_stored_config, write_pooled_report, write_report

    given: Path = arguments.config
    if arguments.more:
        if not given.is_dir() or arguments.out is None:
            raise UsageError("several runs are pooled by their folders, into a folder of its own: add --out DIR")
        folder = RunFolder(arguments.out)
        results = write_pooled_report([RunFolder(run) for run in (given, *arguments.more)], folder, settings(arguments))
        print_results(results, folder.path, as_json=arguments.json)
        return 0
    if given.is_dir():
        folder = RunFolder(given)
        config = load_stored_config(folder, settings(arguments))
    else:
        config = load_config(given, settings(arguments))
        folder = RunFolder(run_folder(config, given, arguments.out))
    results = write_report(folder, config, config.run.name or folder.path.name)
    print_results(results, folder.path, as_json=arguments.json)
    return 0
