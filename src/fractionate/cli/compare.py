"""`fractionate compare A B [C ...]`: systems over the same questions, from logs of any kind."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fractionate.cli.common import add_scoring_arguments, scoring_config, scoring_of

if TYPE_CHECKING:
    from fractionate.analysis.comparison import Comparison
    from fractionate.analysis.requirements import Check
    from fractionate.analysis.systems import System
    from fractionate.config import PriceConfig
    from fractionate.logs.choices import Choices

HELP = "compare systems over the same questions, from logs that you have"
NOT_SHOWN = 3
"""The exit code where --require was not shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Compare systems over the same questions, from logs that you have: no model is called.\n\n"
        "A LOG is one of\n"
        "  RUN_DIR:CELL            a cell of a run, such as runs/mine:static/D-R/E-A\n"
        "  FILE.jsonl              rows with 'id' (or 'index') and 'outcome' ('correct', 'exact_match', 'score'), or\n"
        "                          outputs and right answers as 'fractionate score' takes them; CSV, Parquet, … too\n"
        "  FILE.jsonl#FIELD        one column of such a file: its output, or its outcome\n"
        "  FILE.eval, FILE.json    a log of inspect_ai; a folder of .eval files stands for each of them\n"
        "  FILE.jsonl:PAIR         a pair's answers with feedback, from 'fractionate serve --record'\n"
        "  DIR, samples_….jsonl    a log of lm-evaluation-harness (--log_samples)\n"
        "and NAME=LOG calls the system NAME. Only questions that all answered count. Questions that share a 'group'\n"
        "(or 'context', 'passage') count as one independent unit, several answers to a question by their mean. A\n"
        "field inside another is written a.b.c.\n\n"
        "Exit codes: 0; 1 where a scorer does not fit, so that nothing is compared, or a budget of looks is used up;\n"
        "2 for bad usage; 3 where a requirement (--require, --thresholds) is not shown.\n\n"
        "Comparing again until the claim is shown errs more often than the confidence says. --looks N shares the\n"
        "error among N comparisons under one --key, whatever they compare; --looks any gives intervals that hold\n"
        "however often one looks as questions are added. Both are kept in --ledger."
    )
    parser.epilog = (
        "examples:\n"
        "  fractionate compare small.jsonl large.jsonl --margin 2\n"
        "  fractionate compare new.jsonl old.jsonl --require not-worse --margin 2\n"
        "  fractionate compare new.jsonl old.jsonl --thresholds gate.toml --markdown - --junit gate.xml\n"
        "  fractionate compare new.jsonl old.jsonl --require not-worse --margin 2 --looks 20 --key main\n"
        "  fractionate compare outputs.csv#gpt4 outputs.csv#llama --answers-field label --dataset gsm8k\n"
        "  fractionate compare runs/mine:static/D-R/E-A runs/mine:static/teacher/teacher --json\n"
        "  fractionate compare a.eval b.eval c.eval --scorer match --price openai/gpt-4o-mini=0.15,0.60\n"
        "  fractionate compare out/one out/two --task gsm8k --filter strict-match\n"
        "  fractionate compare traffic.jsonl:static:teacher+teacher traffic.jsonl:static:D-R+teacher\n"
        "  fractionate compare a.jsonl b.jsonl --gold gsm8k#test --output-field completion"
    )
    parser.add_argument("logs", metavar="LOG", nargs="+", help="two logs or more, each [NAME=]PATH[:CELL | #FIELD]")
    parser.add_argument(
        "--margin", metavar="PP", type=float, default=None, help="the non-inferiority margin, in percentage points"
    )
    parser.add_argument(
        "--require",
        choices=("not-worse", "better"),
        help="exit 3 unless the first of two logs is shown to be not worse by the margin, or better",
    )
    parser.add_argument(
        "--confidence", metavar="C", type=float, default=None, help="confidence of intervals and tests (0.95)"
    )
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        type=Path,
        help="a TOML file of what is required: require, margin, confidence, outcome (percent), usd (per 1,000\n"
        "questions), questions, looks, key; in a table [gate] or at its top; options given here win",
    )
    parser.add_argument(
        "--looks", metavar="N|any", type=_looks, default="", help="a budget of comparisons, or intervals at any time"
    )
    parser.add_argument("--key", metavar="NAME", default="", help="the series of comparisons that --looks is about")
    parser.add_argument(
        "--ledger", metavar="FILE", type=Path, default=Path("looks.sqlite"), help="where looks are kept (looks.sqlite)"
    )
    parser.add_argument("--markdown", metavar="FILE", default="", help="write the comparison as Markdown; - prints it")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write the requirements as JUnit XML")
    parser.add_argument("--id-field", metavar="FIELD", default="", help="the field by which questions are matched")
    parser.add_argument(
        "--group-field", metavar="FIELD", default="", help="the field that names the group of a question"
    )
    parser.add_argument("--outcome-field", metavar="FIELD", default="", help="the field with the outcome, 0 to 1")
    parser.add_argument(
        "--metric", metavar="NAME", default="", help="the metric: exact_match, f1, or a metric of lm-evaluation-harness"
    )
    parser.add_argument(
        "--scorer",
        metavar="NAME",
        default="",
        help="a scorer of an inspect_ai log; for rows, a scorer by name or as a table, as fractionate score takes it",
    )
    parser.add_argument("--filter", metavar="NAME", default="", help="a filter of lm-evaluation-harness")
    parser.add_argument("--task", metavar="NAME", default="", help="a task of lm-evaluation-harness")
    parser.add_argument("--repeats", action="store_true", help="rows with one id are several answers to one question")
    parser.add_argument("--dataset", metavar="NAME", default="", help="score outputs as this data set does")
    add_scoring_arguments(parser)
    parser.add_argument(
        "--price",
        metavar="MODEL=IN,OUT",
        action="append",
        default=[],
        help="dollars per million tokens read and written, of a model as the log names it (or a system); repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: argparse.Namespace) -> int:
    """Read the logs, compare them and print the comparison."""
    import json
    import sys
    import warnings

    from fractionate.analysis.comparison import compare_systems
    from fractionate.analysis.requirements import checks, read_requirements
    from fractionate.errors import UsageError, printable
    from fractionate.report.comparison import comparison_text

    given = {name: getattr(args, name) for name in ("require", "margin", "confidence", "looks", "key")}
    required = read_requirements(args.thresholds, **given)
    if (required.any or required.looks) and len(args.logs) < 2:
        raise UsageError("compare takes two logs or more: name another")
    systems = _systems(args)
    if len(systems) < 2:
        raise UsageError("compare takes two logs or more: name another")
    if (required.any or required.looks) and len(systems) != 2:
        raise UsageError(f"what is required is about two logs, NEW and OLD, not {len(systems)}")
    confidence, standing = required.confidence, ""
    if required.looks:
        from fractionate.run.looks import enter_comparison

        key = required.key or f"{systems[0].name} against {systems[1].name}"
        confidence, standing = enter_comparison(
            args.ledger, key, systems, confidence=confidence, margin=required.margin, looks=required.looks
        )
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", UserWarning)
        comparison = compare_systems(systems, confidence, required.margin)
    found = checks(comparison, required) if required.any else []
    for doubt in doubts:
        print(f"fractionate: {doubt.message}", file=sys.stderr)
    if args.json:
        gate = {"checks": [one.as_dict() for one in found]} if found else {}
        print(json.dumps({**comparison.as_dict(), **gate}))
    elif args.markdown != "-":
        print(printable(comparison_text(comparison)))
    _write(args, comparison, found)
    for misfit in comparison.misfits:
        print(f"fractionate: {printable(misfit)}", file=sys.stderr)
    out = sys.stderr if args.json or args.markdown == "-" else sys.stdout
    if standing:
        print(f"{printable(standing)}: compared at a confidence of {confidence:.4%}", file=out)
    for one in found:
        print(printable(one.said), file=out)
    if found:
        return 0 if all(one.passed for one in found) else NOT_SHOWN
    return int(bool(comparison.misfits))


def _systems(args: argparse.Namespace) -> list[System]:
    from fractionate.errors import UsageError

    choices = _choices(args)
    judge, labels = choices.scoring.judge, choices.scoring.labels
    if labels is not None and labels.by_id:
        raise UsageError(
            f"{labels.path}: labels by 'id' alone do not say which system's output they are about: add 'output'"
        )
    if judge is not None and scoring_config(args)[0].judge.scale == "preference":
        from fractionate.logs.preferences import PairJudge, read_preferences

        opened = judge()
        assert isinstance(opened, PairJudge)
        return read_preferences(args.logs, choices, opened)
    from fractionate.logs.read import read_systems

    return read_systems(args.logs, choices, dict(map(_price, args.price)))


def _write(args: argparse.Namespace, comparison: Comparison, found: Sequence[Check]) -> None:
    if not (args.markdown or args.junit):
        return
    from fractionate.files import write_text
    from fractionate.report.gate import gate_markdown, write_junit

    if args.markdown == "-":
        print(gate_markdown(comparison, found))
    elif args.markdown:
        write_text(gate_markdown(comparison, found), Path(args.markdown))
    if args.junit:
        write_junit(comparison, found, args.junit)


def _looks(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _choices(args: argparse.Namespace) -> Choices:
    from fractionate.logs.choices import Choices

    return Choices(
        id=args.id_field,
        outcome=args.outcome_field,
        group=args.group_field,
        metric=args.metric,
        filter=args.filter,
        task=args.task,
        scoring=scoring_of(args),
        repeats=args.repeats,
    )


def _price(text: str) -> tuple[str, PriceConfig]:
    from fractionate.config import PriceConfig
    from fractionate.errors import UsageError

    model, equals, prices = text.rpartition("=")
    try:
        read, written = (float(price) for price in prices.split(","))
        if not (model and equals and 0 <= read < float("inf") and 0 <= written < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(f"--price takes MODEL=IN,OUT (such as gpt-4o-mini=0.15,0.60), not {text!r}") from None
    return model, PriceConfig(input_per_million=read, output_per_million=written)
