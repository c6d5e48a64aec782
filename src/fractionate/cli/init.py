"""`fractionate init [DIR]`: a config that runs, for the user's own questions or for a small example."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.cli._init_templates import EXAMPLE, OWN, PRICE_BY_HOUR, PRICE_BY_TOKEN

if TYPE_CHECKING:
    from fractionate.datasets.sniff import Layout, Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write fractionate.toml, a commented config that runs. Never overwrites one.\n\n"
        "With --data it is for your own questions, each with its right answer: delimiter, encoding, columns and the\n"
        "form of the answers are read off the file (CSV, TSV, JSON, JSON lines, Parquet); without --test half of the\n"
        "questions are set apart for the test. Without --data it is a small example that needs no key."
    )
    parser.epilog = (
        "examples:\n  fractionate init --data questions.csv --teacher openai:gpt-4o-mini\n"
        "  fractionate init mine --data train.jsonl --test test.jsonl --teacher openai:gpt-4o --column answers=label\n"
        "  fractionate init --example try && fractionate run try/fractionate.toml"
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, default=Path(), help="folder (default: here)")
    parser.add_argument("--data", metavar="FILE", type=Path, help="your questions: training ones, or all of them")
    parser.add_argument("--test", metavar="FILE", type=Path, help="your test questions, if they are in a file apart")
    parser.add_argument("--teacher", metavar="NAME", default="", help="the model you pay today, such as openai:gpt-4o")
    parser.add_argument(
        "--column",
        metavar="OURS=YOURS",
        action="append",
        default=[],
        help="your name of the column question, answers, context, group or id; repeatable",
    )
    parser.add_argument("--example", action="store_true", help="a small example with a recorded teacher (the default)")


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from fractionate.errors import UsageError
    from fractionate.models import check_name
    from fractionate.run.folder import RunFolder

    path: Path = arguments.directory / "fractionate.toml"
    if path.exists():
        raise UsageError(f"{path} exists: name another folder, or delete the file first")
    if arguments.data is None and (arguments.test or arguments.column or arguments.teacher):
        raise UsageError("--test, --teacher and --column go with --data FILE: name the file of your questions")
    if arguments.data is not None and arguments.example:
        raise UsageError("--example and --data are two things: leave one out")
    if arguments.data is not None and not arguments.teacher:
        raise UsageError(
            "--teacher is missing: name the model that you pay today, such as --teacher openai:gpt-4o-mini"
        )
    if arguments.teacher:
        check_name(arguments.teacher)
    RunFolder(arguments.directory).create()
    if arguments.data is None:
        _write_example(arguments.directory, path)
        print(f"wrote {path}; next: fractionate run {path}")
        return 0
    _write_own(arguments, path)
    _print_forecast(path)
    print(f"next: fractionate run {path}")
    return 0


def _write_example(folder: Path, path: Path) -> None:
    """Write a teacher's recording on questions of the embedded data, and the config that distills it."""
    from fractionate import datasets
    from fractionate.datasets.atlas.teacher import write_recording
    from fractionate.files import write_text

    train, test = "atlas#train@0-191", "atlas#test@0-632/8"
    problems = [*datasets.load(train), *datasets.load(test)]
    write_recording(folder / "teacher.jsonl", problems, samples=2, flaw_rate=0.2, seed=0)
    write_text(EXAMPLE.format(train=train, test=test), path)


def _write_own(arguments: argparse.Namespace, path: Path) -> None:
    from fractionate.cli.common import columns_of
    from fractionate.config import TrainConfig
    from fractionate.datasets.sniff import as_rows, divide, find_layout, read_table
    from fractionate.files import write_text

    given = columns_of(arguments)
    table = read_table(arguments.data)
    layout = find_layout(table, given)
    apart = read_table(arguments.test) if arguments.test else None
    rows = as_rows(table, layout)
    train, test = divide(rows) if apart is None else (rows, as_rows(apart, find_layout(apart, given)))
    in_place = apart is not None and _read_in_place(layout, table, apart)
    references = [_reference(path, file) if in_place and file else None for file in (arguments.data, arguments.test)]
    for place, (name, rows) in enumerate((("train", train), ("test", test))):
        if references[place] is None:
            _write_rows(path.parent / f"{name}.jsonl", rows)
            references[place] = f"jsonl:{name}.jsonl"
    text = OWN.format(
        read=_said(table, layout),
        train=_quoted(references[0]),
        test=_quoted(references[1]),
        trained=len(train),
        tested=len(test),
        columns=_columns_line(layout.columns if in_place else {}),
        answer=layout.answer,
        teacher=_quoted(arguments.teacher),
        prices=_prices(arguments.teacher),
    )
    write_text(text, path)
    print(f"read {_said(table, layout)}")
    print(f"wrote {path}: {len(train):,} training questions, {len(test):,} test questions")
    least = TrainConfig().min_examples
    if len(train) < least:
        print(f"note: a student takes {least} training questions or more (train.min_examples): none will be trained")


