"""`fractionate report RUN_DIR`: the reports again, from what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from fractionate.cli.common import add_config_arguments, print_results, run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write results.json, report.md and report.html from a run's attempts.jsonl, without a model call.\n"
        "CONFIG is the run's config, or the run's folder itself (then its stored config is taken); prices, margins\n"
        "and published figures may be changed with --set and are priced and judged anew."
    )
    parser.epilog = (
        "example:\n  fractionate report runs/mine\n  fractionate report fractionate.toml --set verdict.margin=5"
    )
    add_config_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the reports."""
    from fractionate.config import load_config
    from fractionate.pipeline.folder import RunFolder
    from fractionate.pipeline.reporting import load_stored_config, write_report

    given: Path = arguments.config
    if given.is_dir():
        folder = RunFolder(given)
        config = load_stored_config(folder, arguments.set)
    else:
        folder = RunFolder(run_folder(arguments))
        config = load_config(given, arguments.set)
    results = write_report(folder, config, config.run.name or folder.path.name)
    print_results(results, folder.path, as_json=arguments.json)
    return 0
