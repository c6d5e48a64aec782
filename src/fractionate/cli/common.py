"""What commands share: the config argument, the run's folder, and how results are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from fractionate.config import Config
    from fractionate.datasets.scoring import RowJudge, Scoring
    from fractionate.run.run import Run


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, --set, --out, --json and --quiet."""
    parser.add_argument(
        "config", metavar="CONFIG", type=Path, help="the run's TOML config ('fractionate init' writes one)"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change one key, such as run.seed=1; repeatable"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run's folder (default: runs/NAME in the working directory; NAME is the config's, or its folder's "
        "where the config is a fractionate.toml)",
    )
    parser.add_argument(
        "--store", metavar="FILE", help="the SQLite file of all calls (default: run.store, calls.sqlite beside CONFIG)"
    )
    add_output_arguments(parser)


def add_place_argument(parser: argparse.ArgumentParser) -> None:
    """Add --on."""
    parser.add_argument(
        "--on",
        metavar="PLACE",
        default="",
        help="make the calls on Ray: ray (this machine's cores), or ray://HEAD[:PORT] (a running cluster)",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --json and --quiet."""
    parser.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how outputs are scored: --answer, --gold, --column, --scale, --config, and the fields of a row."""
    from fractionate.types import AnswerForm

    parser.add_argument(
        "--answer",
        metavar="FORM",
        default="",
        choices=get_args(AnswerForm),
        help="read and score answers in this form, with or without --dataset: " + ", ".join(get_args(AnswerForm)),
    )
    parser.add_argument("--gold", metavar="REFERENCE", default="", help="take the right answers from this data set")
    parser.add_argument("--output-field", metavar="FIELD", default="", help="the field with the raw output")
    parser.add_argument("--answers-field", metavar="FIELD", default="", help="the field with the right answers")
    parser.add_argument(
        "--index-field", metavar="FIELD", default="", help="the field by which rows match the --gold data (index, id)"
    )
    parser.add_argument(
        "--scale", metavar="LOW-HIGH", default="", help="ratings from LOW (counts 0) to HIGH (counts 1), such as 1-5"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="a config whose data.scorer, [judge], [models.options], [prices], [budget] and [limits] apply",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a key of such a config, such as judge.model=openai:gpt-4o-mini or data.scorer.pattern='…'; repeatable",
    )
    parser.add_argument(
        "--column",
        metavar="OURS=YOURS",
        action="append",
        default=[],
        help="a column of the --gold data under your name, as data.columns maps them; repeatable",
    )


def columns_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the columns of the --gold data that --column maps, by our names."""
    from fractionate.errors import UsageError

    columns = {}
    for pair in arguments.column:
        ours, equals, yours = pair.partition("=")
        if not (ours and equals and yours):
            raise UsageError(f"--column takes OURS=YOURS (such as answers=label), not {pair!r}")
        columns[ours] = yours
    return columns


def scoring_of(arguments: argparse.Namespace) -> Scoring:
    """Return how outputs are scored, as --dataset, --scorer and the scoring arguments say."""
    from fractionate.datasets.own_scorers import Scale
    from fractionate.datasets.scoring import Fields, Scoring
    from fractionate.scoring.labels import read_labels

    config, base = scoring_config(arguments)
    judge, labels = None, None
    if config.data.scorer.name == "judge":
        judge = partial(_open_judge, config, base)
        if config.judge.labels:
            labels = read_labels(found_beside(base, config.judge.labels, "judge.labels"), config.judge.scale)
    return Scoring(
        arguments.dataset,
        config.data.scorer.text,
        Scale.parse(arguments.scale) if arguments.scale else None,
        arguments.gold,
        Fields(arguments.output_field, arguments.answers_field, arguments.index_field),
        columns_of(arguments),
        arguments.answer,
        base,
        judge,
        labels,
    )


def scoring_config(arguments: argparse.Namespace) -> tuple[Config, Path]:
    """Return the config that --config, --scorer and --set make, and the folder that its paths are relative to."""
    from fractionate.config import override, parse_config, read_table
    from fractionate.config.scorers import scorer_table

    path: Path | None = arguments.config
    table = read_table(path) if path else {}
    data = table.setdefault("data", {})
    data.setdefault("test", [])
    if arguments.scorer:
        data["scorer"] = scorer_table(arguments.scorer)
    elif isinstance(data.get("scorer"), str):
        data["scorer"] = {"name": data["scorer"]}
    base = path.resolve().parent if path else Path()
    return parse_config(override(table, arguments.set), str(path or "the scorer"), base), base


def found_beside(base: Path, path: str, key: str) -> Path:
    """Return a path of a config: beside it, else in the working directory. Raises UsageError, which names the key."""
    from fractionate.errors import UsageError

    for found in (base / Path(path).expanduser(), Path(path).expanduser()):
        if found.is_file():
            return found
    raise UsageError(f"{key}: {path} does not exist")


def _open_judge(config: Config, base: Path) -> RowJudge:
    from fractionate.run.judging import FileJudge

    return FileJudge(config, base)


def open_run(arguments: argparse.Namespace, *, keyless: bool = False) -> Run:
    """Open the run that the arguments name; with `keyless` to count its calls, not to make them."""
    from fractionate.analysis.rule import question_points
    from fractionate.config import load_config
    from fractionate.run.folder import run_folder
    from fractionate.run.progress import Progress
    from fractionate.run.run import Run

    config = load_config(arguments.config, settings(arguments))
    if doubt := question_points(config.verdict.margin):
        print(f"fractionate: verdict.margin = {config.verdict.margin:g}: {doubt}", file=sys.stderr)
    base, progress = arguments.config.resolve().parent, Progress(quiet=arguments.quiet)
    folder = run_folder(config, arguments.config, arguments.out)
    return Run(
        config, folder, base, progress, on=getattr(arguments, "on", ""), keyless=keyless, source=arguments.config
    )


def settings(arguments: argparse.Namespace) -> list[str]:
    """Return what the command line changes in the config: --set, and --store as `run.store`."""
    return [*arguments.set, *([f"run.store={json.dumps(arguments.store)}"] if arguments.store else [])]


def exit_code(results: Mapping[str, Any]) -> int:
    """Return 1 where something went wrong on the way to the results, and say each thing in a line; else 0."""
    for warning in results["warnings"]:
        print(f"fractionate: {warning}", file=sys.stderr)
    return int(bool(results["warnings"]))


def print_results(results: Mapping[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print the terminal's sections, where the reports are, and the verdict as the last lines; or results.json."""
    from fractionate.report.facts import verdict_lines
    from fractionate.report.render import one_line, terminal, with_sections

    if as_json:
        print(json.dumps(with_sections(results), ensure_ascii=False))
        return
    print(terminal(results))
    print(f"\nreports: {folder / 'report.html'}, {folder / 'report.md'}, {folder / 'results.json'}")
    said = [one_line(line) for line in verdict_lines(results["verdict"])]
    print("\nWhich part should you distill? " + "\n".join(said))
