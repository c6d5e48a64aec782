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
        "different seeds) are pooled: a question counts with its mean over them, and the reports go to --out. A\n"
        "folder of runs, such as runs/, gets a page that lists and compares their answers."
    )
    parser.epilog = (
        "example:\n  fractionate report runs/mine\n  fractionate report fractionate.toml --set verdict.margin=5\n"
        "  fractionate report runs/mine --open\n  fractionate report runs/\n"
        "  fractionate report runs/seed-0 runs/seed-1 runs/seed-2 --out runs/seeds"
    )
    add_config_arguments(parser)
    parser.add_argument(
        "more", metavar="RUN_DIR", type=Path, nargs="*", help="folders of further runs, to pool with the first"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


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
    if given.is_dir() and not (given / "config.json").exists() and any(given.glob("*/results.json")):
        return _list_runs(given, arguments)
    if given.is_dir():
        folder = RunFolder(given)
        config = load_stored_config(folder, settings(arguments))
    else:
        config = load_config(given, settings(arguments))
        folder = RunFolder(run_folder(config, given, arguments.out))
    results = write_report(folder, config, config.run.name or folder.path.name)
    print_results(results, folder.path, as_json=arguments.json)
    if arguments.open:
        _open(folder.html)
    return 0


def _list_runs(folder: Path, arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from fractionate.report.several import read_runs, write_runs_page

    runs = read_runs(folder)
    page = write_runs_page(folder, runs)
    if arguments.json:
        print(json.dumps([asdict(one) for one in runs], ensure_ascii=False))
    else:
        print("\n".join([*(one.text() for one in runs), f"\npage: {page}"]))
    if arguments.open:
        _open(page)
    return 0


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        print(f"no browser opened: open {page} yourself")