def _said(table: Table, layout: Layout) -> str:
    """Return what was found in a file, in one line."""
    from fractionate.scoring.forms import FORM_NAMES

    names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
    how = f", {names[table.delimiter]}, {table.encoding}" if table.delimiter else ""
    columns = ", ".join(f"{ours} = {yours}" for ours, yours in layout.columns.items())
    return f"{table.path}: {len(table.rows):,} rows{how}; {columns}; answers are {FORM_NAMES[layout.answer]}"


def _read_in_place(layout: Layout, *tables: Table) -> bool:
    """Return whether the files can be named in the config as they are, with the columns found in the first one."""
    from fractionate.datasets import load
    from fractionate.errors import UsageError

    if not all(table.reads_as_it_is for table in tables):
        return False
    try:
        return all(len(load(f"jsonl:{table.path}", layout.columns)) > 0 for table in tables)
    except UsageError:
        return False


def _reference(config: Path, file: Path) -> str:
    try:
        seen = os.path.relpath(file.resolve(), config.parent.resolve())
    except ValueError:  # another drive
        seen = str(file.resolve())
    return f"jsonl:{Path(seen).as_posix()}"


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import json

    from fractionate.errors import UsageError
    from fractionate.files import write_text

    if not rows:
        raise UsageError(f"no question is left for {path.name}: every row needs a question and an answer")
    if path.exists():
        raise UsageError(f"{path} exists: name another folder, or delete the file first")
    write_text((json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def _columns_line(columns: Mapping[str, str]) -> str:
    usual = {"question": "prompt", "answers": "label"}
    listed = ", ".join(f"{ours} = {_quoted(yours)}" for ours, yours in (columns or usual).items())
    return f"{'' if columns else '# '}columns = {{ {listed} }}"


def _prices(teacher: str) -> str:
    """Return the teacher's price table: a comment where the price is known, else the lines to fill in."""
    from fractionate.analysis.pricing import Pricing
    from fractionate.config import parse_config
    from fractionate.types import Usage

    if teacher.startswith("local:"):
        return PRICE_BY_HOUR.format(model=_quoted(teacher))
    pricing = Pricing.of(parse_config({"data": {"test": "atlas"}, "models": {"teacher": teacher}}))
    known = pricing.usd(teacher, Usage(1, 1000, 0, 1000)) is not None
    said = "known; to override it:" if known else "not known, and without it the verdict is undecided:"
    return PRICE_BY_TOKEN.format(model=_quoted(teacher), known=said)


def _quoted(text: str | None) -> str:
    """Return a text as TOML writes it: a JSON string is one."""
    import json

    return json.dumps(text or "", ensure_ascii=False)


def _print_forecast(path: Path) -> None:
    """Print what `run --dry-run` prints; where it cannot say yet, why."""
    from fractionate.config import load_config
    from fractionate.errors import FractionateError
    from fractionate.run.folder import run_folder
    from fractionate.run.forecast import forecast_run
    from fractionate.run.progress import Progress
    from fractionate.run.promise import promise_lines
    from fractionate.run.run import Run
    from fractionate.run.stages import check_before_spending

    try:
        config = load_config(path)
        base = path.resolve().parent
        with Run(config, run_folder(config, path), base, Progress(quiet=True), keyless=True) as opened:
            check_before_spending(opened)
            print("\n".join([*forecast_run(opened).lines(), *promise_lines(opened)]))
    except FractionateError as error:
        print(f"no forecast yet: {error}")
